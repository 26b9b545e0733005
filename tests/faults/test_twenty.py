"""Twenty kills of each role under load, and a few of the broker: the table that the promise is judged by."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ops.broker.local import BrokerOptions, LocalKafka
from tests.faults.harness import Run, lonely_port, run

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(1800)]

RATE = 40.0
QUIET = {"FAULTS_TIMEOUT_SECONDS": "20", "FAULTS_HANGS": "0"}  # what is delivered again may still start
Endured = Callable[[dict], None]
Kill = Callable[[], Awaitable[None]]


@pytest.mark.parametrize("name", ["coordinator", "actors"])
async def test_twenty_kills_of_a_role(broker: str, tmp_path: Path, endured: Endured, name: str) -> None:
    async with run(f"kill -9 of {name}", broker, tmp_path, seed=111, environ=QUIET) as made:
        role = getattr(made.system, name)

        async def kill() -> None:
            await made.system.kill(role)
            await made.system.until(lambda: role.was_ready, 60, "ready again")

        await made.system.ready()
        await _under_load(made, kill, 20)
        await made.verdict()
        endured(_row(made, 20, role.takeovers))
        assert role.exits[-signal.SIGKILL] == 20


async def test_kills_of_the_broker(tmp_path: Path, endured: Endured) -> None:
    kafka = LocalKafka(BrokerOptions(directory=tmp_path / "kafka", port=lonely_port()))
    started = await kafka.start()
    again = LocalKafka(BrokerOptions(directory=tmp_path / "kafka", port=started.port))
    back: list[float] = []
    try:
        async with run("kill -9 of the broker", started.bootstrap, tmp_path / "data", seed=112, environ=QUIET) as made:
            async def kill() -> None:
                pids = kafka.pids()
                assert pids, "there is no broker to kill"
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                begun, before = time.monotonic(), len(made.seen)
                await again.start()
                await made.system.until(lambda: len(made.seen) > before, 90, "an outcome after the broker is back")
                back.append(time.monotonic() - begun)

            await made.system.ready()
            await _under_load(made, kill, 5)
            await made.verdict()
            endured(_row(made, 5, back))
            assert made.system.coordinator.deaths == made.system.actors.deaths == 1, "the stop at the end; both waited for it"
    finally:
        await again.stop()


async def _under_load(made: Run, kill: Kill, times: int) -> None:
    """Kill so often, at random instants, while tasks are submitted."""
    rng = random.Random(113)

    async def killing() -> None:
        for _ in range(times):
            await asyncio.sleep(rng.uniform(0.2, 2.5))
            await kill()

    killer = asyncio.create_task(killing())
    try:
        await made.load_until(killer.done, RATE, 60.0 * times, f"{times} kills")
    finally:
        killer.cancel()
        await asyncio.wait([killer])
    killer.result()


def _row(made: Run, kills: int, back: list[float]) -> dict:
    """Zero of n is what was seen: with n kills the rate of a loss is below 3/n with 95 % confidence."""
    return {
        "run": made.name, "kills": kills, "tasks": made.row["tasks"], "lost": 0,  # the verdict raises otherwise
        "duplicates absorbed": made.row["duplicates"], "outputs re-emitted": made.row["re-emitted"],
        "handlers again": made.row["handlers again"], "strays": made.row["strays"],
        "back s, median": f"{statistics.median(back):.1f}", "back s, max": f"{max(back):.1f}",
    }  # fmt: skip
