"""What one record does: the owner of some partitions gives it to the rule and collects what follows.

Here is the heart of the contract: a record outside its home is re-produced and does nothing else; one at or
below the recovered header never transitions again, but emits its outputs once more if it is its row's cause or a listed
note; a second copy does nothing; a record that no rule can take leaves a dead letter and ends its row. No I/O happens here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from schemas.changelog import ChangelogHeader, NoteRecord, WakeRecord
from schemas.codec import Codec
from schemas.partitioning import home
from schemas.topics import TopicClass
from streams.processor import Change, End, EnsureTopic, Event, Note, Output, Processor, Stamp, Views, tombstone
from streams.runtime.expiry import FINISHED_HEADER, expiry_bytes
from streams.runtime.partition import (
    HEADER_ROOM_BYTES,
    Arrival,
    ChangelogRecord,
    Flush,
    Part,
    Partition,
    size_of,
)
from streams.runtime.rule import ENDED, Answer, Counts, Rule
from streams.runtime.wire import ORIGIN, Encoded, Unreadable, Wire

NOTES_PER_FLUSH = 200
"""Notes of one partition, so that the header row stays small."""

Lookup = Callable[[int, str], tuple[bytes, int] | None]


class Owner:
    """The rule's side of the runtime for the partitions that this process owns; made anew at each assignment."""

    def __init__(
        self,
        processor: Processor[Any],
        repartition: str,
        wire: Wire,
        row_codec: Codec[Any],
        instance: str,
        clock: Callable[[], int],
        views: Views,
        finished: Lookup,
        batch_bytes: int,
    ) -> None:
        """`repartition` names the processor's topic of copies; `finished` finds the value of a finished row."""
        self.processor = processor
        self._copies = repartition
        self.wire = wire
        self.partitions: dict[int, Partition] = {}
        self.asked: dict[str, tuple[int, float]] = {}
        self.counts = Counts()
        self.decisions = 0
        self._row_codec = row_codec
        self._rule = Rule(processor, wire, row_codec, self.counts)
        self.views = views
        self._instance, self._clock, self._finished = instance, clock, finished
        self._batch_bytes = batch_bytes

    # --- rows

    def load(self, partition: Partition, rows: Iterable[tuple[str, bytes]]) -> Iterator[None]:
        """Take the open rows of a recovered partition into the indexes; yields now and then so that others may run."""
        for count, (key, value) in enumerate(rows):
            row = self._row_codec.decode(value)
            partition.open[key] = row
            self.processor.index(None, row)
            self._remember_due(partition, key, row)
            if not count % 500:
                yield
        partition.homeless = list(self._homeless(partition))
        self.partitions[partition.number] = partition

    def row(self, partition: Partition, key: str) -> tuple[Any, bool]:
        """The row as the flushes before left it, and whether it ended: then it is here for its outputs alone."""
        row = partition.open.get(key)
        if row is not None:
            return row, False
        found = self._finished(partition.number, key)
        return (None, False) if found is None else (self._row_codec.decode(found[0]), found[1] == ENDED)

    def home_of(self, arrival: Arrival) -> tuple[int, str]:
        """Home partition and key of a record; an unreadable one stays where it is, under the key it came with."""
        delivery, record, _ = arrival
        if isinstance(record, Unreadable):
            return delivery.partition, (delivery.key or b"").decode(errors="replace")
        if isinstance(record, WakeRecord):
            return delivery.partition, record.key
        topic = self.processor.inputs[0]
        key: str = getattr(record, topic.key)
        if delivery.topic.name == self._copies or key in self.partitions[delivery.partition].open:
            return delivery.partition, key
        return home(key, self.wire.partitions), key

    # --- one record

    def take(self, flush: Flush, arrival: Arrival) -> bool:
        """One record into the flush; False if the flush must be written first (it is full, or has this key)."""
        delivery = arrival.delivery
        partition = self.partitions[delivery.partition]
        at_home, key = self.home_of(arrival)
        if at_home != partition.number:
            self._rehome(flush, arrival, at_home, key)
        else:
            event = self._event(arrival, key)
            if delivery.offset <= partition.tail.get(delivery.topic.name, -1):
                self._repeat(flush, partition, event)
            elif self._is_copy(partition, arrival):
                self.counts.copies += 1
                partition.inputs[delivery.topic.name] = delivery.offset
            elif not self._decide(flush, partition, event, arrival):
                return False
        flush.covered.append(delivery.handle)
        partition.seen[delivery.topic.name] = delivery.offset
        partition.read_at[delivery.topic.name] = delivery.now
        return True

    def _event(self, arrival: Arrival, key: str) -> Event:
        delivery, record, source = arrival
        self.decisions += 1
        if source is not None:
            position, now = source.position, source.now
        else:
            topic = self.wire.real(delivery.topic.name)
            position, now = f"{topic}.{delivery.partition}.{delivery.offset}", delivery.now
        return Event(
            delivery.topic,
            delivery.partition,
            delivery.offset,
            key,
            now,
            position,
            None if isinstance(record, Unreadable) else record,
            delivery.value or b"",
            delivery.headers,
            Stamp(self._instance, self.decisions, self._clock(), self.views.offsets()),
            delivery.key,
        )

    def _rehome(self, flush: Flush, arrival: Arrival, at_home: int, key: str) -> None:
        """Also when it is redelivered: its copy may not have been acked."""
        delivery, _, source = arrival
        assert source is not None
        headers = (*(pair for pair in delivery.headers if pair[0] != ORIGIN), source.header())
        topic = self.wire.real(self._copies)
        flush.outputs.append(Encoded(topic, at_home, key.encode(), delivery.value, headers))
        self.counts.rehomed += 1

    def _is_copy(self, partition: Partition, arrival: Arrival) -> bool:
        """Whether a re-produced record was taken before: one from the same place, as far or farther, was."""
        source = arrival.source
        if arrival.delivery.topic.name != self._copies or source is None:
            return False
        return source.offset <= partition.origins.get((source.topic, source.partition), -1)

    def _repeat(self, flush: Flush, partition: Partition, event: Event) -> None:
        """A record whose effects are in the rows: say again what followed from it, and nothing else."""
        note = partition.notes.get((event.topic.name, event.offset))
        row, ended = self.row(partition, event.key)
        emitted = False
        if row is not None and row.cause == event.position:
            flush.follow(self._rule.again(End(row) if ended else Change(row), event))
            emitted = True
        if note is not None:
            flush.follow(self._rule.again(Note(note.kind, note.error, note.at, note.seq), event))
            emitted = True
        if isinstance(event.record, WakeRecord):
            self.asked.pop(event.key, None)
        if emitted:
            self.counts.re_emitted += 1
        else:
            self.counts.dropped += 1
        flush.tail.add(partition.number)

    def _decide(self, flush: Flush, partition: Partition, event: Event, arrival: Arrival) -> bool:
        part = flush.parts.get(partition.number)
        if part and (event.key in part.rows or len(part.notes) >= NOTES_PER_FLUSH):
            return False  # one transition per key and flush, so that a row's cause names all its unproven outputs
        row, ended = self.row(partition, event.key) if event.record is not None else (None, False)
        if ended:
            row = None  # it has left; what stays of it until the next flush is nothing that a rule may see
        answer = self._rule.ask(row, event, arrival.record, self.views)
        if not self._keep(flush, partition, event, row, answer):
            return False
        if ended and answer.written is not None:
            partition.finished = max(0, partition.finished - 1)  # its key begins anew, so no tombstone counts it
        if isinstance(event.record, WakeRecord):
            self.asked.pop(event.key, None)
        source = arrival.source
        if event.topic.name == self._copies and source is not None:
            partition.origins[source.topic, source.partition] = source.offset
        partition.inputs[event.topic.name] = event.offset
        self.counts.stepped += 1
        return True

    # --- what is kept of a decision

    def _keep(self, flush: Flush, partition: Partition, event: Event, before: Any, answer: Answer) -> bool:
        """Put an answer into the flush; False if its row does not fit any more."""
        written, note = answer.written, answer.note
        if written is not None:
            headers = () if written.expires is None else ((FINISHED_HEADER, expiry_bytes(written.expires)),)
            record = ChangelogRecord(event.key.encode(), written.value, headers)
            part = flush.part(partition.number)
            if part.records and part.size + size_of(record) + HEADER_ROOM_BYTES > self._batch_bytes:
                return False
            part.add(record)
            part.rows[event.key] = written.value, written.expires
            self._index(partition, event.key, before, written.row, written.expires)
        if note is not None:
            flush.part(partition.number).notes.append(
                NoteRecord(
                    topic=event.topic.name, offset=event.offset, position=event.position,
                    kind=note.kind, error=note.error, at=note.at, seq=note.seq,
                )
            )  # fmt: skip
        flush.follow(answer.outputs)
        return True

    def _index(self, partition: Partition, key: str, before: Any, after: Any, expires: int | None) -> None:
        self.processor.index(before, after)
        if expires is None:
            partition.open[key] = after
            self._remember_due(partition, key, after)
        elif partition.open.pop(key, None) is not None or before is None:
            partition.finished += 1

    def _remember_due(self, partition: Partition, key: str, row: Any) -> None:
        due = self.processor.due(row)
        if due is not None:
            partition.wake_at(due, key, row.version)

    # --- at a claim, and at a flush

    def republish(self, flush: Flush, partition: Partition) -> None:
        """The compacted records that stand for the partition's rows, the topics they speak of, and tombstones for the rest.

        Rows are the truth: a record of a key without a row was published late by an owner that was overtaken.
        """
        for key, row in partition.open.items():
            flush.follow(
                each if isinstance(each, EnsureTopic) else self.wire.encode(each, key, partition.number)
                for each in self.processor.published(row)
            )
        flush.follow(self.wire.encode(each, each.key, partition.number) for each in partition.homeless)

    def _homeless(self, partition: Partition) -> Iterator[Output]:
        """Tombstones for keys of this partition that the views know and that have no row.

        They are decided before the claim: if that lies in its place, nobody had given these keys a row by then.
        """
        for topic in self.processor.outputs_to:
            if topic.retention is TopicClass.COMPACT:
                for key, record in self.views.items(topic).items():
                    if key not in partition.open and home(key, self.wire.partitions) == partition.number:
                        yield tombstone(topic, key, record.occurred_at)

    def drop(self, part: Part, partition: Partition, leaving: Iterable[tuple[bytes, bytes]]) -> None:
        """Let finished rows leave with this flush, each with its tombstone; not those that the flush writes."""
        for index_key, key in leaving:
            if key.decode() in part.rows:
                continue
            part.add(ChangelogRecord(key, None))
            part.drops.append((index_key, key))
            partition.finished = max(0, partition.finished - 1)

    def header(self, partition: Partition, part: Part, seq: int) -> ChangelogHeader:
        """The header row of this flush for a partition."""
        return partition.header(partition.next, len(part.records), self._instance, seq, part.notes)
