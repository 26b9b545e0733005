"""The coordinator dies at every point of a batch, at random, in its first flush, without its store; nothing is lost.

Each test is one system on topics of its own under untidy load, a number of deaths, and the checker's verdict over all
that lies in the log afterwards. The long forms do more of the same with other seeds.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.faults.harness import BRIEF_S, CLAIMS, POINTS, Run, run
from topology import troupe

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(900)]

Endured = Callable[[dict], None]


def _nth(point: str, rng: random.Random) -> int:
    """A claim passes the changelog's points too; the higher numbers are flushes of records."""
    return rng.randint(1, 2) if point == "recovered" else rng.randint(1, 12)


@pytest.mark.parametrize(("rounds", "seed"), [(1, 11), pytest.param(4, 12, marks=pytest.mark.long)])
async def test_killed_at_each_failpoint(broker: str, tmp_path: Path, endured: Endured, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    points = [f"{point}:{_nth(point, rng)}:kill" for point in rng.sample(POINTS * rounds, len(POINTS) * rounds)]
    async with run("each failpoint", broker, tmp_path, seed=seed) as made:
        coordinator = made.system.coordinator
        await made.system.ready()
        coordinator.failpoints += points
        await made.system.kill(coordinator)
        for n in range(len(points)):
            if n % 3 == 2:
                made.system.forget_tables()
            await made.load_until(lambda n=n: coordinator.deaths >= n + 2, 40, 40, f"killed at {points[n]}")
        await made.verdict()
        endured(made.row)
        assert coordinator.exits[-signal.SIGKILL] == len(points) + 1


@pytest.mark.long
@pytest.mark.parametrize(("kills", "seed"), [(2, 21), (12, 22)])
async def test_killed_at_random_under_load(
    broker: str, tmp_path: Path, endured: Endured, kills: int, seed: int
) -> None:
    rng = random.Random(seed)
    environ = {"FAULTS_TIMEOUT_SECONDS": "10", "FAULTS_HANGS": "0"}  # what is delivered again may still start
    async with run("kill -9, once without the store", broker, tmp_path, seed=seed, environ=environ) as made:
        system = made.system
        await system.ready()
        system.forget_tables()
        for role in rng.sample([system.coordinator, system.actors] * kills, 2 * kills):
            load = asyncio.create_task(made.submitter.feed(300, 120))
            await asyncio.sleep(rng.uniform(0.1, 2.3))
            await system.kill(role)
            await load
            await system.ready()
        await made.verdict()
        endured(made.row)
        assert system.coordinator.exits[-9] == system.actors.exits[-9] == kills


@pytest.mark.long
@pytest.mark.parametrize(("times", "seed"), [(3, 31), (12, 32)])
async def test_killed_in_the_first_flush_after_each_start(
    broker: str, tmp_path: Path, endured: Endured, times: int, seed: int
) -> None:
    """The tail of one crash meets the next: a note whose outputs are unproven must survive both."""
    async with run("killed in its first flush", broker, tmp_path, seed=seed) as made:
        coordinator = made.system.coordinator
        await made.system.ready()
        points = ("changelog-acked", "rows-written")
        coordinator.failpoints += [f"{points[n % 2]}:{CLAIMS + 1}:kill" for n in range(times)]
        await made.system.kill(coordinator)
        for n in range(times):
            if n % 3 == 1:
                made.system.forget_tables()
            await made.load_until(lambda n=n: coordinator.deaths >= n + 2, 60, 40, "killed in its first flush")
        await made.verdict()
        endured(made.row)


@pytest.mark.long
@pytest.mark.parametrize(("pauses", "seed"), [(1, 51), (8, 52)])
async def test_a_pause_shorter_than_the_session_times_nothing_out(
    broker: str, tmp_path: Path, endured: Endured, pauses: int, seed: int
) -> None:
    """Attempts have 2 s, the pause takes 4: what was reported meanwhile lies in the log and must be read first."""
    environ = {"FAULTS_WORK_SECONDS": "0.3"}
    async with run("SIGSTOP for 4 s", broker, tmp_path, seed=seed, environ=environ) as made:
        system = made.system
        await system.ready()
        for _ in range(pauses):
            await made.submitter.feed(150)
            await asyncio.sleep(0.35)
            system.coordinator.signal(signal.SIGSTOP)
            await asyncio.sleep(4)
            system.coordinator.signal(signal.SIGCONT)
            await asyncio.sleep(1)
        await made.verdict()
        endured(made.row)
        assert system.exits() == {"coordinator:0": 1, "actors:0": 1}, "nobody ended before the stop"


@pytest.mark.long
@pytest.mark.parametrize(("rewinds", "seed"), [(1, 61), (4, 62)])
async def test_offsets_set_back(broker: str, tmp_path: Path, endured: Endured, rewinds: int, seed: int) -> None:
    """Every record is delivered again; none acts again."""
    rng = random.Random(seed)
    async with run("offsets set back", broker, tmp_path, seed=seed, session_s=BRIEF_S) as made:
        system = made.system
        await system.ready()
        for n in range(rewinds):
            await made.submitter.feed(400, 300)
            await made.done(0.8)
            await system.halt(system.coordinator)
            await _rewind(made, 0.0 if n == 0 else rng.random())
            system.resume(system.coordinator)
        await made.submitter.feed(100, 300)
        await made.verdict()
        endured(made.row)


@pytest.mark.long
async def test_a_clean_stop_leaves_nothing_to_say_again(broker: str, tmp_path: Path, endured: Endured) -> None:
    async with run("SIGTERM under load", broker, tmp_path, seed=41) as made:
        system = made.system
        await system.ready()
        for _ in range(4):
            load = asyncio.create_task(made.submitter.feed(200, 150))
            await asyncio.sleep(1.0)
            await system.kill(system.coordinator, signal.SIGTERM)
            await load
            await system.ready()
            await asyncio.sleep(2.0)
        await made.verdict()
        endured(made.row)
        assert made.row["re-emitted"] == 0 and set(system.coordinator.exits) == {0}


async def _rewind(made: Run, share: float) -> None:
    """Set the group's offsets to this share of what was committed, once the dead member's session is over."""
    kafka = made.settings.kafka
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, group_id=f"{kafka.topic_prefix}coordinator", enable_auto_commit=False
    )
    await asyncio.sleep(made.settings.coordinator.session_timeout_seconds + 1)
    await consumer.start()
    try:
        names = [kafka.topic_prefix + topic.name for spec in troupe().processors for topic in spec.reads]
        places = [TopicPartition(name, number) for name in names for number in range(kafka.partitions)]
        consumer.assign(places)
        committed = {place: await consumer.committed(place) or 0 for place in places}
        await consumer.commit({place: int(offset * share) for place, offset in committed.items()})
    finally:
        await consumer.stop()
