"""What agents say, and what follows: outcomes, late reports, retries, dead letters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.agents import AgentState
from schemas.policies import POLICY_A, Jitter, RetryPolicy
from schemas.settings import Settings
from schemas.tasks import ReportKind, TaskError, TaskReport, TaskState, Usage
from schemas.topics import TASK_REPORTS
from streams.processor import Change
from tests.streams.tasks.world import SECOND, START, World, encoded

BOOM = TaskError(code="agent_error", message="boom", retryable=True)


def world(**settings: Any) -> World:
    """A world with one task `t` assigned to one agent `a`."""
    made = World(Settings.model_validate(settings))
    made.agent("a", "dig")
    made.command(pattern="dig", payload='{"hole": 1}')
    return made


def kinds(made: World) -> list[str]:
    """What the last decision wrote, in order."""
    found = []
    for output in made.last:
        record: Any = output.record
        found.append(f"{output.name or output.topic.name} {getattr(record, 'kind', getattr(record, 'status', ''))}")
    return found


def test_an_outcome() -> None:
    made = world()
    made.now += 2 * SECOND
    made.report("started")
    assert (made.told.kind, made.told.from_state, made.told.epoch) == ("started", "assigned", 1)
    made.now += 3 * SECOND
    usage = Usage(provider="scripted", model="m", input_tokens=3, cost=0.5)
    made.report("completed", result='{"degraded": true, "n": 1}', usage=usage)
    assert kinds(made) == ["tasks.events completed", "tasks.results completed"]
    (result,) = made.of("tasks.results")
    assert (result.execution_time, result.created_at, result.started_at) == (3.0, START, START + 2 * SECOND)
    assert (result.degraded, result.usage, result.attempts, result.result) == (
        True, usage, 1, '{"degraded": true, "n": 1}',
    )  # fmt: skip
    assert made.told.result_hash == made.row().result_hash
    assert made.processor.due(made.row()) is None
    assert made.processor.expires(made.row()) == made.now + 3600 * SECOND


def test_a_quick_task_began_with_its_assignment() -> None:
    made = world()
    made.now += SECOND // 2
    made.report("completed", result="{}")
    assert made.of("tasks.results")[0].execution_time == 0.5


@pytest.mark.parametrize("result", ["[1]", '"text"', "{", '{"a": NaN}', ""])
def test_a_result_that_is_no_object(result: str) -> None:
    made = world()
    made.report("completed", result=result)
    assert (made.row().state, made.told.error.code, made.told.error.retryable) == ("failed", "agent_error", False)
    assert made.told.error.message.startswith("result: ")


def test_an_earlier_attempt_may_win() -> None:
    made = world()
    made.agent("b", "dig")
    made.pass_time(300)  # the attempt of a times out, the next one goes to b
    assert kinds(made) == ["tasks.events retry_scheduled", "agents.a.inbox cancel"]
    made.pass_time(1)
    assert (made.row().agent_id, made.row().epoch) == ("b", 2)
    made.report("completed", epoch=1, agent_id="a", result="{}")
    assert kinds(made) == ["tasks.events completed", "agents.b.inbox cancel", "tasks.results completed"]
    (cancel,) = made.of("inbox")
    assert (cancel.task_id, cancel.epoch) == ("t", 2)
    (result,) = made.of("tasks.results")
    assert (result.agent_id, result.execution_time) == ("a", None)


def test_a_late_report_says_what_it_was() -> None:
    made = world()
    made.report("completed", result="{}")
    row = made.row()
    made.report("failed", error=BOOM)
    assert kinds(made) == ["tasks.events late_report"]
    told = made.told
    assert (told.version, told.note) == (row.version, "failed")
    assert (told.from_state, told.to_state) == ("completed", "completed")
    assert (told.agent_id, told.attempt, told.epoch, told.seq) == ("a", 1, 1, made.seq)
    assert told.decided_at == made.now + 1500


def test_a_report_about_nothing() -> None:
    made = World()
    made.report("completed", "nobody", result="{}")
    assert (made.told.kind, made.told.version, made.told.from_state, made.told.to_state) == (
        "late_report", 0, None, "unknown",
    )  # fmt: skip


def test_progress() -> None:
    made = world()
    made.report("started")
    made.report("progress", progress=0.25, note="a quarter")
    assert kinds(made) == ["tasks.events progress"]
    assert (made.told.progress, made.told.note, made.told.to_state) == (0.25, "a quarter", "running")


def test_callbacks_are_told() -> None:
    made = world()
    made.report("completed", result="{}")
    made.report("callback_sent")
    assert (made.told.kind, made.told.to_state) == ("callback_sent", "completed")


def test_policy_b_then_the_dead_letter() -> None:
    made = world()
    delays = []
    for attempt in range(1, 4):
        made.report("failed", error=BOOM)
        assert kinds(made) == ["tasks.events retry_scheduled"]
        assert (made.told.error.agent_id, made.told.error.attempt) == ("a", attempt)
        delays.append(made.told.delay_seconds)
        made.now += 1
        assert made.wake() is None, "the delay is not over"
        made.pass_time(delays[-1])
        assert (made.row().state, made.row().attempts) == (TaskState.ASSIGNED, attempt + 1)
        assert made.of("inbox")[0].task.last_attempt == (attempt == 3)
    assert delays == [1.0, 2.0, 4.0]
    made.report("failed", error=BOOM)
    assert kinds(made) == [
        "tasks.events dead_lettered", "tasks.results dead_lettered", "tasks.deadletters task",
    ]  # fmt: skip
    (letter,) = made.of("deadletters")
    assert (letter.source_topic, letter.partition, letter.offset) == ("tasks.requests", 0, 1)
    assert letter.original_value == made.row().request
    assert letter.original_key == b"t"
    assert [(pair.key, pair.value) for pair in letter.headers] == [("traceparent", b"00-aa-bb-01")]
    assert (letter.attempts, letter.failed_step, letter.first_failed_at) == (4, "attempt 4", START)
    assert [error["attempt"] for error in json.loads(letter.details)["errors"]] == [1, 2, 3, 4]
    headers = dict(made.last[-1].headers)
    assert headers["__connect.errors.topic"] == b"tasks.requests"
    assert headers["__connect.errors.exception.message"] == b"boom"


def test_without_dead_letters() -> None:
    made = world(error_recovery={"dead_letter": False, "max_retries": 0})
    made.report("failed", error=BOOM)
    assert kinds(made) == ["tasks.events failed", "tasks.results failed"]
    assert made.row().request == b""
    made = world(error_recovery={"dead_letter": False})
    made.rule_raises()
    assert made.row().state is TaskState.DEAD_LETTERED, "a rule that raised leaves a dead letter all the same"


@pytest.mark.parametrize(
    ("of_task", "of_agent", "delay"),
    [(None, None, 1.0), (None, POLICY_A, 2.0), (RetryPolicy(retry_delay=0.5), POLICY_A, 0.5)],
)
def test_whose_policy(of_task: RetryPolicy | None, of_agent: RetryPolicy | None, delay: float) -> None:
    made = World()
    made.agent("a", "dig", retry=of_agent)
    made.command(pattern="dig", retry=of_task)
    made.report("failed", error=BOOM)
    assert made.told.delay_seconds == delay


def test_full_jitter_is_the_same_at_every_run() -> None:
    delays = []
    for task_id in ("t", "t", "u"):
        made = World()
        made.agent("a", "dig")
        made.command(task_id, pattern="dig", retry=RetryPolicy(jitter=Jitter.FULL, retry_delay=10))
        made.report("failed", task_id, error=BOOM)
        delays.append(made.told.delay_seconds)
    assert delays[0] == delays[1] != delays[2]
    assert all(0 <= delay <= 10 for delay in delays)


def test_timeout() -> None:
    made = World(Settings.model_validate({"error_recovery": {"max_retries": 0}}))
    made.agent("a", "dig", timeout_seconds=7)
    made.command(pattern="dig")
    assert made.of("inbox")[0].task.deadline_at == made.now + 7 * SECOND
    made.report("started")
    made.pass_time(6.9)
    assert made.row().state is TaskState.RUNNING, "counted from the assignment"
    made.pass_time(0.1)
    assert (made.told.error.code, made.told.error.message) == ("timeout", "Task timed out after 7 s")
    assert kinds(made) == [
        "tasks.events dead_lettered", "agents.a.inbox cancel", "tasks.results dead_lettered", "tasks.deadletters task",
    ]  # fmt: skip
    assert made.of("inbox")[0].reason == "Task timed out after 7 s"


@pytest.mark.parametrize("result", ["[1]", '["degraded"]', '"degraded"', "7", "not JSON"])
def test_a_result_that_is_no_object_ends_its_attempt_and_no_other(result: str) -> None:
    made = world()
    made.report("completed", result=result)
    assert made.told.error.code == "agent_error"
    assert made.told.kind in ("failed", "dead_lettered")


@pytest.mark.parametrize("result", ["[1]", '["degraded"]', "not JSON"])
def test_such_a_result_of_an_earlier_attempt_is_only_late(result: str) -> None:
    made = world()
    made.report("failed", error=BOOM)
    assert made.told.kind == "retry_scheduled"
    made.report("completed", result=result, epoch=1)
    assert made.told.kind == "late_report"
    made.report("completed", result='{"n": 1}', epoch=1)
    assert made.told.kind == "completed"


def test_life_over() -> None:
    made = World()
    made.agent("a", "dig")
    made.command(pattern="dig", ttl_seconds=10)
    assert made.of("inbox")[0].task.deadline_at == made.now + 10 * SECOND
    made.pass_time(10)
    assert kinds(made) == ["tasks.events expired", "agents.a.inbox cancel", "tasks.results failed"]
    assert (made.told.error.code, made.told.error.message) == ("expired", "Task expired after 10 s")


def test_a_life_has_the_settings_length_unless_the_task_says() -> None:
    made = world(tasks={"ttl_seconds": 3})
    made.agent("a", "dig")
    made.command(pattern="dig")
    made.pass_time(3)
    assert (made.told.error.code, made.told.error.message) == ("expired", "Task expired after 3 s")


def test_lost_agents() -> None:
    made = world(error_recovery={"max_lost": 2})
    for lost in (1, 2):
        made.agent("a", "dig", state=AgentState.OFFLINE)
        assert made.settle_ready() == ["t"]
        assert kinds(made) == ["tasks.events requeued", "agents.a.inbox cancel"]
        assert (made.told.agent_id, made.of("inbox")[0].epoch) == ("a", lost)
        made.agent("a", "dig")
        assert made.settle_ready() == ["t"]
        assert (made.row().attempts, made.row().lost, made.row().epoch) == (lost + 1, lost, lost + 1)
    made.agent("a", "dig", state=AgentState.OFFLINE)
    made.settle_ready()
    assert made.row().state is TaskState.DEAD_LETTERED
    assert made.row().error.message == "Agent 'a' was lost 3 times while running this task"  # type: ignore[union-attr]


def test_lost_agents_use_no_retry() -> None:
    made = world()
    made.agent("a", "dig", state=AgentState.OFFLINE)
    made.settle_ready()
    made.agent("a", "dig")
    made.settle_ready()
    made.report("failed", error=BOOM)
    assert (made.told.kind, made.told.delay_seconds) == ("retry_scheduled", 1.0)


def test_a_draining_agent_keeps_what_it_has() -> None:
    made = world()
    made.agent("a", "dig", draining=True)
    assert made.settle_ready() == []
    made.command("u", pattern="dig")
    assert made.row("u").state is TaskState.QUEUED
    made.report("completed", result="{}")
    assert made.row().state is TaskState.COMPLETED


def test_a_rule_that_raised() -> None:
    made = world()
    made.rule_raises()
    assert (made.told.error.code, made.told.error.message) == (
        "internal_error", "Internal error at record tasks.reports.0.2",
    )  # fmt: skip
    assert json.loads(made.told.error.details) == {"raised": "ValueError"}
    assert kinds(made) == [
        "tasks.events dead_lettered", "agents.a.inbox cancel", "tasks.results dead_lettered", "tasks.deadletters task",
    ]  # fmt: skip


def test_cancel_tells_the_agent() -> None:
    made = world()
    made.command(kind="cancel", reason="changed my mind")
    assert kinds(made) == ["tasks.events cancelled", "agents.a.inbox cancel", "tasks.results cancelled"]


def test_assign_pins() -> None:
    made = world()
    made.agent("b", "dig")
    made.agent("c")
    made.report("failed", error=BOOM)
    for agent_id, code, message in (
        ("nobody", "agent_not_found", "Agent 'nobody' not found"),
        (None, "invalid_request", "agent_id: missing"),
    ):
        made.command(kind="assign", agent_id=agent_id)
        assert (made.told.error.code, made.told.error.message) == (code, message)
    made.command("strict", pattern="dig", required_capabilities=["dig"], hold=True)
    made.command("strict", kind="assign", agent_id="c")
    assert made.told.error.message == "Agent 'c' lacks the capabilities dig"
    made.command(kind="assign", agent_id="b")
    assert kinds(made) == ["tasks.events reassigned"]
    made.pass_time(1)
    assert made.row().agent_id == "b"


def test_redrive_marks_the_row() -> None:
    made = world()
    made.rule_raises()
    made.command(kind="redrive", redriven_as="t~1")
    assert kinds(made) == ["tasks.events redriven"]
    assert (made.row().redriven_as, made.told.to_state, made.row().completed_at) == ("t~1", "dead_lettered", START)
    made.command("gone", kind="redrive", redriven_as="gone~1")
    assert (made.told.kind, made.told.note, made.told.to_state) == ("redriven", "gone~1", "unknown")


def test_errors_kept_in_the_row_are_few_and_short() -> None:
    made = World()
    made.agent("a", "dig")
    made.command(pattern="dig", retry=RetryPolicy(max_retries=50, retry_delay=0))
    for _ in range(20):
        made.report("failed", error=TaskError(code="agent_error", message="x" * 5000, retryable=True))
        made.wake()
    assert [error.attempt for error in made.row().errors] == list(range(11, 21))
    assert {len(error.message) for error in made.row().errors} == {500}


def test_a_note_makes_the_same_event_when_the_row_has_moved_on() -> None:
    made = world()
    made.report("started")
    processor = made.processor
    before = made.row()
    progress = made.event(*_report(made, "progress"))
    note = processor.step(before, progress, made.views)
    assert note is not None
    first = [encoded(output) for output in processor.outputs(note, progress)]
    made.report("completed", result="{}")
    made.fresh()
    assert [encoded(output) for output in made.processor.outputs(note, progress)] == first


def _report(made: World, kind: str) -> Any:
    row = made.row()
    record = TaskReport(
        event_id="r", occurred_at=made.now, source="a", kind=ReportKind(kind), task_id="t", agent_id="a",
        attempt=row.attempts, epoch=row.epoch,
    )  # fmt: skip
    return TASK_REPORTS, "t", record


def test_a_redelivered_record_makes_the_same_outputs_in_another_process() -> None:
    """What the runtime does with a record that is its row's cause: outputs, from the stored row."""
    made = World()
    made.agent("a", "dig")
    settings = Settings.model_validate({"error_recovery": {"max_retries": 9}})
    fields = {"pattern": "dig", "payload": '{"hole": 1}', "reply_to": "replies.me"}
    steps = [
        lambda w: w.command(**fields),
        lambda w: w.report("failed", error=BOOM),
        lambda w: (w.pass_time(1), None)[1],
        lambda w: w.report("completed", result="{}"),
    ]
    events: list[Any] = []
    deliver = made.deliver

    def remember(event: Any) -> Any:
        events.append(event)
        return deliver(event)

    made.deliver = remember  # type: ignore[method-assign]
    for step in steps:
        step(made)
        first = [encoded(output) for output in made.last]
        other = World(settings)
        again = other.processor.outputs(Change(made.row()), events[-1])
        assert [encoded(output) for output in again] == first
