"""The whole system in memory, as a test of somebody's agents uses it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from actors.api import Actor, Context
from ops.memory.plight import Stuck
from ops.memory.rehearsal import NoOutcome, Rehearsal, TaskFailed
from schemas.errors import InvalidInput, Overloaded
from schemas.policies import RetryPolicy
from tests.ops.memory.cast import adder, elapsed, kinds_of, napper, stumbling


async def test_a_task_is_routed_run_and_answered() -> None:
    async with Rehearsal([adder(), napper()]) as troupe:
        task = await troupe.submit("sum", {"a": 1, "b": 2})
        assert await troupe.result(task) == {"total": 3}
        found = await troupe.wait(task)
        assert (found.status, found.agent, found.attempts) == ("completed", "adder", 1)
        first, last = [event async for event in troupe.events(task)]
        assert (first.kind, last.kind) == ("assigned", "completed")
        assert found.document()["history"][0]["decision"]["chosen"] == "adder"
        assert elapsed(troupe) == 0


async def test_retries_wait_in_virtual_time() -> None:
    began = time.monotonic()
    async with Rehearsal([stumbling(3, lambda: Overloaded("busy"))]) as troupe:
        task = await troupe.submit("stumble")
        assert await troupe.result(task) == {"attempt": 4}
        assert elapsed(troupe) == 7
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("error", "status", "code", "attempts"),
    [
        (lambda: RuntimeError("it broke"), "dead_lettered", "agent_error", 4),
        (lambda: InvalidInput("no such account"), "failed", "invalid_input", 1),
    ],
)
async def test_a_task_that_fails_says_how(error: Any, status: str, code: str, attempts: int) -> None:
    async with Rehearsal([stumbling(9, error)]) as troupe:
        task = await troupe.submit("stumble")
        with pytest.raises(TaskFailed, match=str(error()).split()[-1]) as raised:
            await troupe.result(task)
        found = raised.value.status
        assert (found.status, raised.value.code, found.attempts) == (status, code, attempts)
        assert found == await troupe.status(task)


async def test_an_attempt_that_takes_too_long_is_given_up_and_repeated() -> None:
    async with Rehearsal([napper(timeout_seconds=20)]) as troupe:
        task = await troupe.submit("nap", {"seconds": 60}, retry=RetryPolicy(max_retries=1, retry_delay=5))
        found = await troupe.wait(task)
        assert (found.status, found.attempts, found.error and found.error.code) == ("dead_lettered", 2, "timeout")
        assert elapsed(troupe) == 45
        assert troupe.running == 0


async def test_time_can_be_turned_on() -> None:
    async with Rehearsal([napper()]) as troupe:
        task = await troupe.submit("nap", {"seconds": 100})
        await troupe.advance(99)
        status = await troupe.status(task)
        assert status is not None and (status.status, troupe.running) == ("running", 1)
        await troupe.advance(1)
        await troupe.advance(0.001)
        status = await troupe.status(task)
        assert status is not None and status.completed


async def test_the_same_test_makes_the_same_records() -> None:
    async def history() -> list[Any]:
        async with Rehearsal([napper(max_in_flight=3), stumbling(1, lambda: RuntimeError("no"))]) as troupe:
            tasks = [await troupe.submit("nap", {"seconds": n * 0.1}) for n in range(10)]
            tasks.append(await troupe.submit("stumble"))
            for task in tasks:
                await troupe.wait(task)
            return [
                (name, part, troupe.log.read(name, part, 0, 10_000))
                for name, count in sorted(troupe.log.topics().items())
                for part in range(count)
            ]

    assert await history() == await history()


async def test_handlers_and_test_share_events_fixtures_and_mocks() -> None:
    gate = asyncio.Event()

    async def wait(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await ctx.report(0.5, "at the gate")
        await gate.wait()
        return {}

    async with Rehearsal([Actor("gate", wait, capabilities=["gate"])]) as troupe:
        task = await troupe.submit("gate")
        await troupe.advance(1)
        assert await kinds_of(troupe, task) == ["assigned", "progress", "started"]
        gate.set()
        assert await troupe.result(task) == {}


async def test_an_agent_takes_no_more_than_it_may_and_the_rest_waits() -> None:
    async with Rehearsal([napper(max_in_flight=2)]) as troupe:
        tasks = [await troupe.submit("nap", {"seconds": 10}) for _ in range(5)]
        for task in tasks:
            await troupe.wait(task)
        assert elapsed(troupe) == 30


async def test_events_can_be_followed_while_time_passes() -> None:
    async with Rehearsal([stumbling(2, lambda: RuntimeError("no"))]) as troupe:
        task = await troupe.submit("stumble")
        seen = []
        async for event in troupe.events(task):
            seen.append((str(event.kind), elapsed(troupe)))
            await asyncio.sleep(0.25)
        assert seen == [
            ("assigned", 0.0), ("retry_scheduled", 0.25), ("assigned", 1.0), ("retry_scheduled", 1.25),
            ("assigned", 3.0), ("completed", 3.25),
        ]  # fmt: skip


async def test_a_task_that_goes_on_has_no_outcome_yet() -> None:
    async with Rehearsal([napper()]) as troupe:
        task = await troupe.submit("nap", {"seconds": 100})
        with pytest.raises(NoOutcome, match=r"no outcome after 61\.5 s"):
            await troupe.result(task, timeout_s=61.5)
        with pytest.raises(NoOutcome, match="no outcome after 30 s"):
            _ = [event async for event in troupe.events(task, timeout_s=30)]
        assert elapsed(troupe) == 91.5
        assert await troupe.result(task) == {"attempt": 1}


async def test_a_cancel_ends_the_handler_and_says_what_came_of_it() -> None:
    async with Rehearsal([napper()]) as troupe:
        task = await troupe.submit("nap", {"seconds": 100})
        await troupe.advance(5)
        told = await troupe.cancel(task, "not needed any more")
        assert (told.outcome, told.agent) == ("cancelled", "napper")
        assert (await troupe.cancel(task)).outcome == "already_cancelled"
        assert (await troupe.cancel("nobody")).outcome == "not_found"
        assert (await troupe.wait(task)).status == "cancelled"
        await troupe.advance(0)
        assert (troupe.running, elapsed(troupe)) == (0, 5)
        troupe.crash_coordinator()
        with pytest.raises(Stuck, match="waits for a coordinator"):
            await troupe.cancel(task)
