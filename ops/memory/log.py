"""Topics in memory, as far as our runtimes lean on Kafka: offsets, append times, atomic batches, compaction, commits.

A runtime is only as well tested as the log below it is like Kafka's. So a batch lies together or not at all, append times
have a step of a millisecond, compaction leaves gaps in the offsets and never moves a record, and a topic has the partition
count that it was made with. What is not here (replicas, sessions, leaders) is tested on real brokers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ops.memory.clock import VirtualClock
from schemas.errors import OperatorError

Headers = tuple[tuple[str, bytes], ...]
New = tuple[bytes | None, bytes | None, Headers]
"""(key, value, headers) of a record to append; a value of None is a tombstone."""


class Stored(NamedTuple):
    """One record as it lies in a partition; `timestamp` is its append time in microseconds, whole milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class _Partition:
    """Records by rising offset, with gaps where compaction was; `end` is the next offset, whatever is left."""

    __slots__ = ("end", "records", "start")

    def __init__(self) -> None:
        self.records: list[Stored] = []
        self.start = self.end = 0


class MemoryLog:
    """All topics and all groups' commits of one installation. Single-threaded, like everything that uses it."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.appended = 0
        """Grows with every append, so that whoever found nothing to read need not look again before it did."""
        self._topics: dict[str, tuple[_Partition, ...]] = {}
        self._compacted: set[str] = set()
        self._commits: dict[tuple[str, str, int], tuple[int, str]] = {}

    # --- topics

    def create(self, topic: str, partitions: int, *, compacted: bool = False) -> None:
        """Make a topic; a second time does nothing. Raises OperatorError for another partition count or policy."""
        known = self._topics.get(topic)
        if known is None:
            if partitions < 1:
                raise OperatorError(f"topic {topic}: {partitions} partitions", hint="a topic has at least one")
            self._topics[topic] = tuple(_Partition() for _ in range(partitions))
            if compacted:
                self._compacted.add(topic)
        elif len(known) != partitions or (topic in self._compacted) is not compacted:
            had = f"{len(known)} partitions{', compacted' if topic in self._compacted else ''}"
            raise OperatorError(f"topic {topic} is there with {had}", hint="create it alike, or under another name")

    def topics(self) -> Mapping[str, int]:
        """Partition counts by real name."""
        return MappingProxyType({name: len(partitions) for name, partitions in self._topics.items()})

    # --- records

    def append(self, topic: str, partition: int, records: Sequence[New]) -> int:
        """Append one batch, whole; returns the offset of its first record, or the end for an empty one.

        Raises OperatorError for a topic or partition that is not there; a batch for a compacted topic needs keys, as
        Kafka's does: ValueError.
        """
        place = self._place(topic, partition)
        base, now = place.end, self.clock.now // 1000 * 1000
        if topic in self._compacted and any(key is None for key, _, _ in records):
            raise ValueError(f"{topic} is compacted, so its records need keys")
        place.records += [
            Stored(base + n, now, key, value, headers) for n, (key, value, headers) in enumerate(records)
        ]
        place.end += len(records)
        self.appended += 1
        return base

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Stored]:
        """At most `limit` records from `offset` on, gaps passed over. Raises OperatorError as `append` does."""
        records = self._place(topic, partition).records
        if not records or offset > records[-1].offset:
            return []
        first = max(0, offset - records[0].offset)  # where it lies if there is no gap
        if first >= len(records) or records[first].offset != offset:
            first = bisect_left(records, offset, key=lambda stored: stored.offset)
        return records[first : first + limit]

    def start(self, topic: str, partition: int) -> int:
        """The first offset that can be asked for."""
        return self._place(topic, partition).start

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record will get."""
        return self._place(topic, partition).end

    def compact(self, topic: str, lag: int = 0) -> None:
        """Drop every record that is older than `lag` microseconds and whose key has a later one of that age.

        Tombstones stay, as they do for a day in Kafka.
        """
        if topic not in self._compacted:
            raise OperatorError(f"topic {topic} is not compacted", hint="create it with compacted=True")
        until = self.clock.now - lag
        for place in self._topics[topic]:
            old = [stored for stored in place.records if stored.timestamp <= until]
            last = {stored.key: stored.offset for stored in old}
            place.records = [each for each in old if last[each.key] == each.offset] + place.records[len(old) :]

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Drop the records before an offset, as retention does."""
        place = self._place(topic, partition)
        place.start = max(place.start, min(before, place.end))
        place.records = [stored for stored in place.records if stored.offset >= place.start]

    # --- commits

    def commit(self, group: str, topic: str, partition: int, offset: int, metadata: str = "") -> None:
        """Remember where a group goes on reading."""
        self._place(topic, partition)
        self._commits[group, topic, partition] = offset, metadata

    def committed(self, group: str, topic: str, partition: int) -> tuple[int, str] | None:
        """(next offset, metadata) of the group's last commit; None without one."""
        return self._commits.get((group, topic, partition))

    def commits(self) -> Mapping[tuple[str, str, int], tuple[int, str]]:
        """Every commit, by (group, topic, partition)."""
        return MappingProxyType(self._commits)

    def _place(self, topic: str, partition: int) -> _Partition:
        try:
            partitions = self._topics[topic]
        except KeyError:
            raise OperatorError(f"there is no topic {topic}", hint="create it first") from None
        if not 0 <= partition < len(partitions):
            raise OperatorError(f"{topic} has no partition {partition}", hint=f"it has {len(partitions)}, from 0 on")
        return partitions[partition]
