"""What becomes of a task, on both runtimes: written once, so that what is tried in memory holds on Kafka."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.contract.processor_stage import Stage, as_json

Fresh = Callable[[str], str]

BACKLOG = 1_000
"""Reports; on the log in memory it takes longer to read so many than to hear of an agent and to be asked about its tasks.
Kafka delivers most of what is there at once, ahead of what comes then.
"""


@pytest.fixture(scope="module")
def counter() -> Counter[str]:
    return Counter()


@pytest.fixture
def fresh(request: pytest.FixtureRequest, counter: Counter[str]) -> Iterator[Fresh]:
    """Names that no other test uses."""

    def named(what: str) -> str:
        counter[what] += 1
        return f"{what}-{counter[what]}"

    yield named


def worker(stage: Stage, fresh: Fresh, **fields: object) -> tuple[str, str]:
    """An agent of its own with a capability of its own."""
    agent_id, skill = fresh("agent"), fresh("skill")
    stage.agent(agent_id, skill, **fields)  # type: ignore[arg-type]
    return agent_id, skill


def test_by_capability_to_its_end(stage: Stage, fresh: Fresh) -> None:
    agent, skill = worker(stage, fresh)
    task = fresh("task")
    stage.submit(task, required_capabilities=[skill], payload='{"n":1}')
    (assigned,) = stage.see(task, "assigned")
    assert (assigned.agent_id, assigned.epoch, assigned.version) == (agent, 1, 1)
    stage.until(lambda: stage.inbox(agent))
    (found,) = stage.inbox(agent)
    assert found.task is not None and (found.task.task_id, found.task.payload) == (task, '{"n":1}')
    stage.report(task, agent, "completed", result='{"ok":true}')
    result = stage.result(task)
    assert (result.status, result.agent_id, result.result) == ("completed", agent, '{"ok":true}')
    assert stage.kinds(task) == ["assigned", "completed"]
    stage.until(lambda: (stage.row(task).version, stage.row(task).state) == (2, "completed"))


def test_by_explicit_agent(stage: Stage, fresh: Fresh) -> None:
    _agent, skill = worker(stage, fresh)
    other = fresh("agent")
    stage.agent(other, skill)
    task = fresh("task")
    stage.submit(task, agent_id=other)
    (assigned,) = stage.see(task, "assigned")
    assert assigned.agent_id == other


def test_by_pattern(stage: Stage, fresh: Fresh) -> None:
    agent = fresh("agent")
    stage.agent(agent, fresh("skill"), name="caching_agent")
    task = fresh("task")
    stage.submit(task, pattern="cache_data")
    (assigned,) = stage.see(task, "assigned")
    assert assigned.agent_id == agent
    assert json.loads(assigned.decision or "{}")["rule"] == "cache_data"


def test_a_repeat_changes_nothing_and_another_body_is_refused(stage: Stage, fresh: Fresh) -> None:
    _agent, skill = worker(stage, fresh)
    task = fresh("task")
    for _ in range(2):
        stage.submit(task, required_capabilities=[skill], payload='{"n":1}')
    stage.submit(task, required_capabilities=[skill], payload='{"n":2}')
    first, second = stage.see(task, "assigned", "refused")
    assert second.error is not None and second.error.code == "task_conflict"
    assert stage.row(task).version == first.version == 1, "the row was written before its events"


def test_what_cannot_be_done_is_refused(stage: Stage, fresh: Fresh) -> None:
    nothing, finished = fresh("task"), fresh("task")
    stage.submit(nothing, kind="cancel")
    (refused,) = stage.see(nothing, "refused")
    assert refused.error is not None and refused.error.code == "task_not_found"
    stage.submit(finished, hold=True)
    stage.submit(finished, kind="cancel")
    stage.submit(finished, kind="execute")
    *_, refused = stage.see(finished, "accepted", "cancelled", "refused")
    assert refused.error is not None and refused.error.code == "task_finished"


def test_a_target_that_never_comes_is_an_outcome(stage: Stage, fresh: Fresh) -> None:
    task = fresh("task")
    stage.submit(task, required_capabilities=[fresh("skill")])
    assert (stage.result(task).status, stage.kinds(task)) == ("failed", ["accepted", "failed"])


def test_a_failure_is_retried_and_a_second_one_is_the_last(stage: Stage, fresh: Fresh) -> None:
    agent, skill = worker(stage, fresh)
    task = fresh("task")
    error = {"code": "agent_error", "message": "no", "retryable": True}
    stage.submit(task, required_capabilities=[skill], payload='{"kept":1}')
    stage.see(task, "assigned")
    stage.report(task, agent, "failed", error=error)
    stage.see(task, "assigned", "retry_scheduled", "assigned")
    stage.report(task, agent, "failed", 2, error=error)
    result = stage.result(task)
    assert (result.status, result.attempts) == ("dead_lettered", 2)
    (letter,) = stage.until(lambda: [each for each in stage.letters() if each.task_id == task])
    assert json.loads(stage.codecs.of("tasks.requests-value").decode(letter.original_value).payload) == {"kept": 1}
    assert stage.kinds(task)[-1] == "dead_lettered"


def test_an_attempt_without_an_answer_times_out(stage: Stage, fresh: Fresh) -> None:
    agent, skill = worker(stage, fresh)
    task = fresh("task")
    stage.submit(task, required_capabilities=[skill], timeout_seconds=2)
    _, timed_out, _ = stage.see(task, "assigned", "retry_scheduled", "assigned")
    assert timed_out.error is not None and timed_out.error.code == "timeout"
    stage.report(task, agent, "completed", 2)
    assert stage.result(task).status == "completed"
    assert stage.until(lambda: [each.epoch for each in stage.inbox(agent) if each.kind == "cancel"]) == [1]


def test_a_cancel_takes_the_assignment_away(stage: Stage, fresh: Fresh) -> None:
    agent, skill = worker(stage, fresh)
    task = fresh("task")
    stage.submit(task, required_capabilities=[skill])
    stage.see(task, "assigned")
    stage.submit(task, kind="cancel")
    assert stage.result(task).status == "cancelled"
    stage.until(lambda: len(stage.inbox(agent)) == 2)
    assert [(str(each.kind), each.epoch) for each in stage.inbox(agent)][1] == ("cancel", 1)


def test_a_late_report_changes_nothing(stage: Stage, fresh: Fresh) -> None:
    agent, skill = worker(stage, fresh)
    task = fresh("task")
    stage.submit(task, required_capabilities=[skill])
    stage.see(task, "assigned")
    stage.report(task, agent, "completed")
    stage.report(task, agent, "failed")
    stage.see(task, "assigned", "completed", "late_report")
    assert stage.result(task).status == "completed"
    stage.until(lambda: stage.row(task).version == 2)


@pytest.mark.parametrize("partitioner", ["crc32", "none"])
def test_a_record_of_another_partitioner_comes_home(stage: Stage, fresh: Fresh, partitioner: str) -> None:
    _agent, skill = worker(stage, fresh)
    tasks = [fresh("task") for _ in range(6)]
    positions = {task: stage.submit(task, partitioner, required_capabilities=[skill]) for task in tasks}
    for task in tasks:
        (assigned,) = stage.see(task, "assigned")
        assert assigned.cause == positions[task], "the cause is where the record was found first"
    stage.submit(tasks[0], partitioner, required_capabilities=[skill])
    stage.submit(tasks[0], partitioner, kind="cancel")
    stage.see(tasks[0], "assigned", "cancelled")


def test_json_is_read_too(stage: Stage, fresh: Fresh) -> None:
    agent, skill = worker(stage, fresh)
    task = fresh("task")
    stage.request(task, as_json(task, required_capabilities=[skill], payload={"n": 1}))
    stage.see(task, "assigned")
    (found,) = stage.until(lambda: stage.inbox(agent))
    assert found.task is not None and json.loads(found.task.payload) == {"n": 1}


def test_what_cannot_be_read_is_kept_and_the_next_record_flows(stage: Stage, fresh: Fresh) -> None:
    _agent, skill = worker(stage, fresh)
    task = fresh("task")
    position = stage.request(task, b"\xff\xffno record " + task.encode())
    stage.submit(task, required_capabilities=[skill])
    stage.see(task, "assigned")
    value = b"\xff\xffno record " + task.encode()
    (letter,) = stage.until(lambda: [each for each in stage.letters() if each.original_value == value])
    assert f"{letter.source_topic}.{letter.partition}.{letter.offset}" == position
    assert letter.error.code == "invalid_request"


def test_tasks_of_an_agent_that_dies_move_to_another(stage: Stage, fresh: Fresh) -> None:
    agent, skill = worker(stage, fresh, heartbeat_s=1)
    task = fresh("task")
    stage.submit(task, required_capabilities=[skill])
    stage.see(task, "assigned")
    other = fresh("agent")
    stage.agent(other, skill)
    _, _, moved = stage.see(task, "assigned", "requeued", "assigned")
    assert (moved.agent_id, moved.epoch) == (other, 2)
    assert stage.state_of(agent) == "offline"
    stage.report(task, other, "completed", 2)
    assert stage.result(task).status == "completed"


def test_a_goodbye_that_is_known_before_the_last_report_is_read(stage: Stage, fresh: Fresh) -> None:
    """Much lies before the report, and nothing before the goodbye."""
    agent, skill = worker(stage, fresh)
    done, left, other = fresh("task"), fresh("task"), fresh("agent")
    for task in (done, left):
        stage.submit(task, required_capabilities=[skill])
        stage.see(task, "assigned")
    stage.agent(other, skill)

    def meanwhile() -> None:
        stage.backlog(BACKLOG)
        stage.report(done, agent, "completed", result='{"ok":true}')
        stage.tell(agent, "heartbeat", goodbye=True)

    stage.crash(True, meanwhile)
    _, _, moved = stage.see(left, "assigned", "requeued", "assigned")
    assert (moved.agent_id, moved.epoch) == (other, 2)
    stage.see(done, "assigned", "completed")
    assert stage.result(done).agent_id == agent
    stage.until(lambda: stage.inbox(other))
    assert [each.task.task_id for each in stage.inbox(other) if each.task] == [left]


@pytest.mark.parametrize("keeps_store", [True, False])
def test_a_coordinator_that_was_killed_goes_on(stage: Stage, fresh: Fresh, keeps_store: bool) -> None:
    agent, skill = worker(stage, fresh)
    before, held = fresh("task"), fresh("task")
    stage.submit(before, required_capabilities=[skill])
    stage.submit(held, required_capabilities=[skill], hold=True)
    stage.see(before, "assigned")
    stage.see(held, "accepted")
    stage.crash(keeps_store)
    stage.report(before, agent, "completed")
    stage.submit(before, required_capabilities=[skill])
    stage.submit(held, kind="execute")
    assert stage.result(before).status == "completed"
    stage.see(held, "accepted", "assigned")
    assert stage.kinds(before) == ["assigned", "completed"]
