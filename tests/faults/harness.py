"""A run under faults: a system, a submitter, somebody who watches the results, and a verdict at the end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from ops.codecs import load_codecs
from ops.topics import apply
from schemas.settings import Coordinator, Kafka, Settings, Tasks
from schemas.topics import TASK_RESULTS
from tests.faults.checker import Checker, Report, ends, handler_starts, lag
from tests.faults.roles import System
from tests.faults.submitter import Submitter
from topology import troupe

DRAIN_S = 120.0
PATIENT_S = 60.0
"""Session and request time-outs of roles that no fault robs of their Kafka: no load of the machine makes them end, and a
zombie that wakes finds the fence before any of its requests is late."""
BRIEF_S = 6.0
"""Session time-out where another is to take over from a member that is dead or stopped."""
UNFINISHED = 400
"""Tasks without an outcome above which the load pauses, so that a slow machine has an end too."""
POINTS = (
    "stepped", "changelog-sent", "changelog-acked", "rows-written",
    "outputs-sent", "outputs-acked", "committed", "recovered",
)  # fmt: skip
"""Failpoints of a coordinator, each between two steps of a flush."""
CLAIMS = 4
"""Claims of a start, one per processor and partition; flushes of records come after them."""


@dataclass
class Run:
    """What a test holds in its hands. row: what the table at the end shows of it."""

    name: str
    settings: Settings
    system: System
    submitter: Submitter
    seen: set[str] = field(default_factory=set)
    row: dict = field(default_factory=dict)

    async def done(self, share: float = 1.0, limit_s: float = DRAIN_S) -> None:
        """Wait until this share of the submitted tasks has an outcome."""
        wanted = {entry.id for entry in self.submitter.entries if entry.id and entry.ack}
        what = f"{share:.0%} of {len(wanted)} done"
        await self.system.until(lambda: len(wanted & self.seen) >= share * len(wanted), limit_s, what)

    async def load_until(self, over: Callable[[], bool], rate: float, limit_s: float, what: str) -> None:
        """Submit at a rate until something has come to pass."""

        async def feeding() -> None:
            while True:
                if self.submitter.fed - len(self.seen) < UNFINISHED:
                    await self.submitter.feed(int(rate / 4), rate)
                else:
                    await asyncio.sleep(0.1)

        load = asyncio.create_task(feeding())
        try:
            await self.system.until(over, limit_s, what)
        finally:
            load.cancel()
            await asyncio.wait([load])
            await self.submitter.settled()
            if not load.cancelled() and load.exception():
                raise load.exception()

    async def drained(self, limit_s: float = DRAIN_S) -> None:
        """Wait until every task has an outcome and nothing is left to read or to commit."""
        await self.done(1.0, limit_s)
        deadline, until, left = time.monotonic() + limit_s, await ends(self.settings), {"all": 1}
        while left:
            assert time.monotonic() < deadline, f"lag {left} after {limit_s:g} s; exits {self.system.exits()}"
            with contextlib.suppress(KafkaError):  # a starved broker may not answer at once
                left = await lag(self.settings, until)
            await asyncio.sleep(0.3 if left else 0.0)

    async def verdict(self) -> Report:
        """Drain, stop, judge; raises AssertionError with what was violated."""
        begun = time.monotonic()
        await self.drained()
        drained = time.monotonic() - begun
        await self.system.stop()
        report = await Checker(self.settings, self.submitter.codecs, self.submitter.entries).check()
        starts = handler_starts(self.system.ledger)
        takeovers = self.system.coordinator.takeovers
        self.row |= {
            "run": self.name,
            "tasks": report.facts["tasks"],
            "kills": sum(n for name, n in self.system.exits().items() if name.endswith(":-9")),
            "duplicates": report.facts["duplicates"],
            "re-emitted": report.facts["re_emitted"],
            "strays": report.facts["strays"],
            "handlers again": sum(starts.values()) - len(starts),
            "takeover s": f"{max(takeovers):.1f}" if takeovers else "-",
            "drain s": f"{drained:.1f}",
            "violations": sum(map(len, report.violations.values())),
        }
        bad = {name: found for name, found in report.violations.items() if found}
        assert not bad, f"{self.name}: {report.text()}; exits {self.system.exits()}; {self.settings.data_dir}"
        self.refuse_odd_ends()
        return report

    def refuse_odd_ends(self) -> None:
        """Raises AssertionError if a role ended though nobody asked for it and no fault explains it."""
        odd = self.system.odd()
        assert not odd, f"{self.name}: ends that nobody asked for {odd}; {self.settings.data_dir}"


def lonely_port() -> int:
    """A free port that no other broker of this machine tries while ours is away."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def settings_for(broker: str, data: Path, prefix: str, partitions: int, session_s: float) -> Settings:
    """Short times, save those after which a role gives itself up."""
    kafka = Kafka(
        bootstrap_servers=broker, topic_prefix=prefix, partitions=partitions,
        request_timeout_seconds=PATIENT_S, metadata_timeout_seconds=PATIENT_S,
    )  # fmt: skip
    return Settings(
        kafka=kafka,
        coordinator=Coordinator(session_timeout_seconds=session_s, wake_again_seconds=0.5),
        tasks=Tasks(timeout_seconds=2),
        data_dir=data,
    )


@contextlib.asynccontextmanager
async def run(
    name: str, broker: str, data: Path, *, seed: int = 1, untidy: bool = True, environ: dict[str, str] | None = None,
    first_failpoint: str = "", partitions: int = 2, session_s: float = PATIENT_S,
) -> AsyncIterator[Run]:  # fmt: skip
    """An installation with running roles, ended in any case. `first_failpoint` is armed at the first start.

    Leaving raises AssertionError if a role ended though nobody asked for it and no fault explains it.
    """
    settings = settings_for(broker, data, f"f{time.time_ns() % 10**10}.", partitions, session_s)
    await apply(settings, troupe())
    codecs = await load_codecs(settings, troupe())
    system = System(settings, environ or {})
    if first_failpoint:
        system.coordinator.failpoints.append(first_failpoint)
    async with Submitter(settings, codecs, random.Random(seed), untidy) as submitter, system:
        made = Run(name, settings, system, submitter)
        watching = asyncio.create_task(_watch(made))
        try:
            yield made
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
    made.refuse_odd_ends()


async def _watch(made: Run) -> None:
    """Collect the ids that have an outcome."""
    settings, codec = made.settings, made.submitter.codecs.of(TASK_RESULTS.subject)
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    try:
        name = settings.kafka.topic_prefix + TASK_RESULTS.name
        places = [TopicPartition(name, number) for number in range(settings.kafka.partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        while True:
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                made.seen |= {codec.decode(each.value).task_id for each in batch}
    finally:
        await consumer.stop()
