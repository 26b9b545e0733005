"""An agent in another language, on the real thing: the example in Node registers, works, is killed, and leaves."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.foreign.clients import Foreign, foreign
from tests.e2e.foreign.node import NodeAgent, installed_example, on_node, running_agent

__all__ = ["foreign"]

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

INBOX = "agents.node_agent.inbox"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_example(tmp_path_factory.mktemp("example"))


@pytest.fixture
def agent(example: Path, foreign: Foreign) -> Iterator[NodeAgent]:
    with running_agent(example, "work.mjs", foreign.bootstrap) as made:
        foreign.until(made.is_ready)
        yield made


def submit(foreign: Foreign, payload: dict[str, Any], **fields: Any) -> str:
    task_id = f"node-{uuid.uuid4().hex[:8]}"
    foreign.submit_json(
        {"task_id": task_id, "required_capabilities": ["node_work"], "payload": payload, **fields}, key=task_id
    )
    return task_id


def starts(example: Path, task_id: str) -> list[str]:
    """`<attempt> <epoch>` of each start of the task's handler, over all processes."""
    path = example / "starts"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{task_id} ")]


def events(foreign: Foreign, task_id: str) -> list[str]:
    """What became of a task from its first assignment on; how long it waited for that is another's business."""
    told = foreign.records("tasks.events", lambda each: each["task_id"] == task_id)
    return [each["kind"] for each in told if each["kind"] not in ("accepted", "queued")]


def agent_events(foreign: Foreign, agent_id: str) -> list[str]:
    return [each["kind"] for each in foreign.records("agents.events", lambda each: each["agent_id"] == agent_id)]


def test_a_node_that_is_too_old_is_told_so_in_one_line(example: Path) -> None:
    needed = json.loads((example / "package.json").read_text())["engines"]["node"].removeprefix(">=")
    for old in ("20.20.2", "22.21.9"):
        told = on_node(old, example)
        assert (told.returncode, told.stderr) == (1, f"Node {needed} or newer is needed, this is {old}\n")
    assert "is needed" not in on_node(f"{needed}.0", example).stderr, "it goes on, and finds no Kafka"


def test_the_example_works_stops_begins_again_and_leaves(example: Path, foreign: Foreign) -> None:
    def count(text: Any) -> dict[str, Any]:
        task_id = str(uuid.uuid4())
        foreign.submit_json({"task_id": task_id, "pattern": "count_words", "payload": {"text": text}})
        return foreign.result(task_id)

    with running_agent(example, "words.mjs", foreign.bootstrap) as words:
        foreign.until(words.is_ready)
        result = count("One word. And another.")
        assert (result["status"], result["agent_id"]) == ("completed", "words_agent")
        assert json.loads(result["result"]) == {"words": 4, "sentences": 2, "letters": 22}
        wrong = count(7)
        assert (wrong["status"], wrong["attempts"]) == ("failed", 1)
        assert (wrong["error"]["code"], wrong["error"]["message"]) == ("invalid_input", "text: must be a string")
        words.stop()
    foreign.until(lambda: agent_events(foreign, "words_agent") == ["registered", "up", "draining", "stopped"])
    with running_agent(example, "words.mjs", foreign.bootstrap, ON_STOP="unregister") as words:
        foreign.until(words.is_ready)
        assert count("again")["status"] == "completed"
        words.stop()
    told = ["registered", "up", "draining", "stopped", "registered", "up", "draining", "unregistered"]
    foreign.until(lambda: agent_events(foreign, "words_agent") == told)


def test_a_kill_in_the_middle_costs_no_task_and_none_ends_twice(example: Path, foreign: Foreign) -> None:
    with running_agent(example, "work.mjs", foreign.bootstrap) as first:
        foreign.until(first.is_ready)
        done = submit(foreign, {"answer": {"n": 0}})
        foreign.result(done)
        tasks = [submit(foreign, {"ms": 4000, "answer": {"n": number}}) for number in range(3)]
        foreign.until(lambda: all(starts(example, each) for each in tasks))
        time.sleep(1.0)  # it commits twice a second, and what it must not commit is what we look for
        first.kill()
        open_ = [each.offset() for each in foreign.messages(INBOX) if (each.key() or b"").decode() in tasks]
        assert foreign.committed("agents.node_agent", INBOX) == min(open_)
        assert foreign.records("tasks.results", lambda each: each["task_id"] in tasks) == []
    with running_agent(example, "work.mjs", foreign.bootstrap) as second:
        foreign.until(second.is_ready)
        for number, task_id in enumerate(tasks):
            result = foreign.result(task_id)
            assert (result["status"], json.loads(result["result"])) == ("completed", {"n": number})
            assert len(starts(example, task_id)) >= 2
    for task_id in (done, *tasks):
        assert events(foreign, task_id).count("completed") == 1
        assert len(foreign.records("tasks.results", lambda each, wanted=task_id: each["task_id"] == wanted)) == 1


def test_a_cancel_ends_the_handler_and_nothing_is_reported(example: Path, foreign: Foreign, agent: NodeAgent) -> None:
    task_id = submit(foreign, {"ms": 200_000})
    foreign.until(lambda: "started" in events(foreign, task_id))
    foreign.submit_json({"kind": "cancel", "task_id": task_id, "reason": "nobody waits"})
    foreign.until(lambda: {"event": "cancelled", "task": task_id, "epoch": 1} in agent.said())
    assert foreign.result(task_id)["status"] == "cancelled"
    foreign.result(submit(foreign, {}))
    assert events(foreign, task_id) == ["assigned", "started", "cancelled"]


def test_a_timeout_ends_the_attempt_and_the_next_one_begins(example: Path, foreign: Foreign, agent: NodeAgent) -> None:
    retry = {"max_retries": 1, "retry_delay": 0.1}
    task_id = submit(foreign, {"ms": 200_000}, timeout_seconds=1, retry=retry)
    result = foreign.result(task_id)
    assert (result["status"], result["error"]["code"], result["attempts"]) == ("dead_lettered", "timeout", 2)
    foreign.until(lambda: len([each for each in agent.said() if each["event"] == "cancelled"]) == 2)
    assert starts(example, task_id) == ["1 1", "2 2"]
    assert "late_report" not in events(foreign, task_id)


def test_an_assignment_delivered_again_is_worked_on_once(example: Path, foreign: Foreign, agent: NodeAgent) -> None:
    slow, quick = submit(foreign, {"ms": 1000}), submit(foreign, {})
    foreign.result(quick)
    foreign.until(lambda: starts(example, slow))
    again = [each for each in foreign.messages(INBOX) if (each.key() or b"").decode() in (slow, quick)]
    assert len(again) == 2
    foreign.produce(INBOX, [{"key": each.key(), "value": each.value()} for each in again])
    foreign.result(slow)
    foreign.result(submit(foreign, {}))
    assert (starts(example, slow), starts(example, quick)) == (["1 1"], ["1 1"])
    assert events(foreign, slow) == ["assigned", "started", "completed"]
    assert events(foreign, quick) == ["assigned", "completed"]


def test_what_it_cannot_read_is_a_dead_letter_and_the_inbox_goes_on(foreign: Foreign, agent: NodeAgent) -> None:
    (message,) = foreign.produce(INBOX, [{"key": b"who", "value": b"not a record"}])
    position = f"{INBOX}.{message.partition()}.{message.offset()}"
    foreign.result(submit(foreign, {}))
    (letter,) = foreign.until(
        lambda: foreign.records("tasks.deadletters", lambda each: each["causation_id"] == position)
    )
    assert (letter["source"], letter["original_key"], letter["original_value"]) == (
        "node_agent",
        b"who",
        b"not a record",
    )
    assert "no schema frame" in letter["error"]["message"]


def test_a_handler_that_raises_is_tried_again_and_a_wrong_answer_is_not(
    example: Path, foreign: Foreign, agent: NodeAgent
) -> None:
    raising = submit(foreign, {"raise": "the lights went out"}, retry={"max_retries": 1, "retry_delay": 0.1})
    result = foreign.result(raising)
    assert (result["status"], result["attempts"], result["error"]["code"]) == ("dead_lettered", 2, "agent_error")
    assert result["error"]["message"] == "the lights went out"
    wrong = foreign.result(submit(foreign, {"answer": 7}, retry={"max_retries": 1, "retry_delay": 0.1}))
    assert wrong["attempts"] == 1
    assert "must be a JSON object" in wrong["error"]["message"]


def test_an_agent_that_died_is_offline_and_its_work_goes_to_its_next_start(example: Path, foreign: Foreign) -> None:
    with running_agent(example, "work.mjs", foreign.bootstrap) as first:
        foreign.until(first.is_ready)
        task_id = submit(foreign, {"ms": 60_000})
        foreign.until(lambda: starts(example, task_id))
        first.kill()
    foreign.until(lambda: "requeued" in events(foreign, task_id))
    assert agent_events(foreign, "node_agent")[-1] == "offline"
    foreign.submit_json({"kind": "cancel", "task_id": task_id})
    later = submit(foreign, {"answer": {"n": 1}})
    with running_agent(example, "work.mjs", foreign.bootstrap) as second:
        foreign.until(second.is_ready)
        assert foreign.result(later)["status"] == "completed"
        assert foreign.result(task_id)["status"] == "cancelled"
    assert agent_events(foreign, "node_agent")[-4:] == ["offline", "up", "draining", "stopped"]
    assert len(starts(example, task_id)) == 1
