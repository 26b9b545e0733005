"""The fold of agents: status words of the specification, load, and what a tombstone does."""

from __future__ import annotations

import pytest

from ops.views.agents import AgentsFold, AgentView
from schemas.agents import AgentDefinition, AgentHealth, AgentRecord, AgentState, BreakerState
from schemas.tasks import TaskEvent, TaskEventKind, TaskState
from streams.routing.rules import Rule

RULES = (Rule("count", "counter"), Rule("count.*", "counter"), Rule("other", "somebody"))


def record(state: AgentState, version: int = 1) -> AgentRecord:
    definition = AgentDefinition(agent_id="counter", agent_type="counter", capabilities=["counting"])
    return AgentRecord(
        event_id="e", occurred_at=1, source="coordinator", agent_id="counter", definition=definition, state=state,
        registered_at=1, updated_at=1, version=version, cause="c",
    )  # fmt: skip


def event(task_id: str, version: int, state: TaskState, kind: TaskEventKind = TaskEventKind.ASSIGNED) -> TaskEvent:
    return TaskEvent(
        event_id=f"{task_id}.{version}.{kind}", occurred_at=1, source="coordinator", task_id=task_id, version=version,
        cause="c", decided_at=version, kind=kind, to_state=state, agent_id="counter",
    )  # fmt: skip


def view(fold: AgentsFold) -> AgentView:
    (found,) = fold.views(RULES)
    return found


@pytest.mark.parametrize(
    ("state", "tasks", "word"),
    [
        (AgentState.REGISTERED, [], "idle"),
        (AgentState.STOPPED, [], "idle"),
        (AgentState.UP, [], "idle"),
        (AgentState.UP, [TaskState.COMPLETED], "completed"),
        (AgentState.UP, [TaskState.FAILED], "failed"),
        (AgentState.UP, [TaskState.DEAD_LETTERED], "failed"),
        (AgentState.UP, [TaskState.RETRYING], "retrying"),
        (AgentState.UP, [TaskState.ASSIGNED], "running"),
        (AgentState.UP, [TaskState.RUNNING, TaskState.COMPLETED], "running"),
        (AgentState.OFFLINE, [TaskState.COMPLETED], "failed"),
    ],
)
def test_status_words(state: AgentState, tasks: list[TaskState], word: str) -> None:
    fold = AgentsFold()
    fold.add_record("counter", record(state))
    for number, task in enumerate(tasks):
        fold.add_event(event(f"t{number}", 1, task))
    assert view(fold).status == word


def test_a_healthy_agent_whose_last_task_failed_is_up() -> None:
    fold = AgentsFold()
    fold.add_record("counter", record(AgentState.UP))
    fold.add_event(event("a", 1, TaskState.COMPLETED))
    fold.add_event(event("b", 2, TaskState.FAILED))
    assert (view(fold).state, view(fold).last_outcome) == ("up", "failed")
    fold.add_record("counter", record(AgentState.OFFLINE, 2))
    assert (view(fold).state, view(fold).last_outcome) == ("offline", "failed")


def test_load_follows_the_highest_version() -> None:
    fold = AgentsFold()
    fold.add_record("counter", record(AgentState.UP))
    fold.add_event(event("a", 1, TaskState.ASSIGNED))
    fold.add_event(event("b", 1, TaskState.ASSIGNED))
    fold.add_event(event("a", 2, TaskState.COMPLETED, TaskEventKind.COMPLETED))
    fold.add_event(event("b", 1, TaskState.ASSIGNED))
    fold.add_event(event("b", 1, TaskState.ASSIGNED, TaskEventKind.LATE_REPORT))
    assert view(fold).in_flight == 1
    assert view(fold).status == "running"


def test_the_json_form_is_whole() -> None:
    fold = AgentsFold()
    fold.add_record("counter", record(AgentState.UP))
    fold.add_health(
        "counter",
        AgentHealth(
            event_id="e", occurred_at=1, source="s", agent_id="counter", breaker=BreakerState.OPEN, version=1, cause="c"
        ),
    )
    assert view(fold).document() == {
        "agent_id": "counter",
        "status": "idle",
        "state": "up",
        "last_outcome": None,
        "breaker": "open",
        "in_flight": 0,
        "capabilities": ["counting"],
        "patterns": ["count", "count.*"],
    }


def test_an_older_copy_changes_nothing_and_a_tombstone_takes_the_agent_away() -> None:
    fold = AgentsFold()
    fold.add_record("counter", record(AgentState.UP, 3))
    fold.add_record("counter", record(AgentState.OFFLINE, 2))
    assert view(fold).status == "idle"
    fold.add_record("counter", None)
    assert fold.views(RULES) == []
