"""Laws that hold for any history of a few tasks, whatever users, agents, timers and crashes do in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.agents import AgentState
from schemas.policies import RetryPolicy
from schemas.settings import Settings
from schemas.task_row import TaskRow
from schemas.tasks import IN_FLIGHT, TERMINAL, TaskError, TaskEvent, TaskEventKind, TaskResult
from streams.processor import Change
from tests.streams.tasks.world import World

TASKS = st.sampled_from(["t", "u", "v"])
REPORTS = st.sampled_from(["started", "progress", "completed", "failed"])
STEPS = st.one_of(
    st.tuples(st.just("submit"), TASKS, st.sampled_from(["dig", "cut", "nobody"]), st.booleans(), st.booleans()),
    st.tuples(st.just("pinned"), TASKS, st.sampled_from(["a", "b", "z"])),
    st.tuples(st.just("command"), TASKS, st.sampled_from(["execute", "cancel", "redrive", "discard", "assign"])),
    st.tuples(st.just("report"), TASKS, REPORTS, st.integers(-1, 1)),
    st.tuples(st.just("refuse"), TASKS),
    st.tuples(st.just("time"), st.sampled_from([0.5, 2.0, 6.0, 400.0, 90_000.0])),
    st.tuples(st.just("agent"), st.sampled_from("ab"), st.sampled_from(list(AgentState)), st.booleans()),
    st.tuples(st.just("unregister"), st.sampled_from("ab")),
    st.tuples(st.just("ready")),
    st.tuples(st.just("raise"), TASKS),
    st.tuples(st.just("restart")),
)


class Watched(World):
    """A world that checks every transition against the laws."""

    def settle(self, row: TaskRow | None, decided: Any, event: Any) -> Any:
        made = super().settle(row, decided, event)
        if isinstance(made, Change):
            self._check_change(row, made.row)
        elif made is not None:
            (told,) = self.of("tasks.events")
            assert told.to_state == (told.from_state or "unknown")
            assert self.of("tasks.results") == []
        return made

    def _check_change(self, before: TaskRow | None, after: TaskRow) -> None:
        told: TaskEvent = self.told
        assert (told.version, told.to_state, told.from_state) == (after.version, after.state, before and before.state)
        if before is not None and before.state in TERMINAL:
            assert after.state is before.state, "nothing leaves a terminal state"
            assert after.event is TaskEventKind.REDRIVEN
            return
        assert len(self.of("tasks.results")) == (1 if after.state in TERMINAL else 0)
        assert after.epoch >= (before.epoch if before else 0)
        assert (after.event is TaskEventKind.ASSIGNED) == (after.epoch != (before.epoch if before else 0))
        inbox = self.of("inbox")
        left = before is not None and before.state in IN_FLIGHT and after.state not in IN_FLIGHT
        answered = after.event in (TaskEventKind.COMPLETED, TaskEventKind.FAILED, TaskEventKind.RETRY_SCHEDULED)
        cancels = [record.epoch for record in inbox if record.kind == "cancel"]
        assert cancels in ([], [before.epoch] if before else [])
        assert not left or cancels or answered or after.event is TaskEventKind.DEAD_LETTERED
        assert (after.state in TERMINAL) == (self.processor.due(after) is None)
        assert (after.state in TERMINAL) == (self.processor.expires(after) is not None)


def apply(world: World, step: tuple[Any, ...]) -> None:
    """Do one step of a history."""
    kind, *rest = step
    match kind, rest:
        case "submit", [task, pattern, hold, reject]:
            admission = "reject" if reject else "wait"
            policy = RetryPolicy(max_retries=1) if hold else None
            world.command(task, pattern=pattern, hold=hold, admission=admission, reply_to="replies.x", retry=policy)
        case "pinned", [task, agent]:
            world.command(task, agent_id=agent)
        case "command", [task, wish]:
            world.command(task, kind=wish, agent_id="b", redriven_as=f"{task}~1")
        case "report", [task, what, shift]:
            epoch = max(0, (world.rows[task].epoch if task in world.rows else 0) + shift)
            world.report(what, task, epoch=epoch)
        case "refuse", [task]:
            world.report("failed", task, error=TaskError(code="invalid_input", message="no"))
        case "time", [seconds]:
            world.pass_time(seconds)
        case "agent", [agent, state, draining]:
            world.agent(agent, "dig" if agent == "a" else "cut", state=state, draining=draining, max_in_flight=1)
        case "unregister", [agent]:
            world.unregister(agent)
        case "ready", []:
            world.settle_ready()
        case "raise", [task] if task in world.rows:
            world.rule_raises(task)
        case "restart", []:
            world.fresh()


def run(history: list[tuple[Any, ...]]) -> Watched:
    """A world after a history."""
    world = Watched(Settings.model_validate({"error_recovery": {"max_retries": 1, "max_lost": 1}}))
    for agent, capability in (("a", "dig"), ("b", "cut")):
        world.agent(agent, capability, max_in_flight=1)
    for step in history:
        apply(world, step)
    return world


@settings(deadline=None, max_examples=250)
@given(st.lists(STEPS, max_size=40))
def test_any_history(history: list[tuple[Any, ...]]) -> None:
    world = run(history)
    _check_outcomes(world)
    _check_indexes(world)


@settings(deadline=None, max_examples=60)
@given(st.lists(STEPS, max_size=30))
def test_every_accepted_task_comes_to_its_end(history: list[tuple[Any, ...]]) -> None:
    world = run(history)
    for _ in range(5):
        world.pass_time(100_000)
    assert {key for key, row in world.rows.items() if row.state not in TERMINAL} == set()
    _check_outcomes(world)
    _check_indexes(world)


@settings(deadline=None, max_examples=60)
@given(st.lists(STEPS.filter(lambda step: step[0] != "restart"), max_size=30))
def test_the_same_history_makes_the_same_rows(history: list[tuple[Any, ...]]) -> None:
    first, second = run(history), run(history)
    assert first.rows == second.rows
    assert [output.record for output in first.sent] == [output.record for output in second.sent]


@settings(deadline=None, max_examples=60)
@given(st.lists(STEPS, max_size=30))
def test_events_fold_to_the_rows(history: list[tuple[Any, ...]]) -> None:
    """Whoever keeps, per task, the event of the highest version knows what the row says; in any order, and twice."""
    world = run(history)
    events = [output.record for output in world.sent if isinstance(output.record, TaskEvent)]
    for told in (events, events[::-1], events + events):
        folded: dict[str, TaskEvent] = {}
        for event in told:
            known = folded.get(event.task_id)
            if event.to_state != "unknown" and (known is None or event.version > known.version):
                folded[event.task_id] = event
        assert {key: (row.state, row.version) for key, row in world.rows.items()} == {
            key: (event.to_state, event.version) for key, event in folded.items()
        }


def _check_outcomes(world: World) -> None:
    """One result per ended task, versions without a gap."""
    results: dict[str, list[TaskResult]] = {}
    versions: dict[str, list[int]] = {}
    for output in world.sent:
        record = output.record
        if isinstance(record, TaskResult) and output.topic.name == "tasks.results":
            results.setdefault(record.task_id, []).append(record)
        elif isinstance(record, TaskEvent) and record.cause != "" and record.kind in TRANSITIONS:
            versions.setdefault(record.task_id, []).append(record.version)
    for key, row in world.rows.items():
        assert len(results.get(key, [])) == (1 if row.state in TERMINAL else 0)
        assert all(result.status == row.state for result in results.get(key, []))
        told = [version for version in versions.get(key, []) if version]
        assert sorted(set(told)) == list(range(1, row.version + 1))


NOTES = {"refused", "progress", "late_report", "reply_failed", "discarded", "callback_sent", "callback_failed"}
TRANSITIONS = {kind for kind in TaskEventKind if kind not in NOTES}


def _sets(keys: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Without the order in which they were given: it is that of the rows after a restart."""
    return {agent: set(each) for agent, each in keys.items()}


def _check_indexes(world: World) -> None:
    """What a restart would build from the rows is what was kept while they moved."""
    kept = world.processor._know
    load, pinned = _sets(kept.load.held), _sets(kept.load.pinned)
    queued = {pool: queue.first(100) for pool, queue in kept.queues.pools.items()}
    limbo, count = set(kept.queues.limbo), kept.queues.count
    again = world.fresh()._know
    assert load == _sets(again.load.held)
    assert {agent: len(keys) for agent, keys in load.items()} == again.load.counts == kept.load.counts
    assert pinned == _sets(again.load.pinned)
    assert queued == {pool: queue.first(100) for pool, queue in again.queues.pools.items()}
    assert (limbo, count) == (set(again.queues.limbo), again.queues.count)
    for agent, keys in load.items():
        assert keys == {key for key, row in world.rows.items() if row.agent_id == agent and row.state in IN_FLIGHT}
