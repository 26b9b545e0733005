"""Sending wakes, and the net under delivery: what a processor does when nothing arrives.

Both need to know where the logs end now, asked of the broker after the clock was read: the end that the last fetch told is
as old as a pause of this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

from schemas.errors import BrokerUnavailable
from schemas.settings import Settings
from streams.processor import ProcessorSpec
from streams.runtime.exits import EXIT_BUG, EXIT_KAFKA
from streams.runtime.faust_app import App
from streams.runtime.outbox import Outbox, acked
from streams.runtime.owner import Owner
from streams.runtime.partition import Partition
from streams.runtime.wakes import Clock, Wakes, wake_records
from streams.runtime.wire import Encoded, Wire

log = structlog.get_logger("coordinator")
Die = Callable[[int, str], NoReturn]


class Waker:
    """Wakes the rows of one processor."""

    def __init__(
        self, spec: ProcessorSpec, app: App, wire: Wire, settings: Settings, clock: Clock, die: Die
    ) -> None:
        self._spec, self._app, self._wire, self._clock, self._die = spec, app, wire, clock, die
        self._again, self._look = settings.coordinator.wake_again_seconds, settings.coordinator.look_seconds
        self._ack_seconds = settings.kafka.request_timeout_seconds
        self._topics = {wire.real(topic.name): topic for topic in spec.reads}
        self._names = tuple(topic.name for topic in spec.reads)
        self._codec = wire.codecs.of(spec.wakes.subject)
        self._topic = wire.real(spec.wakes.name)
        self._round: asyncio.Task[None] | None = None
        self._heard_at = time.monotonic()
        self._stalled: dict[tuple[str, int], tuple[int, int]] = {}

    def heard(self) -> None:
        """Records came."""
        self._heard_at = time.monotonic()
        self._stalled.clear()

    def silent_for(self, seconds: float) -> bool:
        """Whether nothing came, and nobody looked, for so long; while delivery waits for us nothing can come."""
        return time.monotonic() > max(self._heard_at, self._app.hooks.full_at) + seconds

    def nudge(self, owner: Owner, outbox: Outbox) -> None:
        """Send wakes, if any are wanted and no tail is unread; at most one round at a time."""
        if self._round is not None and not self._round.done():
            return
        if not owner.partitions or any(partition.left for partition in owner.partitions.values()):
            return
        wakes, now = Wakes(owner, self._names, self._again, self._look), self._clock.now()
        ready, ripe = wakes.ready(now), wakes.ripe(now)
        if ready or ripe:
            self._round = asyncio.ensure_future(self._wake(outbox, wakes, ready, ripe))

    async def _wake(
        self, outbox: Outbox, wakes: Wakes, ready: list[tuple[int, str, int]], ripe: list[Partition]
    ) -> None:
        try:
            now = self._clock.now()  # before the ends are asked for: a time at which they were all read is wanted
            ends = await self._ends(ripe) if ripe else {}
            due = wakes.due(now, ends)
            outputs = [
                Encoded(self._topic, number, record.key.encode(), self._codec.encode(record), ())
                for number, record in wake_records([*ready, *wakes.released(now)], due)
            ]
            await acked(await outbox.send(outputs), self._ack_seconds)
        except (KafkaError, BrokerUnavailable, TimeoutError) as error:
            self._die(EXIT_KAFKA, f"wakes of {self._spec.name}: {error!r}")
        except Exception as error:
            log.exception("wake_failed", processor=self._spec.name)
            self._die(EXIT_BUG, f"wakes of {self._spec.name}: {error!r}")

    async def _ends(self, partitions: Iterable[Partition]) -> dict[tuple[str, int], int]:
        """The log ends that the broker names now; 0 where nothing is left but markers of users' transactions."""
        consumer = self._app.consumer
        places = {TP(name, partition.number): partition for partition in partitions for name in self._topics}
        async with asyncio.timeout(self._ack_seconds):
            ends: dict[Any, int] = await consumer.highwaters(*places)
            seen = {place: each.seen.get(self._topics[place.topic].name, -1) for place, each in places.items()}
            late = [place for place in places if seen[place] + 1 < ends[place]]
            reached = await consumer._thread.reached(*late) if late else {}
        for place, (position, last) in reached.items():
            if position >= ends[place] and last <= seen[place]:
                ends[place] = 0
        return {(self._topics[place.topic].name, place.partition): end for place, end in ends.items()}

    async def look_for_stalls(self, owner: Owner, pending: Callable[[], int]) -> None:
        """A net that is never expected to hold anything: for a while nothing came, though the broker has more.

        One look is no proof, a record may be on its way; at the second the log is read again, at the third we stop.
        pending: records that were delivered and wait to be taken. Where some came while we looked nothing stands still,
        and to read the log again would bring them twice.
        """
        self._heard_at = time.monotonic()
        ends = await self._ends(owner.partitions.values())
        before, self._stalled = self._stalled, {}
        for (name, number), end in ends.items():
            if pending():
                return
            reached = owner.partitions[number].seen.get(name, end)
            if reached + 1 >= end:
                continue
            known, looks = before.get((name, number), (reached, 0))
            looks = looks + 1 if known == reached else 1
            self._stalled[name, number] = reached, looks
            if looks == 3:
                self._die(EXIT_BUG, f"{name}.{number}: {end} in the log, {reached} was the last delivered")
            if looks == 2:
                log.error("stall", topic=name, partition=number, end=end, delivered=reached)
                await self._app.consumer.read_again(TP(self._wire.real(name), number), reached + 1)
