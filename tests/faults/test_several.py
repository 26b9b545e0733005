"""Several coordinators share the partitions: they come and go under load, and no two of them bear one name."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.topics import TASK_EVENTS
from streams.runtime.exits import EXIT_FENCED, EXIT_OPERATOR
from tests.faults.checker import Checker, top_load
from tests.faults.harness import BRIEF_S, Run, run

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(900)]

LIMIT = 40
"""`max_in_flight` of each agent."""

Endured = Callable[[dict], None]


@pytest.mark.parametrize(("rounds", "seed"), [(1, 81), pytest.param(5, 82, marks=pytest.mark.long)])
async def test_coordinators_join_and_leave_under_load(
    broker: str, tmp_path: Path, endured: Endured, rounds: int, seed: int
) -> None:
    """One, two, three, then two by SIGTERM, one by SIGKILL, and again: nobody ends who was not asked to."""
    environ = {"FAULTS_WORK_SECONDS": "0.3", "FAULTS_TIMEOUT_SECONDS": "20", "FAULTS_HANGS": "0"}
    async with run(
        "coordinators join and leave", broker, tmp_path, seed=seed, partitions=4, environ=environ, session_s=BRIEF_S
    ) as made:
        system = made.system
        await system.ready()
        for _ in range(rounds):
            for role in (system.second, system.third):
                load = asyncio.create_task(made.submitter.feed(60, 40))
                system.resume(role)
                await system.until(lambda role=role: role.was_ready, 60, "joined")
                await load
            shared = await _with_three(made)
            load = asyncio.create_task(made.submitter.feed(120, 40))
            await asyncio.sleep(0.5)
            await system.halt(system.second, signal.SIGTERM)
            await asyncio.sleep(0.5)
            await system.halt(system.third, signal.SIGKILL)
            await load
            await made.done(0.9)
        await made.submitter.feed(60)  # the last one owns every partition by the time these are done
        await made.verdict()
        endured(made.row)
        events = await Checker(made.settings, made.submitter.codecs, []).read(TASK_EVENTS)
        assert LIMIT // 2 <= top_load(events, *shared) <= LIMIT, "three share an agent's slots"


async def _with_three(made: Run) -> tuple[int, int]:
    """More work than there are slots, while all three own their part; returns begin and end in microseconds."""
    await made.done(1.0)
    begun = time.time_ns() // 1000
    await made.submitter.feed(300)
    await made.done(1.0)
    return begun, time.time_ns() // 1000


@pytest.mark.long
async def test_two_of_one_name_say_so(broker: str, tmp_path: Path, endured: Endured) -> None:
    """On two machines nobody sees the other's store; the group gives the place to the younger one."""
    async with run("two of one name", broker, tmp_path, seed=83) as made:
        system, first, second = made.system, made.system.coordinator, made.system.second
        command = [part.replace("coordinator-2", made.settings.coordinator.instance) for part in second.spec.command]
        second.spec = replace(second.spec, command=tuple(command))
        await system.ready()
        load = asyncio.create_task(made.submitter.feed(200, 20))
        codes = EXIT_OPERATOR, EXIT_FENCED  # who writes before the group tells it finds the fence
        with first.may_exit(*codes), second.may_exit(*codes):
            system.resume(second)
            await system.until(lambda: first.exits[EXIT_OPERATOR] > 0, 40, "told that its name is taken")
            await system.until(lambda: second.exits[EXIT_OPERATOR] > 0, 40, "told so in its turn")
            await system.halt(second)
            await system.until(lambda: first.was_ready, 40, "alone again")
        await load
        await made.verdict()
        endured(made.row)
        for role in (first, second):
            assert "another coordinator named 'coordinator-1' has joined the group" in role.log()
            assert "--instance NAME" in role.log()
