"""A rule as small as a rule can be, and a log played by hand, so that the runtime's own promises are tested alone.

The rule adds numbers to rows; the kind of a record chooses what it does. The stand runs owner and batch with real
codecs and a real local store; it keeps changelog and outputs as lists; `recover` knows what a new process would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rocksdict

from schemas.avro import avro_schema
from schemas.base import Int, Micros, Record
from schemas.changelog import HEADER_KEY, ChangelogHeader, WakeRecord
from schemas.codec import Codecs
from schemas.deadletters import DeadLetter
from schemas.settings import Kafka, Settings
from schemas.topics import DEAD_LETTERS, Topic, TopicClass
from streams.processor import Change, Decided, Decision, End, EnsureTopic, Event, Note, Output, ProcessorSpec, Views
from streams.runtime.batch import run_batch
from streams.runtime.owner import Owner
from streams.runtime.partition import Arrival, ChangelogRecord, Flush, Partition
from streams.runtime.replay import Leaving, Replay, let_leave
from streams.runtime.store import ChangelogStore, drop_row, finished_row, leaving, open_rows, put_row
from streams.runtime.wire import ORIGIN, Delivery, Source, Unreadable, Wire

PARTITIONS = 4
KEEP = 1_000_000
"""Microseconds that a closed row stays."""


class Wish(Record):
    """What the rule is asked: `kind` is one of add, close, end, refuse, nothing, raise, raise_output, timer, inbox."""

    key: str
    kind: str = "add"
    amount: Int = 1


class Sum(Record):
    """The row."""

    version: int
    cause: str
    key: str
    total: int = 0
    state: str = "open"
    due_at: Micros = 0
    closed_at: Micros = 0
    decided_at: Micros = 0
    kind: str = "add"


class Said(Record):
    """The output."""

    key: str
    id: str
    text: str
    now: Micros = 0


ASKED = Topic("asked", Wish, "key", TopicClass.L, input=True)
MORE = Topic("more", Wish, "key", TopicClass.L, input=True)
SAID = Topic("said", Said, "key", TopicClass.E)
SPEC = ProcessorSpec("tally", Sum, inputs=(ASKED, MORE), outputs_to=(SAID, DEAD_LETTERS))


class Tally:
    """The rule."""

    name, row, inputs, outputs_to, views = SPEC.name, Sum, SPEC.inputs, SPEC.outputs_to, ()
    answers = (MORE,)

    def __init__(self) -> None:
        self.indexed: dict[str, Sum] = {}
        self.movable: list[str] = []
        self.left_behind: dict[int, list[str]] = {}

    def step(self, row: Sum | None, event: Event, views: Views) -> Decision[Sum]:
        version = row.version + 1 if row else 1
        base = {"version": version, "cause": event.position, "key": event.key, "decided_at": event.stamp.time}
        total = row.total if row else 0
        if isinstance(event.record, WakeRecord):
            if row is None or row.version != event.record.version or row.state != "open":
                return None
            return Change(Sum(**base, total=total + 100, kind="woken"))
        wish = event.record
        assert isinstance(wish, Wish)
        if wish.kind == "nothing":
            return None
        if wish.kind == "refuse":
            return Note("refused", f"no {wish.amount}", event.stamp.time, event.stamp.seq)
        if wish.kind == "raise":
            raise RuntimeError("the rule fell over")
        if wish.kind == "skip_version":
            return Change(Sum(**base | {"version": version + 1}))
        if wish.kind == "end":
            return End(Sum(**base, total=total, state="ended", kind="end"))
        if wish.kind == "close":
            return Change(Sum(**base, total=total, state="closed", closed_at=event.now, kind="close"))
        due = event.now + wish.amount if wish.kind == "timer" else 0
        return Change(Sum(**base, total=total + wish.amount, due_at=due, kind=wish.kind))

    def prepare(self, record: Record, value: bytes, headers: Any) -> None:
        if isinstance(record, Wish) and record.kind == "raise_early":
            raise RuntimeError("the rule fell over before it began")

    def outputs(self, decided: Decided[Sum], event: Event) -> Iterable[Output | EnsureTopic]:
        if isinstance(decided, Note):
            text = f"{decided.kind}: {decided.error} at {decided.at} as {decided.seq}"
            return [Output(SAID, event.key, Said(key=event.key, id=event.id(0), text=text, now=event.now))]
        row = decided.row
        word = "farewell " if isinstance(decided, End) else ""
        text = f"{word}{row.version}: {row.total} {row.state} at {row.decided_at}"
        said = Output(SAID, event.key, Said(key=event.key, id=event.id(0), text=text, now=event.now))
        if row.kind == "raise_output":
            raise RuntimeError("the outputs fell over")
        if row.kind == "inbox":
            return [EnsureTopic(SAID, f"inbox.{event.key}", 1), said]
        return [said]

    def broken(self, row: Sum, event: Event, error: Exception) -> Change[Sum] | None:
        fields = {"version": row.version + 1, "cause": event.position, "state": "broken", "closed_at": event.now}
        return Change(row.model_copy(update=fields | {"kind": "broken"}))

    def due(self, row: Sum) -> int | None:
        return row.due_at or None

    def expires(self, row: Sum) -> int | None:
        return None if row.state == "open" else row.closed_at + KEEP

    def published(self, row: Sum) -> Iterable[Output]:
        return [Output(SAID, row.key, Said(key=row.key, id="published", text=str(row.total)))]

    def index(self, before: Sum | None, after: Sum | None) -> None:
        if after is not None:
            self.indexed[after.key] = after

    def view_changed(self, topic: Topic, key: str) -> None:
        return None

    def ready(self, now: int, views: Views) -> Iterator[str]:
        return iter(self.movable)

    def stranded(self, now: int, views: Views) -> Iterator[tuple[int, Iterable[str]]]:
        return iter(self.left_behind.items())


class NoViews:
    """The rule looks at nothing."""

    def get(self, topic: Topic, key: str) -> Any:
        return None

    def items(self, topic: Topic) -> dict[str, Any]:
        return {}

    def offsets(self) -> str:
        return "{}"


def codecs() -> Codecs:
    """Codecs of the tally's own records, ids counted from 1."""
    models = {topic.subject: topic.record for topic in (ASKED, MORE, SAID, SPEC.wakes)}
    models |= {DEAD_LETTERS.subject: DeadLetter, SPEC.changelog.subject: Sum, "changelog.header-value": ChangelogHeader}
    ids = {subject: {n: avro_schema(model)} for n, (subject, model) in enumerate(models.items(), 1)}
    return Codecs.build(models, ids, 1_000_000)


@dataclass
class Stand:
    """Owner, batch order and store over a log played by hand; one changelog list per partition."""

    directory: Path
    batch_bytes: int = 900_000
    copy_seconds: float = 20.0
    clock: int = 1_000
    wire: Wire = field(init=False)
    changelog: dict[int, list[Any]] = field(default_factory=dict)
    outputs: list[Any] = field(default_factory=list)
    topics: list[EnsureTopic] = field(default_factory=list)
    flushes: list[Flush] = field(default_factory=list)
    covered: list[Any] = field(default_factory=list)
    waiting: list[Any] = field(default_factory=list)
    refuse_outputs: bool = False
    keep_rows: int = 1_000_000
    leave_per_flush: int = 100

    def __post_init__(self) -> None:
        self.wire = Wire(Settings(kafka=Kafka(partitions=PARTITIONS, topic_prefix="p.")), codecs())
        self.rows = self.wire.codecs.of(SPEC.changelog.subject)
        self.headers = self.wire.codecs.of("changelog.header-value")
        self.databases: dict[int, Any] = {}
        self.tally = Tally()
        self.owner = self._owner()

    def _owner(self) -> Owner:
        self.tally = Tally()

        def finished(number: int, key: str) -> tuple[bytes, int] | None:
            return finished_row(self.database(number), key.encode())

        return Owner(
            self.tally, SPEC.repartition.name, self.wire, self.rows, "me", lambda: self.clock, NoViews(),
            finished, self.batch_bytes, self.copy_seconds,
        )  # fmt: skip

    def database(self, number: int) -> Any:
        if number not in self.databases:
            path = str(self.directory / f"{number}-{len(self.databases)}")
            self.databases[number] = rocksdict.Rdict(path, rocksdict.Options(raw_mode=True))
        return self.databases[number]

    def store(self) -> ChangelogStore:
        """A store that reads changelogs into our databases."""
        store = object.__new__(ChangelogStore)
        store._decode_header = self.headers.decode
        store.replays = {number: Replay(self.headers.decode) for number in range(PARTITIONS)}
        store._db_for_partition = self.database
        return store

    def recover(self, starts: dict[str, int], number: int = 0, rebuilt: bool = False) -> Partition:
        """What a new process does: read the changelog (all of it if `rebuilt`), load the rows, find the tails."""
        self.owner = self._owner()
        if rebuilt:
            self.databases.pop(number, None)
            self.directory = self.directory / "again"
            self.directory.mkdir()
            store = self.store()
            for message in self.changelog.get(number, []):
                store.apply(message)
        stored = self.database(number).get(HEADER_KEY)
        header = self.headers.decode(stored) if stored else None
        partition = Partition.recovered(number, len(self.changelog.get(number, [])), header)
        list(self.owner.load(partition, ((key.decode(), value) for key, value in open_rows(self.database(number)))))
        partition.positioned(starts)
        return partition

    def own_too(self, number: int) -> Partition:
        """One more partition of the same owner, without a past."""
        partition = Partition.recovered(number, 0, None)
        list(self.owner.load(partition, ()))
        partition.positioned({topic.name: 0 for topic in SPEC.reads})
        return partition

    def own(self, number: int = 0) -> Partition:
        """A partition without a past."""
        return self.recover({topic.name: 0 for topic in SPEC.reads}, number)

    async def take(self, *arrivals: Arrival) -> None:
        """Run one batch."""

        def track(handle: Any, waiting: bool) -> None:
            (self.waiting.append if waiting else self.waiting.remove)(handle)

        await run_batch(self.owner, arrivals, self.write, track)

    async def write(self, flush: Flush) -> None:
        """Steps 2 to 5 without a broker."""
        if not flush.covered:
            return
        self.flushes.append(flush)
        let_leave(self.owner, flush, self._leaving, self.keep_rows, self.leave_per_flush)
        for number, part in flush.parts.items():
            partition = self.owner.partitions[number]
            header = self.headers.encode(self.owner.header(partition, part, len(self.flushes)))
            self.append(number, [*part.records, ChangelogRecord(HEADER_KEY, header)])
            partition.next += len(part.records) + 1
            write = rocksdict.WriteBatch(raw_mode=True)
            for key, (value, expires) in part.rows.items():
                put_row(write, key.encode(), value, expires)
            for index_key, key in part.drops:
                drop_row(write, key, index_key)
            write.put(HEADER_KEY, header)
            self.database(number).write(write)
        if not self.refuse_outputs:
            self.outputs += flush.outputs
            self.topics += flush.topics
            self.covered += flush.covered

    def _leaving(self, number: int) -> Leaving:
        return lambda until, limit: leaving(self.database(number), until, limit)

    def append(self, number: int, records: Iterable[ChangelogRecord]) -> None:
        """Records at the end of a changelog."""
        log = self.changelog.setdefault(number, [])
        for each in records:
            log.append(
                SimpleNamespace(
                    partition=number, offset=len(log), key=each.key, value=each.value, headers=dict(each.headers)
                )
            )

    def said(self) -> list[str]:
        """Texts of the outputs so far, in order."""
        codec = self.wire.codecs.of(SAID.subject)
        return [codec.decode(each.value).text for each in self.outputs if "said" in each.topic]

    def letters(self) -> list[DeadLetter]:
        """The dead letters so far."""
        codec = self.wire.codecs.of(DEAD_LETTERS.subject)
        return [codec.decode(each.value) for each in self.outputs if each.topic.endswith(DEAD_LETTERS.name)]

    def row(self, key: str, number: int = 0) -> Any:
        """The row as the table has it, open or finished."""
        partition = self.owner.partitions[number]
        found = finished_row(self.database(number), key.encode())
        return partition.open.get(key) or (self.rows.decode(found[0]) if found else None)

    def header(self, number: int = 0) -> ChangelogHeader:
        """The last header of a changelog."""
        found: ChangelogHeader = self.headers.decode(self.changelog[number][-1].value)
        return found

    def arrival(
        self, offset: int, record: Any, topic: Topic = ASKED, number: int = 0, now: int = 0, origin: str | None = None
    ) -> Arrival:
        """A delivered record; bytes are one that cannot be read."""
        real, now = self.wire.real(topic.name), now or 10_000 + offset
        headers = ((ORIGIN, f"{origin}@5000".encode()),) if origin else ()
        key = b"" if isinstance(record, bytes) else record.key.encode()
        if isinstance(record, bytes):
            value, decoded = record, Unreadable("no record")
        else:
            value, decoded = self.wire.codecs.of(self._subject(topic, record)).encode(record), record
        delivery = Delivery(topic, number, offset, key, value, now, headers, f"{topic.name}.{number}.{offset}")
        if origin:
            return Arrival(delivery, decoded, self.wire.source(delivery, is_copy=True))
        return Arrival(delivery, decoded, Source(f"{real}.{number}.{offset}", real, number, offset, now))

    def _subject(self, topic: Topic, record: Any) -> str:
        return SPEC.wakes.subject if isinstance(record, WakeRecord) else ASKED.subject


def keys_at(number: int, count: int, home: Callable[[str, int], int]) -> list[str]:
    """Keys whose home is this partition."""
    found = (f"k{n}" for n in range(10_000) if home(f"k{n}", PARTITIONS) == number)
    return [next(found) for _ in range(count)]
