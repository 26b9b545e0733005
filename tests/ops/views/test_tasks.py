"""The fold of a task's events: repeats, late copies, refusals, and ids that are used again."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ops.views.tasks import TaskFold, TaskStatus, instant, plain
from schemas.tasks import TaskError, TaskEvent, TaskEventKind, TaskResult, TaskState

ERROR = TaskError(code="agent_error", message="no", details='{"line": 3}')


def event(version: int, kind: str, to_state: str, **fields: Any) -> TaskEvent:
    defaults: dict[str, Any] = {
        "event_id": f"{kind}.{version}",
        "occurred_at": version,
        "source": "coordinator",
        "task_id": "t",
        "cause": f"tasks.requests.0.{version}",
        "decided_at": 1_000_000 * version,
        "kind": TaskEventKind(kind),
        "version": version,
        "to_state": TaskState(to_state),
    }
    return TaskEvent(**(defaults | fields))


def outcome(version: int, status: str, result: str | None = None) -> TaskResult:
    return TaskResult(
        event_id=f"r.{version}", occurred_at=1, source="coordinator", task_id="t", version=version, cause="c",
        status=TaskState(status), result=result, created_at=1, completed_at=2,
    )  # fmt: skip


HISTORY = [
    event(1, "assigned", "assigned", agent_id="a", attempt=1, decision='{"chosen": "a"}'),
    event(2, "retry_scheduled", "retrying", agent_id="a", attempt=1, error=ERROR),
    event(3, "assigned", "assigned", agent_id="b", attempt=2),
    event(4, "completed", "completed", agent_id="b", attempt=2),
]


def folded(events: list[TaskEvent], *results: TaskResult, position: str | None = None) -> TaskStatus:
    fold = TaskFold("t", position)
    for each in events:
        fold.add_event(each)
    for result in results:
        fold.add_result(result)
    found = fold.status()
    assert found is not None
    return found


def test_nothing_is_known_without_events() -> None:
    assert TaskFold("t").status() is None
    assert not TaskFold("t").answered()


NOT_FOUND = TaskError(code="task_not_found", message="Task 't' not found")
"""Of a wish about a task that never was."""


def test_a_refused_wish_about_no_task_makes_none_of_it() -> None:
    wish = event(0, "refused", "unknown", error=NOT_FOUND)
    fold = TaskFold("t")
    fold.add_event(wish)
    assert fold.status() is None and not fold.finished() and fold.unseen(set()) == []
    assert fold.refusals() == [wish]
    assert folded([wish, *HISTORY]).status is TaskState.COMPLETED
    assert folded([wish], position=wish.cause).status is TaskState.REFUSED, "whoever asks about the wish is told"
    assert folded([event(0, "refused", "unknown", error=ERROR)]).status is TaskState.REFUSED, "a submit, say"


def test_the_last_version_is_the_status_and_its_result_is_joined() -> None:
    found = folded(HISTORY, outcome(4, "completed", '{"n": 1}'))
    assert (found.status, found.agent, found.attempts, found.result) == (TaskState.COMPLETED, "b", 2, '{"n": 1}')
    assert found.completed
    assert found.finished
    assert found.error is None


def test_the_json_form_is_whole() -> None:
    document = folded(HISTORY[:2]).document()
    error = {
        "code": "agent_error", "message": "no", "retryable": False, "agent_id": None, "attempt": 0,
        "details": {"line": 3},
    }  # fmt: skip
    assert document == {
        "task_id": "t",
        "status": "retrying",
        "agent": "a",
        "attempts": 1,
        "result": None,
        "error": error,
        "history": [
            {
                "at": "1970-01-01T00:00:01.000000Z", "kind": "assigned", "from_state": None, "to_state": "assigned",
                "attempt": 1, "agent": "a", "error": None, "decision": {"chosen": "a"},
            },
            {
                "at": "1970-01-01T00:00:02.000000Z", "kind": "retry_scheduled", "from_state": None,
                "to_state": "retrying", "attempt": 1, "agent": "a", "error": error, "decision": None,
            },
        ],
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_order_and_repeats_make_no_difference(seed: int) -> None:
    events = HISTORY[:-1] * 2 + [HISTORY[-1]] * 2
    random.Random(seed).shuffle(events)
    # Only where a task was forgotten may its first version follow its last; then the id is a new task's.
    if events.index(HISTORY[-1]) > events.index(HISTORY[0]):
        assert folded(events, outcome(4, "completed", "1")) == folded(HISTORY, outcome(4, "completed", "1"))


def test_a_late_copy_of_an_older_version_changes_nothing() -> None:
    late = event(2, "assigned", "assigned", event_id="from a paused owner", agent_id="z", attempt=9)
    found = folded([*HISTORY, late], outcome(4, "completed", "1"))
    assert found.status is TaskState.COMPLETED
    assert found.agent == "b"


def test_a_refused_submit_is_refused() -> None:
    found = folded([event(0, "refused", "unknown", error=TaskError(code="unknown_pattern", message="Unknown"))])
    assert found.status is TaskState.REFUSED
    assert found.finished
    assert not found.completed
    assert found.document()["status"] == "refused"
    assert found.document()["error"]["code"] == "unknown_pattern"


def test_a_refused_repeat_leaves_the_task_as_it_is_but_answers_its_own_submit() -> None:
    conflict = TaskError(code="task_conflict", message="Task 't' already exists with another body")
    refused = event(4, "refused", "completed", error=conflict, cause="tasks.requests.0.77", event_id="x")
    assert folded([*HISTORY, refused]).status is TaskState.COMPLETED
    mine = folded([*HISTORY, refused], position="tasks.requests.0.77")
    assert mine.status is TaskState.REFUSED
    assert mine.error == conflict


def test_notes_are_history_and_no_state() -> None:
    note = event(3, "late_report", "assigned", event_id="late", agent_id="a")
    found = folded([*HISTORY[:3], note])
    assert found.status is TaskState.ASSIGNED
    assert found.agent == "b"
    assert [each.kind for each in found.history][-1] is TaskEventKind.LATE_REPORT


def test_an_id_used_again_begins_a_new_history() -> None:
    again = event(1, "accepted", "queued", event_id="new life")
    found = folded([*HISTORY, again])
    assert found.status is TaskState.QUEUED
    assert [each.event_id for each in found.history] == ["new life"]


def test_it_is_answered_when_the_result_is_there_too() -> None:
    fold = TaskFold("t")
    for each in HISTORY:
        fold.add_event(each)
    assert not fold.answered()
    fold.add_result(outcome(4, "completed", "1"))
    assert fold.answered()


def test_text_that_is_no_json_is_shown_as_it_is() -> None:
    assert plain("{") == "{"
    assert plain('{"a": 1}') == {"a": 1}
    assert plain(None) is None


def test_instants_keep_their_microseconds() -> None:
    assert instant(1_700_000_000_123_456) == "2023-11-14T22:13:20.123456Z"
    assert instant(1) == "1970-01-01T00:00:00.000001Z"
