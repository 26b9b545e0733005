"""Handlers that do to their host what no handler should: the others work on, and what kills a host does so thrice at most.

Each test has a real host process and a real Kafka; the coordinator is played by hand.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.loader import load_agents
from tests.actors.processes import FILE, process
from tests.actors.stage import Stage, micros, outcomes

pytestmark = [pytest.mark.kafka, pytest.mark.faults]


async def works(stage: Stage, task_id: str, limit: float = 20.0) -> None:
    """Another agent of the host still does its work."""
    await stage.assign("quick", task_id, {"n": 1})
    await stage.reports(lambda seen: outcomes(seen).get(task_id) == "completed", limit)


async def until(condition: Callable[[], Any], limit: float = 10.0) -> None:
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def in_seconds(seconds: float) -> int:
    return micros() + int(seconds * 1e6)


async def test_whatever_a_handler_raises_or_returns_is_its_own_failure(broker: str, tmp_path: Path) -> None:
    """Not one of these may end the process, nor leave the slot taken, nor spoil the next handler in the same lane."""
    ways = {
        "sys_exit": True, "interrupt": True, "base": True, "cancel_self": True,
        "list": False, "bytes": False, "nan": False, "huge": False,
    }  # fmt: skip
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as child:
            for how in ways:
                await stage.assign("deaf", how, {"how": how})
                await stage.assign("deaf", f"after-{how}", {"how": "well"})
            for how in ("cancel_self_and_return", "background"):
                await stage.assign("deaf", how, {"how": how})
                await stage.assign("deaf", f"after-{how}", {"how": "well"})
            reports = await stage.reports(lambda seen: len(outcomes(seen)) == 20)
            told = {each.task_id: each.error for each in reports}
            assert {how: told[how] and told[how].retryable for how in ways} == ways
            assert {each for how, each in outcomes(reports).items() if how not in ways} == {"completed"}
            await stage.committed_to("deaf", 20)
            assert child.returncode is None


@pytest.mark.parametrize("agent", ["rogue", "die"])
async def test_a_handler_that_ends_the_process_does_so_twice(broker: str, tmp_path: Path, agent: str) -> None:
    """And what was running beside it is done, at the third start at the latest."""
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(*load_agents(FILE))
        await stage.assign("nap", "innocent", {"seconds": 0.2})
        await stage.assign(agent, "deadly", {"how": "os_exit"})
        for _ in range(2):
            async with process(stage, wait=False) as child:
                assert await asyncio.wait_for(child.wait(), 20) == {"rogue": 3, "die": -signal.SIGKILL}[agent]
        async with process(stage) as child:
            reports = await stage.reports(lambda seen: "deadly" in outcomes(seen))
            await works(stage, "next")
            assert child.returncode is None
        (error,) = [each.error for each in reports if each.task_id == "deadly" and each.error]
        assert (error.code, error.message, error.retryable) == ("agent_error", "handler ended the process", True)


async def test_whoever_holds_the_loop_is_named_and_the_others_go_on_afterwards(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path, actors__held_seconds=0.4) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as child:
            began = micros()
            await stage.assign("rogue", "sleepy", {"how": "sleep", "seconds": 2.5})
            await works(stage, "next")
            assert outcomes(await stage.reports(len))["sleepy"] == "completed"
            assert micros() - began > 2_000_000
            await until(lambda: child.said("loop_free_again"))
            assert child.returncode is None
        (held, *_) = child.said("loop_held")
        assert (held["agent"], held["task"], held["attempt"]) == ("rogue", "sleepy", 1)
        assert re.search(r"killable\.py:\d+ in rogue", held["where"])


@pytest.mark.parametrize("how", ["spin", "sleep"])
async def test_a_loop_held_beyond_the_deadline_ends_the_host(broker: str, tmp_path: Path, how: str) -> None:
    """Nobody waits for that result any more, so a new process serves the others; the old attempt is not begun again."""
    async with Stage.open(broker, tmp_path, actors__held_seconds=0.4) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as child:
            await stage.assign("rogue", "endless", {"how": how, "seconds": 600}, deadline=in_seconds(2))
            began = time.monotonic()
            assert await asyncio.wait_for(child.wait(), 20) == 75
            assert time.monotonic() - began < 10
        (end,) = child.said("loop_held_for_good")
        assert (end["agent"], end["task"]) == ("rogue", "endless")
        async with process(stage) as child:
            await works(stage, "next")
            await stage.committed_to("rogue", 1)
            assert "endless" not in outcomes(await stage.reports(len))


async def test_code_that_keeps_the_interpreter_ends_a_supervised_host(broker: str, tmp_path: Path) -> None:
    """No thread of ours gets a turn then; the process still leaves, and says where it was."""
    async with Stage.open(broker, tmp_path, actors__frozen_seconds=2) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as child:
            await stage.assign("rogue", "hog", {"how": "hog"})
            assert await asyncio.wait_for(child.wait(), 20) == 1
        assert "killable.py" in child.log()
        async with process(stage, wait=False) as child:
            assert await asyncio.wait_for(child.wait(), 20) == 1
        async with process(stage):
            await works(stage, "next")
            reports = await stage.reports(lambda seen: "hog" in outcomes(seen))
            assert outcomes(reports)["hog"] == "failed:agent_error"


@pytest.mark.parametrize(("agent", "payload"), [
    ("deaf", {"how": "swallow", "seconds": 600}), ("dull", {"seconds": 600}),
])  # fmt: skip
async def test_slots_held_by_the_cancelled_are_freed_by_a_new_process(
    broker: str, tmp_path: Path, agent: str, payload: dict[str, Any]
) -> None:
    async with Stage.open(broker, tmp_path, actors__stuck_seconds=0.5, actors__drain_seconds=2) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as child:
            await stage.assign(agent, "stuck", payload)
            await stage.reports(len)
            await stage.assign("nap", "innocent", {"seconds": 1.5})
            await stage.cancel(agent, "stuck")
            await stage.assign(agent, "behind", {"how": "well", "seconds": 0})
            assert await asyncio.wait_for(child.wait(), 20) == 75
        assert "do not end and hold all of its slots" in child.said("host_worn_out")[0]["error"]
        await stage.reports(lambda seen: outcomes(seen) == {"innocent": "completed"})
        async with process(stage):
            await stage.reports(lambda seen: outcomes(seen).get("behind") == "completed")
            await stage.committed_to(agent, 3)
        assert "stuck" not in outcomes(await stage.reports(len))


async def test_free_slots_are_reason_enough_to_go_on(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path, actors__stuck_seconds=0.3, actors__drain_seconds=1) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as child:
            await stage.assign("rogue", "stuck", {"how": "swallow", "seconds": 600})
            await stage.reports(len)
            await stage.cancel("rogue", "stuck")
            await asyncio.sleep(1)
            await stage.assign("rogue", "beside", {"how": "well"})
            await stage.reports(lambda seen: outcomes(seen) == {"beside": "completed"})
            assert child.returncode is None
            child.terminate()  # and what swallows its cancellation does not keep the process from ending
            assert await asyncio.wait_for(child.wait(), 20) == 0
        assert child.said("handler_ignores_cancel")[0]["task"] == "stuck"


async def test_memory_is_bounded_by_the_limit_and_the_host_begins_anew(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path, actors__memory_limit_mb=1000) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as child:
            await stage.assign("rogue", "modest", {"how": "memory", "bytes": 100 << 20})
            await stage.assign("nap", "innocent", {"seconds": 1})
            await stage.reports(lambda seen: "modest" in outcomes(seen))
            await stage.assign("rogue", "greedy", {"how": "memory", "bytes": 2 << 30})
            assert await asyncio.wait_for(child.wait(), 20) == 75
        reports = await stage.reports(lambda seen: len(outcomes(seen)) == 3)
        assert outcomes(reports) == {"modest": "completed", "greedy": "failed:agent_error", "innocent": "completed"}
        (error,) = [each.error for each in reports if each.task_id == "greedy" and each.error]
        assert (error.message, error.retryable) == ("MemoryError", True)
        assert "found no memory" in child.said("host_worn_out")[0]["error"]


@pytest.mark.parametrize("how", ["background", "thread"])
async def test_what_handlers_leave_behind_does_not_keep_a_host_from_ending(
    broker: str, tmp_path: Path, how: str
) -> None:
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as child:
            await stage.assign("rogue", how, {"how": how})
            await stage.reports(lambda seen: how in outcomes(seen))
            began = time.monotonic()
            child.terminate()
            assert await asyncio.wait_for(child.wait(), 20) == 0
            assert time.monotonic() - began < 8
        assert child.said("left_behind")
        assert await stage.committed("rogue") == (1, "")


async def test_a_second_signal_ends_at_once_and_a_held_loop_ends_by_its_limit(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path, actors__drain_seconds=1) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as child:
            await stage.assign("rogue", "spin", {"how": "spin"})
            await asyncio.sleep(1)
            child.terminate()
            await asyncio.sleep(0.7)
            began = time.monotonic()
            child.terminate()
            assert await asyncio.wait_for(child.wait(), 20) == 75
            assert time.monotonic() - began < 1
        async with process(stage, wait=False) as child:
            await asyncio.sleep(3)
            child.terminate()
            assert await asyncio.wait_for(child.wait(), 20) == 75
        assert child.said("stop_forced")
