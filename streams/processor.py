"""The contract between a rule and whatever runs it: step decides, outputs follow, nothing happens but by a record.

A processor is a deterministic state machine over keyed rows. It does no I/O, reads no clock, no environment and no random
source, and never names Kafka or Faust; the runtime gives it events one by one and keeps what it decides. A decision is
durable before anyone acts on it, and what follows from it can be made again, byte for byte, from the row and the record.

The values that are made for each record are named tuples: a frozen dataclass takes four times as long to make.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from schemas.base import Record
from schemas.topics import Topic, TopicClass, repartition_topic, wakes_topic

NOTE_ERROR_BYTES = 256
"""Room for a note's text in the header row."""

RowT = TypeVar("RowT", bound=Record)

filled = tuple.__new__
"""A named tuple with all its fields given, `filled(Event, (...))`: half the time of its own constructor. For what is made
of each record; elsewhere the constructor, which knows names and defaults."""

Headers = tuple[tuple[str, bytes], ...]


class Stamp(NamedTuple):
    """Who is deciding: process, number of the decision in it, its clock in microseconds, offsets the views had reached.

    `step` may copy it into its row or note; that is the only way in which it reaches an output.
    """

    instance: str
    seq: int
    time: int
    views: str


class Event(NamedTuple):
    """One record as a rule sees it.

    topic, partition, offset: where it was delivered. position: `<topic>.<partition>.<offset>` of its origin, under the
    topic's real name; causes and ids are made of it. now: append time at its origin, microseconds. record: the decoded
    value, None if it could not be decoded. value, headers, raw_key: as they lay in the log.
    prepared: what the processor's `prepare` said of it.
    """

    topic: Topic
    partition: int
    offset: int
    key: str
    now: int
    position: str
    record: Record | None
    value: bytes
    headers: Headers
    stamp: Stamp
    raw_key: bytes | None = None
    prepared: Any = None

    def id(self, n: int) -> str:
        """Id of the n-th thing that follows from this record; the same at every re-run."""
        return f"{self.position}.{n}"


class Change(NamedTuple, Generic[RowT]):
    """A transition: the row after it, with `version` one higher and `cause` the event's position."""

    row: RowT


class End(NamedTuple, Generic[RowT]):
    """A last transition: the row stays until its outputs are acked, then it leaves the table."""

    row: RowT


class Note(NamedTuple):
    """Something to say without a transition: refused, late, progress, poison. `error` is cut to 256 bytes.

    `at` (microseconds) and `seq` are those of the stamp, kept so that a re-emission carries the same.
    """

    kind: str
    error: str = ""
    at: int = 0
    seq: int = 0


class Output(NamedTuple):
    """A record for a topic.

    name: the real topic of a family without prefix (an inbox), or a user's topic (`reply_to`). partition: None means by
    key. record None is a tombstone. fallback: what to write instead when a user's topic refuses for good.
    """

    topic: Topic
    key: str
    record: Record | None
    name: str | None = None
    partition: int | None = None
    headers: Headers = ()
    fallback: Output | None = None


REMOVED_AT = "removed-at"
"""Header of a tombstone on a compacted topic: when its key was removed, microseconds as text."""


def tombstone(topic: Topic, key: str, at: int) -> Output:
    """Removes a key that was alive until `at`, microseconds, and not one that has begun anew since."""
    return Output(topic, key, None, headers=((REMOVED_AT, str(at).encode()),))


class EnsureTopic(NamedTuple):
    """Asks for a topic of a family to exist before the batch's records are written; idempotent."""

    topic: Topic
    name: str
    partitions: int


class Views(Protocol):
    """Read-only copies of compacted topics, each read to its end before the first step."""

    def get(self, topic: Topic, key: str) -> Any:
        """The record of a key, or None."""

    def items(self, topic: Topic) -> Mapping[str, Any]:
        """All records by key."""

    def offsets(self) -> str:
        """The offsets reached, as JSON text by topic."""


@dataclass(frozen=True, slots=True)
class Share:
    """The part of the partitions that this process owns; limits are scaled by it."""

    owned: int
    total: int

    def of(self, limit: int) -> int:
        """A limit's part, at least 1."""
        return max(1, limit * self.owned // self.total) if self.owned < self.total else limit


Decision = Change[RowT] | End[RowT] | Note | None
Decided = Change[RowT] | End[RowT] | Note


class Processor(Protocol[RowT]):
    """A rule. A new instance is made at each assignment; its indexes are filled by `index` from the rows it owns."""

    name: str
    row: type[RowT]
    inputs: tuple[Topic, ...]
    outputs_to: tuple[Topic, ...]
    views: tuple[Topic, ...]
    answers: tuple[Topic, ...]
    """Those inputs that may hold what a stranded row waits for, unread."""

    def prepare(self, record: Record, value: bytes, headers: Headers) -> Any:
        """What can be said of a record by itself, for `step` to find in its event; None if that is nothing.

        Asked for many records in a row before the first is stepped, which is cheaper. Raising is allowed and means `broken`.
        """

    def step(self, row: RowT | None, event: Event, views: Views) -> Decision[RowT]:
        """The decision. Raising is allowed and means `broken`."""

    def outputs(self, decided: Decided[RowT], event: Event) -> Iterable[Output | EnsureTopic]:
        """What follows; a function of its arguments alone."""

    def broken(self, row: RowT, event: Event, error: Exception) -> Change[RowT] | None:
        """A rule that raised must end its open row; None where rows have no end."""

    def due(self, row: RowT) -> int | None:
        """When this row next wants to be woken, microseconds; derived from the row."""

    def expires(self, row: RowT) -> int | None:
        """When a finished row may leave the table, microseconds; None while it is open."""

    def published(self, row: RowT) -> Iterable[Output | EnsureTopic]:
        """The compacted records that stand for this row, and the topics they speak of; re-published with each claim."""

    def index(self, before: RowT | None, after: RowT | None) -> None:
        """Keep the in-memory indexes (load, queues); called after step and outputs succeeded."""

    def view_changed(self, topic: Topic, key: str) -> None:
        """A view has another record for this key."""

    def ready(self, now: int, views: Views) -> Iterator[str]:
        """Keys of rows that could move now, in order, at most one per free slot. Asked again and again."""

    def stranded(self, now: int, views: Views) -> Iterator[tuple[int, Iterable[str]]]:
        """Keys of rows that could move once `answers` are read up to a time, microseconds, with that time.

        They lost what they waited for; what it still said before then comes first. Asked again and again, like `ready`.
        """


@dataclass(frozen=True, slots=True)
class ProcessorSpec:
    """A processor as the wiring sees it: its table's name and row, what it reads, may write, and looks at.

    `app` is the id of the stream application that runs it; changelogs are named `<app>-<table>-changelog`.
    """

    name: str
    row: type[Record]
    inputs: tuple[Topic, ...]
    outputs_to: tuple[Topic, ...]
    views: tuple[Topic, ...] = ()
    app: str = "coordinator"

    @property
    def wakes(self) -> Topic:
        """Where its rows' timers are appended when due."""
        return wakes_topic(self.name)

    @property
    def repartition(self) -> Topic:
        """Where records found outside their home are re-produced."""
        return repartition_topic(self.name)

    @property
    def changelog(self) -> Topic:
        """The compacted topic that holds its rows."""
        name = f"{self.app}-{self.name}-changelog"
        return Topic(name, self.row, "key", TopicClass.CHANGELOG, wraps=True, subject_name=f"{self.name}.row")

    @property
    def reads(self) -> tuple[Topic, ...]:
        """All topics that feed it."""
        return (*self.inputs, self.repartition, self.wakes)
