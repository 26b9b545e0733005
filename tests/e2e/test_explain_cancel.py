"""Asked why, told to stop, and looked at by the doctor: what a visitor sees of tasks that run, wait, fail or never were."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator

import pytest

from ops.cli.roles import troupe_command
from tests.e2e.conftest import Visitor, running

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

AGENTS = """
import asyncio
from actors import Actor, Context

async def sit(payload: dict, ctx: Context) -> dict:
    await asyncio.sleep(payload["seconds"])
    return {}

async def fall(payload: dict, ctx: Context) -> dict:
    raise RuntimeError("the chair broke")

def agents():
    return [Actor("sitter", sit, capabilities=["sitting"], max_in_flight=1), Actor("faller", fall, capabilities=["falling"])]
"""


@pytest.fixture(scope="module")
def seats(system: Visitor) -> Iterator[Visitor]:
    """A system with one seat, which somebody takes for longer than any test."""
    (system.root / "seats.py").write_text(AGENTS)
    with running(system, "seats.py"):
        system.troupe("submit", "sitting", "--payload", '{"seconds": 600}', "--task-id", "sits")
        yield system
        system.troupe("cancel", "sits")


def submit_waiting(seats: Visitor, task_id: str) -> None:
    """A task that has to wait for the seat; back when that is decided."""
    seats.json(
        "submit",
        "sitting",
        "--payload",
        '{"seconds": 0}',
        "--task-id",
        task_id,
        "--wait",
        "--wait-seconds",
        "2",
        code=1,
    )


def test_a_task_that_waits_is_explained_and_cancelled(seats: Visitor) -> None:
    submit_waiting(seats, "waits")
    found = seats.json("explain", "waits")
    assert (found["status"], found["asked"]) == ("queued", "pattern 'sitting'")
    assert found["now"].endswith("the pattern asks for 'sitting', which has 1 of 1 slots in use.")
    (step,) = found["steps"]
    (candidate,) = step["decision"]["candidates"]
    assert (candidate["agent_id"], candidate["eligible"], candidate["excluded_by"]) == ("sitter", False, "at_capacity")
    shown = seats.troupe("explain", "waits")
    assert "sitter" in shown and "at capacity" in shown and "1 of 1" in shown

    assert seats.troupe("cancel", "waits", "--reason", "too late").startswith("Task 'waits' is cancelled.")
    assert seats.json("status", "waits", code=1)["status"] == "cancelled"
    assert seats.json("cancel", "waits")["outcome"] == "already_cancelled"
    assert seats.json("explain", "waits")["now"] == "It ended as cancelled after 0 attempts: too late."
    assert seats.json("explain", "waits")["steps"][-1]["text"] == "too late"


def test_a_task_that_runs_is_taken_from_its_agent(seats: Visitor) -> None:
    assert seats.json("explain", "sits")["steps"][0]["decision"]["chosen"] == "sitter"
    submit_waiting(seats, "next")
    found = seats.json("cancel", "sits")
    assert (found["outcome"], found["agent"]) == ("cancelled", "sitter")
    assert seats.json("submit", "sitting", "--payload", '{"seconds": 0}', "--wait")["status"] == "completed"
    assert seats.json("status", "next")["status"] == "completed"
    seats.troupe("submit", "sitting", "--payload", '{"seconds": 600}', "--task-id", "sits-again")
    assert seats.json("cancel", "sits-again")["outcome"] == "cancelled"


def test_a_submit_that_waits_says_what_for_and_how_to_go_on_without_it(seats: Visitor) -> None:
    seats.troupe("submit", "sitting", "--payload", '{"seconds": 600}', "--task-id", "sits-there")
    command = (
        "submit",
        "sitting",
        "--payload",
        '{"seconds": 0}',
        "--wait",
        "--set",
        "monitoring.tell_after_seconds=0.3",
    )
    with seats.start(*troupe_command(*command)) as waiting:
        assert waiting.stdout is not None
        told = waiting.stdout.readline()
        found = re.fullmatch(r"Task '(.+)' has no outcome yet\. It waits since \S+: (.+)\n", told)
        assert found is not None, told
        task_id, why = found.groups()
        assert why == "the pattern asks for 'sitting', which has 1 of 1 slots in use."
        waiting.send_signal(signal.SIGINT)
        assert f"the task goes on: `troupe status {task_id}`\n" in waiting.stdout.read()
    assert waiting.returncode not in (0, None)
    assert seats.json("status", task_id, code=1)["status"] == "queued"
    for each in (task_id, "sits-there"):
        seats.troupe("cancel", each)


def test_a_task_that_failed_is_explained_attempt_by_attempt(seats: Visitor) -> None:
    seats.json("submit", "falling", "--payload", "{}", "--task-id", "falls", "--retries", "1", "--wait", code=1)
    found = seats.json("explain", "falls")
    assert [(step["kind"], step["attempt"]) for step in found["steps"]] == [
        ("assigned", 1), ("retry_scheduled", 1), ("assigned", 2), ("dead_lettered", 2),
    ]  # fmt: skip
    assert "the chair broke (agent_error); the next one in 1 s" in found["steps"][1]["text"]
    ended = seats.json("cancel", "falls", code=1)
    assert (ended["outcome"], ended["message"]) == ("already_finished", "Task 'falls' is already dead_lettered.")


def test_a_refused_submit_says_why(seats: Visitor) -> None:
    seats.json("submit", "falling", "--payload", '{"n": 1}', "--task-id", "twice", "--retries", "0", "--wait", code=1)
    seats.json("submit", "falling", "--payload", '{"n": 2}', "--task-id", "twice", "--retries", "0", "--wait", code=1)
    steps = seats.json("explain", "twice")["steps"]
    assert steps[-1]["kind"] == "refused"
    assert steps[-1]["error"]["code"] == "task_conflict"


def test_a_task_that_never_was(seats: Visitor) -> None:
    found = seats.troupe("explain", "never", code=1)
    assert "Error: Task 'never' not found" in found and "Hint: " in found
    assert seats.json("cancel", "never", code=1)["outcome"] == "not_found"
    assert "Hint: check the id" in seats.troupe("cancel", "never", code=1)
    assert seats.json("cancel", "never", "--no-wait")["outcome"] == "sent"
    unknown = seats.json("status", "never", code=1)
    assert (unknown["status"], unknown["agent"]) == ("unknown", None)
    assert {(each["kind"], each["error"]["code"]) for each in unknown["history"]} == {("refused", "task_not_found")}
    told = seats.troupe("status", "never", code=1)
    assert "Error: Task 'never' not found; at 2" in told and "Z a `cancel` of it was refused" in told
    assert "Error: Task 'never' not found" in seats.troupe("explain", "never", code=1)
    assert "task_id" in seats.troupe("cancel", "no id", code=1)


CLIENT = """
import asyncio
from ops.client import Client, TaskFailed

async def main() -> None:
    async with Client.here() as client:
        task_id = await client.submit(pattern="falling", payload={}, retry={"max_retries": 0})
        kinds = [str(event.kind) async for event in client.events(task_id, timeout_s=60)]
        try:
            await client.result(task_id, timeout_s=60)
        except TaskFailed as failed:
            print(failed.code, kinds[0], kinds[-1], (await client.cancel(task_id)).outcome)

asyncio.run(main())
"""


def test_a_program_finds_the_system_as_the_command_does(seats: Visitor) -> None:
    (seats.root / "client.py").write_text(CLIENT)
    told = seats.call(sys.executable, "-P", "client.py")
    assert told.split() == ["agent_error", "assigned", "dead_lettered", "already_finished"]


def test_a_system_that_works_is_found_healthy(seats: Visitor) -> None:
    found = seats.json("doctor")
    assert found["errors"] == 0, found
    by_check = {finding["check"]: finding for finding in found["findings"]}
    assert set(by_check) == {
        "settings", "processes", "disk", "java", "kafka", "schemas", "topics", "lag", "dead letters", "agents", "clock",
        "changelogs",
    }  # fmt: skip
    for check in ("processes", "kafka", "schemas", "topics", "lag", "agents", "clock", "changelogs"):
        assert by_check[check]["level"] == "ok", by_check[check]
    assert "0 errors" in seats.troupe("doctor")
