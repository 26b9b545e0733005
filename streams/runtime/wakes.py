"""When a row is woken: timers on partition time, and rows that could move now.

A timer is a field of a row, so nothing is lost with a process. When one is due, a wake record is appended, and the
transition happens when that is read back and the row's version still fits. Partition time is the wall clock only while
every input of the partition is read to its end; else it is the slowest input's last append time, so that after an outage
nothing times out while its report lies unread in the log. So are rows held that lost what they waited for: they are asked
whether they could move when all is read that it may still have said, which goes by another way than the news that it is gone.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice

from schemas.changelog import WakeRecord
from schemas.topics import repartition_topic
from streams.runtime.owner import Owner
from streams.runtime.partition import Partition

Wake = tuple[int, str, int]
"""(partition, key, version)."""

ONCE = 1000
"""Wakes sent at once; the rest follow at the next look."""

MICROS = 1_000_000


class Clock:
    """The wall clock in microseconds, corrected by what acks show of the broker's."""

    def __init__(self, read: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._read = read
        self._ahead = 0

    def now(self) -> int:
        """Microseconds on the broker's clock, as well as known."""
        return self._read() + self._ahead

    def learn(self, sent: float, acked: float, appended_ms: int) -> None:
        """An append between two local times (seconds); slow ones say too little and are passed over."""
        if acked - sent < 0.1 and appended_ms > 0:
            measured = appended_ms * 1000 - int((sent + acked) / 2 * MICROS)
            # Append times have a step of a millisecond; below that the clocks are equal.
            self._ahead = measured if abs(measured) > 5000 else 0


def partition_time(partition: Partition, topics: tuple[str, ...], now: int, ends: Mapping[tuple[str, int], int]) -> int:
    """`now`, or the smallest append time reached among the inputs that are not read to their end."""
    partition.look(now, {topic: ends[topic, partition.number] for topic in topics})
    return min(now, partition.read_until(topics))


def wake_records(ready: Iterable[Wake], due: Iterable[Wake]) -> Iterator[tuple[int, WakeRecord]]:
    """Partition and record of each wake; those that are only asked whether they could move say so."""
    for wakes, is_due in ((ready, False), (due, True)):
        for number, key, version in wakes:
            yield number, WakeRecord(key=key, version=version, due=is_due)


class Wakes:
    """Finds the wakes to send for the rows of an owner."""

    def __init__(
        self,
        owner: Owner,
        topics: tuple[str, ...],
        again_seconds: float,
        look_seconds: float,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`seconds` is the clock by which a wake is asked for again. All partitions are looked at every `look_seconds`
        while finished rows are kept, which leave so much later than they could.
        """
        self._owner = owner
        self._seconds = seconds
        self._topics = topics
        self._again, self._look = again_seconds, int(look_seconds * MICROS)

    def ripe(self, now: int) -> list[Partition]:
        """Partitions with a timer that the clock has passed; all while rows are stranded, and now and then if rows wait for
        every input to be read.
        """
        partitions = self._owner.partitions.values()
        past = [since for since, _ in self._stranded(now) if since <= now]
        if past and self._answered_until() < max(past):
            return list(partitions)
        keeps = any(each.finished for each in partitions)
        return [
            each
            for each in partitions
            if (each.timers and each.timers[0][0] <= now) or (keeps and each.looked + self._look <= now)
        ]

    def ready(self, now: int) -> list[Wake]:
        """Rows that could move now and were not asked lately."""
        owner = self._owner
        return list(islice(self._unasked(chain(self._released(now), owner.processor.ready(now, owner.views))), ONCE))

    def released(self, now: int) -> list[Wake]:
        """Stranded rows that could move now and were not asked lately, after a look at what is read."""
        return list(islice(self._unasked(self._released(now)), ONCE))

    def later(self, now: int) -> Iterator[int]:
        """Times to come, microseconds, at which there will be stranded rows to look at."""
        return (since for since, _ in self._stranded(now) if since > now)

    def due(self, now: int, ends: Mapping[tuple[str, int], int]) -> list[Wake]:
        """Rows whose timer partition time has passed. Their timers are set again, in case the wake is lost."""
        found: list[Wake] = []
        for partition in self.ripe(now):
            if (self._topics[0], partition.number) not in ends:
                continue
            limit = partition_time(partition, self._topics, now, ends)
            again: list[tuple[int, str, int]] = []
            while partition.timers and partition.timers[0][0] <= limit and len(found) < ONCE:
                _, key, version = heapq.heappop(partition.timers)
                row = partition.open.get(key)
                if row is not None and getattr(row, "version") == version:  # noqa: B009 - rows share no base with it
                    found.append((partition.number, key, version))
                    again.append((now + int(self._again * MICROS), key, version))
            for timer in again:
                heapq.heappush(partition.timers, timer)
        return found

    def _stranded(self, now: int) -> Iterator[tuple[int, Iterable[str]]]:
        return self._owner.processor.stranded(now, self._owner.views)

    def _released(self, now: int) -> Iterator[str]:
        stranded = list(self._stranded(now))
        until = self._answered_until() if stranded else 0
        for since, keys in stranded:
            if since <= until:
                yield from keys

    def _answered_until(self) -> int:
        """The time up to which all is read here that a stranded row may wait for; it need not lie at its home."""
        processor = self._owner.processor
        names = [topic.name for topic in (*processor.answers, repartition_topic(processor.name))]
        return min((each.read_until(names) for each in self._owner.partitions.values()), default=0)

    def _unasked(self, keys: Iterable[str]) -> Iterator[Wake]:
        owner, lately = self._owner, self._seconds() - self._again
        for key in keys:
            asked = owner.asked.get(key)
            for number, partition in owner.partitions.items():
                row = partition.open.get(key)
                if row is None:
                    continue
                version: int = getattr(row, "version")  # noqa: B009
                if asked is None or asked[0] != version or asked[1] < lately:
                    owner.asked[key] = version, self._seconds()
                    yield number, key, version
                break
