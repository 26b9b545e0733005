"""What the owner of a partition keeps of it in memory, and what one flush is going to write.

Both are plain values without I/O: the order in which they are filled and written is in `batch.py`, what a record does to
them in `owner.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappush
from typing import Any, NamedTuple

from schemas.base import Record
from schemas.changelog import ChangelogHeader, InputOffset, NoteRecord, Origin
from streams.processor import Decided, EnsureTopic, Event, Headers, Note, Output
from streams.runtime.wire import Delivery, Encoded, Source, Unreadable

RECORD_ROOM_BYTES = 80
"""Room that a record needs in a batch besides its key, value and headers."""

SPARE_TIMERS = 1000
"""Timers of rows that moved on are looked for only when there are more of them than this."""

HEADER_ROOM_BYTES = 60_000
"""Room kept in a changelog batch for its header row."""


class Arrival(NamedTuple):
    """A delivered record, decoded; `source` is None where its origin cannot be read.

    home, key: its home partition and its key there; prepared: what the processor says of it by itself. All three are filled
    in by the owner, for a batch at a time.
    """

    delivery: Delivery
    record: Record | Unreadable
    source: Source | None
    home: int = -1
    key: str = ""
    prepared: Any = None


class ChangelogRecord(NamedTuple):
    """One record of a changelog batch."""

    key: bytes
    value: bytes | None
    headers: Headers = ()


class Written(NamedTuple):
    """A transition ready for the changelog; `expires` in microseconds, None for an open row."""

    row: Any
    value: bytes
    expires: int | None


Outputs = list[Encoded | EnsureTopic]


class Answer(NamedTuple):
    """What a record came to: at most one transition, at most one note, and what follows from them."""

    written: Written | None
    note: Note | None
    outputs: Outputs


Asked = tuple[Decided[Any], int | None, Event]
"""A decision, when the row after it may leave (microseconds, None while it is open), and the record it was made on."""


class Taken(NamedTuple):
    """A record that was taken: what was decided, while rows and outputs are still to be made of it, or the answer.

    before: the row that it was decided on. finished: by how many there are more rows now that ended and are still kept.
    new: it is not from before the header, so the header is to name it.
    """

    arrival: Arrival
    partition: Partition
    event: Event | None = None
    before: Any = None
    asked: Asked | None = None
    finished: int = 0
    answer: Answer | None = None
    new: bool = True

    @property
    def after(self) -> Any:
        """The row after it, None if it changed none."""
        if self.asked is not None:
            decided = self.asked[0]
            return None if isinstance(decided, Note) else decided.row
        return self.answer.written.row if self.answer is not None and self.answer.written is not None else None


@dataclass(slots=True)
class Partition:
    """One owned partition of a processor.

    next: offset at which our next changelog record is expected. open: open rows by key. inputs: highest offset of each
    input topic whose effects are in the rows. origins: highest origin taken per source partition. tail and notes: the
    inputs and notes of the header found at recovery; what lies at or below the tail never transitions again. left: inputs
    whose tail is still unread. held: newer records that wait for it. seen: last offset taken per topic. read_at: time that
    no unread record of a topic was appended before, microseconds: that of the last one taken, or of a look at which there
    was none. looked: time of that look. timers: heap of (due, key, version). finished: rows finished and still kept.
    look_again: until this time, microseconds, no more of them leave.
    """

    number: int
    next: int
    open: dict[str, Record] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    origins: dict[tuple[str, int], int] = field(default_factory=dict)
    tail: dict[str, int] = field(default_factory=dict)
    notes: dict[tuple[str, int], NoteRecord] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    held: list[Arrival] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    read_at: dict[str, int] = field(default_factory=dict)
    looked: int = 0
    timers: list[tuple[int, str, int]] = field(default_factory=list)
    finished: int = 0
    look_again: int = 0
    homeless: list[Output] = field(default_factory=list)

    @classmethod
    def recovered(cls, number: int, next_offset: int, header: ChangelogHeader | None) -> Partition:
        """State after recovery, rows not yet loaded."""
        found = cls(number, next_offset)
        if header is not None:
            found.inputs = {each.topic: each.offset for each in header.inputs}
            found.tail = dict(found.inputs)
            found.origins = {(each.topic, each.partition): each.offset for each in header.origins}
            found.notes = {(note.topic, note.offset): note for note in header.notes}
            found.finished = header.finished
        return found

    def positioned(self, starts: dict[str, int]) -> None:
        """The offsets at which reading begins are known, so it is known which tails are to be read."""
        self.seen = {topic: offset - 1 for topic, offset in starts.items()}
        self.left = {topic for topic, end in self.tail.items() if self.seen.get(topic, end) < end}

    def look(self, now: int, ends: Mapping[str, int]) -> None:
        """Note what is read to its end: `ends` by topic were asked for after `now`, microseconds."""
        self.looked = now
        for topic, end in ends.items():
            if self.seen.get(topic, -1) + 1 >= end:
                self.read_at[topic] = max(now, self.read_at.get(topic, 0))

    def read_until(self, topics: Iterable[str]) -> int:
        """The time up to which all records of these topics are taken, microseconds."""
        return min(self.read_at.get(topic, 0) for topic in topics)

    def wake_at(self, due: int, key: str, version: int) -> None:
        """Set a row's timer. Those of rows that moved on are thrown out when they are most of the heap.

        A task that ends in a second leaves one for its attempt's whole time limit, five minutes by default: a busy
        coordinator would keep a million of them.
        """
        heappush(self.timers, (due, key, version))
        if len(self.timers) > 2 * len(self.open) + SPARE_TIMERS:
            rows = self.open
            self.timers = [timer for timer in self.timers if getattr(rows.get(timer[1]), "version", None) == timer[2]]
            heapify(self.timers)

    def header(self, base: int, count: int, instance: str, seq: int, notes: list[NoteRecord]) -> ChangelogHeader:
        """The header row for a batch of `count` records expected at `base`."""
        return ChangelogHeader(
            base=base,
            count=count,
            instance=instance,
            seq=seq,
            inputs=[InputOffset(topic=topic, offset=offset) for topic, offset in self.inputs.items()],
            origins=[
                Origin(topic=topic, partition=number, offset=offset)
                for (topic, number), offset in self.origins.items()
            ],
            notes=notes,
            finished=self.finished,
        )


@dataclass(slots=True)
class Part:
    """What a flush writes to one changelog partition, header row not included."""

    records: list[ChangelogRecord] = field(default_factory=list)
    size: int = 0
    rows: dict[str, tuple[bytes, int | None]] = field(default_factory=dict)
    drops: list[tuple[bytes, bytes]] = field(default_factory=list)
    notes: list[NoteRecord] = field(default_factory=list)

    def add(self, record: ChangelogRecord) -> None:
        """Append a record and count its bytes."""
        self.records.append(record)
        self.size += size_of(record)


@dataclass(slots=True)
class Flush:
    """One flush: changelog batches by partition, outputs, topics to ensure, the records that it covers.

    group: records that were taken and are not in it yet. origins: the highest of the group's, by home and source partition.
    keys: of the rows that it, or its group, changes. tail: partitions whose redelivered records it re-emits; their outputs
    must be acked before a newer changelog batch.
    """

    group: list[Taken] = field(default_factory=list)
    origins: dict[tuple[int, str, int], int] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    parts: dict[int, Part] = field(default_factory=dict)
    outputs: list[Encoded] = field(default_factory=list)
    topics: list[EnsureTopic] = field(default_factory=list)
    covered: list[Any] = field(default_factory=list)
    tail: set[int] = field(default_factory=set)

    def follow(self, outputs: Iterable[Encoded | EnsureTopic]) -> None:
        """Add what follows from a record."""
        for output in outputs:
            if isinstance(output, EnsureTopic):
                self.topics.append(output)
            else:
                self.outputs.append(output)

    def part(self, number: int) -> Part:
        """The part of a partition, made on first use."""
        part = self.parts.get(number)
        if part is None:
            part = self.parts[number] = Part()
        return part


def size_of(record: ChangelogRecord) -> int:
    """Bytes that a record takes in a batch, rounded up."""
    size = len(record.key) + len(record.value or b"") + RECORD_ROOM_BYTES
    for name, value in record.headers:
        size += len(name) + len(value) + 4
    return size
