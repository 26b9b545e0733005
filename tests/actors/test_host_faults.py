"""Hosts that are killed at each step, or told to stop: every assignment is reported, and the inboxes come back fast."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from actors.loader import load_agents
from tests.actors.processes import FILE, killed, process
from tests.actors.stage import Stage, assignment, outcomes

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

POINTS = ["inbox-polled", "journalled", "handled", "reports-sent", "reports-acked", "offsets-committed"]


@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_at_each_step_loses_nothing(broker: str, tmp_path: Path, point: str) -> None:
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(*load_agents(FILE))
        records = [assignment(f"t{n:03}", {"n": n}) for n in range(300)]
        await stage.assign_many("quick", records[:150])
        nth = 40 if point == "handled" else 1
        async with process(stage, f"{point}:{nth}:kill", wait=False) as child:
            await killed(child)
        await stage.assign_many("quick", records[150:])
        async with process(stage) as child:
            reports = await stage.reports(lambda seen: len(outcomes(seen)) == 300)
            await stage.committed_to("quick", 300)
            child.terminate()
            assert await asyncio.wait_for(child.wait(), 20) == 0
        assert set(outcomes(reports).values()) == {"completed"}
        again = len([each for each in reports if each.kind == "completed"]) - 300
        assert again <= 150
        if point in ("inbox-polled", "journalled", "handled", "offsets-committed"):
            assert again == 0  # nothing had been sent, or all of it was committed
        else:
            assert again > 0  # it had been sent and not committed


async def test_a_killed_host_has_its_inboxes_back_at_once(broker: str, tmp_path: Path) -> None:
    """A static member that returns within its session takes over from itself, without waiting for the time-out."""
    async with Stage.open(broker, tmp_path, actors__session_timeout_seconds=30) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as child:
            await stage.assign("quick", "before", {"n": 1})
            await stage.reports(len)
            child.kill()
            await killed(child)
        began = time.monotonic()
        async with process(stage):
            await stage.assign("quick", "after", {"n": 2})
            await stage.reports(lambda seen: "after" in outcomes(seen))
        assert time.monotonic() - began < 15


async def test_a_handler_that_ends_the_process_is_failed_at_its_third_start(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(*load_agents(FILE))
        await stage.assign("die", "deadly")
        await stage.assign("nap", "innocent", {"seconds": 0.5})
        for _ in range(2):
            async with process(stage, wait=False) as child:
                await killed(child)
        async with process(stage):
            reports = await stage.reports(lambda seen: "deadly" in outcomes(seen))
            await stage.assign("quick", "next", {"n": 1})
            await stage.reports(lambda seen: "next" in outcomes(seen))
        (error,) = [each.error for each in reports if each.task_id == "deadly" and each.error]
        assert (error.code, error.message, error.retryable) == ("agent_error", "handler ended the process", True)


async def test_a_stop_lets_running_handlers_end(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as child:
            for n in range(5):
                await stage.assign("nap", f"n{n}", {"seconds": 1.5})
                await stage.assign("block", f"b{n}", {"seconds": 1.5})
            await stage.reports(lambda seen: len([each for each in seen if each.kind == "started"]) == 10)
            child.terminate()
            assert await asyncio.wait_for(child.wait(), 20) == 0
        reports = await stage.reports(lambda seen: len(outcomes(seen)) == 10)
        assert set(outcomes(reports).values()) == {"completed"}
        assert await stage.committed("nap") == (5, "")
        assert await stage.committed("block") == (5, "")


@pytest.mark.parametrize("agent", ["nap", "block"])
async def test_a_stop_does_not_wait_for_ever_and_what_it_leaves_is_done_later(
    broker: str, tmp_path: Path, agent: str
) -> None:
    async with Stage.open(broker, tmp_path, actors__drain_seconds=1) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as child:
            await stage.assign(agent, "long", {"seconds": 6})
            await stage.reports(len)
            began = time.monotonic()
            child.terminate()
            assert await asyncio.wait_for(child.wait(), 20) == 75
            assert time.monotonic() - began < 5
        assert await stage.committed(agent) == (0, "")
        await stage.commands(lambda seen: agent in {each.agent_id for each in seen if each.goodbye})
        async with process(stage):
            await stage.reports(lambda seen: "long" in outcomes(seen))


async def test_kills_under_load_lose_nothing(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(*load_agents(FILE))
        sending = asyncio.create_task(_trickle(stage, 3000))
        for pause in (0.3, 0.7, 0.1, 0.5):
            async with process(stage) as child:
                await asyncio.sleep(pause)
                child.kill()
                await killed(child)
        async with process(stage):
            await sending
            reports = await stage.reports(lambda seen: len(outcomes(seen)) == 3000, 60)
            await stage.committed_to("quick", 3000)
        failed = {each for each in outcomes(reports).values() if each != "completed"}
        assert failed <= {"failed:agent_error"}  # only of work that was in a journal at two kills
        assert {each.error.message for each in reports if each.error} <= {"handler ended the process"}


async def _trickle(stage: Stage, count: int) -> None:
    for start in range(0, count, 100):
        await stage.assign_many("quick", [assignment(f"t{n:05}", {"n": n}) for n in range(start, start + 100)])
        await asyncio.sleep(0.1)


async def test_a_killed_replica_is_replaced_by_the_other(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path, actors__session_timeout_seconds=2) as stage:
        await stage.enrol(*load_agents(FILE))
        async with process(stage) as one, process(stage) as two:
            sending = asyncio.create_task(_trickle(stage, 2000))
            await asyncio.sleep(0.7)
            one.kill()
            await killed(one)
            await sending
            reports = await stage.reports(lambda seen: len(outcomes(seen)) == 2000, 30)
            await stage.committed_to("quick", 2000)
            assert two.returncode is None
        assert set(outcomes(reports).values()) == {"completed"}


async def test_a_host_that_was_suspended_goes_on(broker: str, tmp_path: Path) -> None:
    """Its inboxes are its replica's when it wakes; what it had in hand is done twice at worst, and never lost."""
    async with Stage.open(broker, tmp_path, actors__session_timeout_seconds=2) as stage:
        await stage.enrol(*load_agents(FILE))
        await stage.assign_many("quick", [assignment(f"a{n:03}", {"n": n}) for n in range(200)])
        async with process(stage, "reports-sent:1:stop", wait=False) as one:
            await stage.reports(len)
            async with process(stage):
                await stage.reports(lambda seen: len(outcomes(seen)) == 200)
                one.send_signal(signal.SIGCONT)
                await stage.assign_many("quick", [assignment(f"b{n:03}", {"n": n}) for n in range(200)])
                reports = await stage.reports(lambda seen: len(outcomes(seen)) == 400)
                await stage.committed_to("quick", 400)
                assert one.returncode is None
        assert set(outcomes(reports).values()) == {"completed"}
