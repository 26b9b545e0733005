"""What records do: the owner of some partitions gives them to the rule and collects what follows.

Here is the heart of the contract: a record outside its home is re-produced and does nothing else; one at or
below the recovered header never transitions again, but emits its outputs once more if it is its row's cause or a listed
note; a second copy does nothing; a record that no rule can take leaves a dead letter and ends its row. No I/O happens here.

Records are taken one by one, each on what the one before left, into a group; rows and outputs are made of the group as a
whole (`rule.py` says why) and put into the flush in the same order, so that a header never names more than its batch holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from schemas.changelog import ChangelogHeader, NoteRecord, WakeRecord
from schemas.codec import Codec
from schemas.partitioning import home
from schemas.topics import TopicClass, wakes_topic
from streams.processor import Change, End, EnsureTopic, Event, Note, Output, Processor, Stamp, Views, filled, tombstone
from streams.runtime.expiry import FINISHED_HEADER, expiry_bytes
from streams.runtime.partition import (
    HEADER_ROOM_BYTES,
    Answer,
    Arrival,
    ChangelogRecord,
    Flush,
    Outputs,
    Part,
    Partition,
    Taken,
    size_of,
)
from streams.runtime.rule import ENDED, Counts, Rule
from streams.runtime.wire import ORIGIN, Encoded, Unreadable, Wire

NOTES_PER_FLUSH = 200
"""Notes of one partition, so that the header row stays small."""

Settled = tuple[Taken, Answer | None]

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
        copy_seconds: float,
    ) -> None:
        """`repartition` names the topic of copies: what was sent home `copy_seconds` before all of them are known read has
        come, as no produce may take so long. `finished` finds the value of a finished row.
        """
        self.processor = processor
        self._copies = repartition
        self._sent_home: dict[int, int] = {}  # by second: the earliest append time of what was sent home in it
        self.reads = (*(topic.name for topic in processor.inputs), repartition, wakes_topic(processor.name).name)
        self.wire = wire
        self.partitions: dict[int, Partition] = {}
        self.asked: dict[str, tuple[int, float]] = {}
        self.counts = Counts()
        self.decisions = 0
        self._row_codec = row_codec
        self._rule = Rule(processor, wire, row_codec, self.counts)
        self.views = views
        self._instance, self._clock, self._finished = instance, clock, finished
        self._batch_bytes, self._copy_seconds = batch_bytes, copy_seconds

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

    def prepare(self, arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
        """Find the home and key of records, and what can be said of each by itself.

        An unreadable one stays where it is, under the key it came with.
        """
        prepare, field = self.processor.prepare, self.processor.inputs[0].key
        for delivery, record, source, *_ in arrivals:
            place, prepared = delivery.partition, None
            if isinstance(record, Unreadable):
                key = (delivery.key or b"").decode(errors="replace")
            elif isinstance(record, WakeRecord):
                key = record.key
            else:
                key = getattr(record, field)
                owned = self.partitions.get(place)
                if delivery.topic.name != self._copies and (owned is None or key not in owned.open):
                    place = home(key, self.wire.partitions)
                if place == delivery.partition:
                    try:
                        prepared = prepare(record, delivery.value or b"", delivery.headers)
                    except Exception as error:
                        prepared = error  # the record's own failure, as if its step had raised it
            yield filled(Arrival, (delivery, record, source, place, key, prepared))

    def read_until(self) -> int:
        """The time up to which every input is read here, microseconds.

        What lies unread may be the repeat of any task that was known when it was appended, and need not lie at home; nor
        is one read that was sent home and has not come. What other coordinators have not read yet is not known here.
        """
        until = min(each.read_until(self.reads) for each in self.partitions.values())
        home_until = min(each.read_at.get(self._copies, 0) for each in self.partitions.values())
        for second in [each for each in self._sent_home if (each + self._copy_seconds) * 1_000_000 <= home_until]:
            del self._sent_home[second]
        return min([until, *self._sent_home.values()])

    # --- records, one by one

    def take(self, flush: Flush, arrival: Arrival) -> bool:
        """One record into the flush's group; False if the flush must be written first, as it changes this key."""
        delivery = arrival.delivery
        partition = self.partitions[delivery.partition]
        if arrival.home != partition.number:
            self._rehome(flush, arrival)
        elif delivery.offset <= partition.tail.get(delivery.topic.name, -1):
            self._repeat(flush, arrival, self._event(arrival))
        elif self._is_copy(flush, arrival):
            self.counts.copies += 1
            flush.group.append(Taken(arrival, partition))
        elif arrival.key in flush.keys:
            return False  # one transition per key and flush, so that a row's cause names all its unproven outputs
        else:
            flush.group.append(self._decided(flush, partition, arrival, self._event(arrival)))
        return True

    def _event(self, arrival: Arrival) -> Event:
        delivery, found, source, _, key, prepared = arrival
        self.decisions += 1
        if source is not None:
            position, now = source.position, source.now
        else:
            real = self.wire.real(delivery.topic.name)
            position, now = f"{real}.{delivery.partition}.{delivery.offset}", delivery.now
        stamp = filled(Stamp, (self._instance, self.decisions, self._clock(), self.views.offsets()))
        topic, partition, offset, raw_key, value, _, headers, _ = delivery
        record = None if isinstance(found, Unreadable) else found
        value = value or b""
        return filled(
            Event, (topic, partition, offset, key, now, position, record, value, headers, stamp, raw_key, prepared)
        )

    def _rehome(self, flush: Flush, arrival: Arrival) -> None:
        """Also when it is redelivered: its copy may not have been acked."""
        delivery, _, source, at_home, key, _ = arrival
        assert source is not None
        headers = (*(pair for pair in delivery.headers if pair[0] != ORIGIN), source.header())
        topic = self.wire.real(self._copies)
        copy = Encoded(topic, at_home, key.encode(), delivery.value, headers)
        partition = self.partitions[delivery.partition]
        flush.group.append(Taken(arrival, partition, answer=Answer(None, None, [copy]), new=False))
        self.counts.rehomed += 1

    def _is_copy(self, flush: Flush, arrival: Arrival) -> bool:
        """Whether a re-produced record was taken before: one from the same place, as far or farther, was."""
        delivery, source = arrival.delivery, arrival.source
        if delivery.topic.name != self._copies or source is None:
            return False
        number, topic, partition, offset, _ = delivery.partition, *source[1:]
        if offset <= self.partitions[number].origins.get((topic, partition), -1):
            return True
        if offset <= flush.origins.get((number, topic, partition), -1):
            return True
        flush.origins[number, topic, partition] = offset
        return False

    def _repeat(self, flush: Flush, arrival: Arrival, event: Event) -> None:
        """A record whose effects are in the rows: say again what followed from it, and nothing else."""
        partition = self.partitions[event.partition]
        note = partition.notes.get((event.topic.name, event.offset))
        row, ended = self.row(partition, event.key)
        outputs: Outputs = []
        if row is not None and row.cause == event.position:
            outputs += self._rule.again(End(row) if ended else Change(row), event)
        if note is not None:
            outputs += self._rule.again(Note(note.kind, note.error, note.at, note.seq), event)
        if isinstance(event.record, WakeRecord):
            self.asked.pop(event.key, None)
        if outputs:
            self.counts.re_emitted += 1
        else:
            self.counts.dropped += 1
        flush.tail.add(partition.number)
        flush.group.append(Taken(arrival, partition, event, answer=Answer(None, None, outputs), new=False))

    def _decided(self, flush: Flush, partition: Partition, arrival: Arrival, event: Event) -> Taken:
        """The rule's decision, which the next record's rests on: the indexes follow it at once."""
        record = arrival.record
        if isinstance(record, Unreadable):
            return Taken(arrival, partition, event, answer=self._rule.unread(record, event))
        if isinstance(record, WakeRecord):
            self.asked.pop(event.key, None)
        row, ended = self.row(partition, event.key)
        if ended:
            row = None  # it has left; what stays of it until the next flush is nothing that a rule may see
        try:
            if isinstance(event.prepared, Exception):
                raise event.prepared
            asked = self._rule.decide(row, event, self.views)
        except Exception as error:
            return self._broken(flush, Taken(arrival, partition, event, row), error)
        decided = asked[0] if asked is not None else None
        if asked is None or decided is None or isinstance(decided, Note):
            return Taken(arrival, partition, event, row, asked)
        flush.keys.add(event.key)
        finished = self._index(partition, event.key, row, decided.row, asked[1]) - ended
        return filled(Taken, (arrival, partition, event, row, asked, finished, None, True))

    def _broken(self, flush: Flush, taken: Taken, error: Exception) -> Taken:
        """What is left of a record on which the rule raised."""
        partition, event, row = taken.partition, taken.event, taken.before
        assert event is not None
        answer = self._rule.broken(row, event, error)
        finished = 0
        if answer.written is not None:
            flush.keys.add(event.key)
            finished = self._index(partition, event.key, row, answer.written.row, answer.written.expires)
        return Taken(taken.arrival, partition, event, row, None, finished, answer)

    def _index(self, partition: Partition, key: str, before: Any, after: Any, expires: int | None) -> int:
        """Let the indexes follow a row; 1 if it has finished with this, else 0."""
        self.processor.index(before, after)
        if expires is None:
            partition.open[key] = after
            self._remember_due(partition, key, after)
            return 0
        return int(partition.open.pop(key, None) is not None or before is None)

    def _remember_due(self, partition: Partition, key: str, row: Any) -> None:
        due = self.processor.due(row)
        if due is not None:
            partition.wake_at(due, key, row.version)

    # --- and as a group

    def settle(self, flush: Flush) -> tuple[list[Settled], list[Arrival]]:
        """The flush's group with its answers, to be kept; and records to be taken once more.

        Those are all after one that broke, as they were decided on what that one did.
        """
        group, flush.group = flush.group, []
        flush.origins.clear()
        try:
            answers = iter(self._rule.answers([taken.asked for taken in group if taken.asked is not None]))
        except Exception:
            return self._settle_singly(flush, group)
        return [(taken, taken.answer if taken.asked is None else next(answers)) for taken in group], []

    def _settle_singly(self, flush: Flush, group: list[Taken]) -> tuple[list[Settled], list[Arrival]]:
        """The same up to the one whose row or outputs cannot be made."""
        settled: list[Settled] = []
        for place, taken in enumerate(group):
            answer = taken.answer
            if taken.asked is not None:
                try:
                    (answer,) = self._rule.answers([taken.asked])
                except Exception as error:
                    for undone in reversed(group[place:]):
                        self._undo(flush, undone)
                    broken = self._broken(flush, taken, error)
                    return [*settled, (broken, broken.answer)], [each.arrival for each in group[place + 1 :]]
            settled.append((taken, answer))
        return settled, []

    def _undo(self, flush: Flush, taken: Taken) -> None:
        """The indexes as they were before a record was taken; only the turns of a pool's agents have moved on."""
        partition, event, before, after = taken.partition, taken.event, taken.before, taken.after
        if event is None or after is None:
            return
        self.processor.index(after, before)
        flush.keys.discard(event.key)
        if before is None or self.processor.expires(before) is not None:
            partition.open.pop(event.key, None)
        else:
            partition.open[event.key] = before
            self._remember_due(partition, event.key, before)

    def keep(self, flush: Flush, settled: list[Settled]) -> list[Settled]:
        """Put settled records into the flush, in their order; those that do not fit any more are returned."""
        for place, (taken, answer) in enumerate(settled):
            if not self._keep(flush, taken, answer):
                return settled[place:]
        return []

    def _keep(self, flush: Flush, taken: Taken, answer: Answer | None) -> bool:
        delivery, partition, event = taken.arrival.delivery, taken.partition, taken.event
        name, offset = delivery.topic.name, delivery.offset
        if offset <= partition.seen.get(name, -1):
            raise AssertionError(f"{name}.{partition.number}: {offset} came after {partition.seen[name]}")
        if answer is not None:
            if event is not None and not self._put(flush, partition, event, answer):
                return False
            flush.follow(answer.outputs)
        if taken.new:
            source = taken.arrival.source
            if name == self._copies and source is not None:
                place = source.topic, source.partition
                partition.origins[place] = max(source.offset, partition.origins.get(place, -1))
            partition.inputs[name] = offset
            partition.finished = max(0, partition.finished + taken.finished)
            self.counts.stepped += event is not None
        flush.covered.append(delivery.handle)
        partition.seen[name] = offset
        partition.read_at[name] = delivery.now
        if taken.arrival.home != partition.number and taken.arrival.source is not None:
            second = self._clock() // 1_000_000
            self._sent_home[second] = min(taken.arrival.source.now, self._sent_home.get(second, 1 << 62))
        return True

    def _put(self, flush: Flush, partition: Partition, event: Event, answer: Answer) -> bool:
        """Row and note into the partition's batch; False if they do not fit any more."""
        written, note = answer.written, answer.note
        if written is None and note is None:
            return True
        part = flush.part(partition.number)
        if note is not None and len(part.notes) >= NOTES_PER_FLUSH:
            return False
        if written is not None:
            headers = () if written.expires is None else ((FINISHED_HEADER, expiry_bytes(written.expires)),)
            record = filled(ChangelogRecord, (event.key.encode(), written.value, headers))
            if part.records and part.size + size_of(record) + HEADER_ROOM_BYTES > self._batch_bytes:
                return False
            part.add(record)
            part.rows[event.key] = written.value, written.expires
            flush.keys.add(event.key)
        if note is not None:
            part.notes.append(
                NoteRecord(
                    topic=event.topic.name, offset=event.offset, position=event.position,
                    kind=note.kind, error=note.error, at=note.at, seq=note.seq,
                )
            )  # fmt: skip
        return True

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
            if key.decode() not in part.rows and key.decode() not in partition.open:
                part.add(ChangelogRecord(key, None))
                part.drops.append((index_key, key))
                partition.finished = max(0, partition.finished - 1)

    def header(self, partition: Partition, part: Part, seq: int) -> ChangelogHeader:
        """The header row of this flush for a partition."""
        return partition.header(partition.next, len(part.records), self._instance, seq, part.notes)
