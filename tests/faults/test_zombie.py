"""A coordinator is stopped at each point, past its session, while another takes over; then it wakes, its hands full."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from ops.changelogs import read_changelog
from streams.runtime.exits import EXIT_FENCED
from tests.faults.harness import BRIEF_S, CLAIMS, POINTS, Run, run
from topology import troupe

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(1800)]

QUEUED = "changelog-queued"
"""Between the producer's queue and the wire: a zombie sends that batch when it wakes, so strays really land."""
ENDS_S = 15.0
"""In which a zombie finds out: it beats once a second, and before it sends anything it looks at its last heartbeat."""

Endured = Callable[[dict], None]


@pytest.mark.parametrize(
    ("points", "seed"),
    [
        ((QUEUED,), 70),
        pytest.param((QUEUED, QUEUED, QUEUED, *POINTS), 71, marks=pytest.mark.long),
        pytest.param((QUEUED, *POINTS) * 2, 72, marks=pytest.mark.long),
    ],
    ids=["one", "each", "twice"],
)
async def test_a_zombie_is_fenced(
    broker: str, tmp_path: Path, endured: Endured, points: tuple[str, ...], seed: int
) -> None:
    rng = random.Random(seed)
    async with run("zombies", broker, tmp_path, seed=seed, session_s=BRIEF_S) as made:
        system, first, second = made.system, made.system.coordinator, made.system.second
        await system.ready()
        for point in points:
            before = await _strays(made)
            await system.halt(first, signal.SIGTERM)
            nth = 1 if point in ("recovered", "committed") else rng.randint(CLAIMS + 1, CLAIMS + 12)
            first.failpoints.append(f"{point}:{nth}:stop")
            system.resume(first)
            await made.load_until(lambda: first.stopped, 60, 60, f"stopped at {point}")
            begun = time.monotonic()
            first.keep = False
            system.resume(second)
            await system.until(lambda: second.was_ready, 60, "taken over")
            taken_over = time.monotonic() - begun
            await made.submitter.feed(100, 100)
            # A batch of either of its processors may still be on its way, and lie where its successor is about to write.
            with first.may_exit(EXIT_FENCED), second.may_exit(EXIT_FENCED):
                ended = await _wake(made)
                await made.submitter.feed(40, 100)
                await made.done(0.9)
                await system.until(lambda: second.was_ready, 60, "ready beside the zombie")
            await system.halt(second, signal.SIGTERM)
            endured(
                {
                    "zombie stopped at": point, "taken over in s": f"{taken_over:.1f}",
                    "awake until its end, s": f"{ended:.1f}", "strays": await _strays(made) - before,
                }
            )  # fmt: skip
            system.resume(first)
            await system.until(lambda: first.was_ready, 60, "back")
        await made.verdict()
        endured(made.row)
        assert first.exits[EXIT_FENCED] >= len(points), first.exits


async def _wake(made: Run) -> float:
    """Let the zombie go on; returns the seconds until it had ended by itself."""
    first, begun = made.system.coordinator, time.monotonic()
    first.signal(signal.SIGCONT)
    await made.system.until(lambda: not first.alive, ENDS_S, "ended by itself")
    await asyncio.sleep(0.1)
    return time.monotonic() - begun


async def _strays(made: Run) -> int:
    """Strays in all changelogs, as an owner would find them."""
    kafka, codec = made.settings.kafka, made.submitter.codecs.of("changelog.header-value")
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    try:
        names = [kafka.topic_prefix + spec.changelog.name for spec in troupe().processors]
        places = [TopicPartition(name, number) for name in names for number in range(kafka.partitions)]
        return sum([(await read_changelog(consumer, place, codec.decode, 20.0)).stray_count for place in places])
    finally:
        await consumer.stop()
