"""A host of actors dies between two of its own steps, under a real coordinator: handlers run again, outcomes do not."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.harness import run

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(600)]

POINTS = ("inbox-polled", "journalled", "handled", "reports-sent", "reports-acked", "offsets-committed")


@pytest.mark.parametrize(("count", "seed"), [(3, 71), pytest.param(4 * len(POINTS), 72, marks=pytest.mark.long)])
async def test_a_host_killed_at_its_failpoints(
    broker: str, tmp_path: Path, endured: Callable[[dict], None], count: int, seed: int
) -> None:
    rng = random.Random(seed)
    points = [f"{point}:{rng.randint(1, 20)}:kill" for point in rng.sample(POINTS * 4, count)]
    environ = {"FAULTS_TIMEOUT_SECONDS": "10", "FAULTS_HANGS": "0"}  # what is delivered again may still start
    async with run("actors at failpoints", broker, tmp_path, seed=seed, environ=environ) as made:
        actors = made.system.actors
        await made.system.ready()
        actors.failpoints += points
        await made.system.kill(actors)
        for n, point in enumerate(points):
            await made.load_until(lambda n=n: actors.deaths >= n + 2, 40, 40, f"killed at {point}")
        await made.verdict()
        endured(made.row)
        assert actors.exits[-signal.SIGKILL] == len(points) + 1
