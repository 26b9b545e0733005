"""One processor in memory: recovery and claim, the single-writer loop, and the five steps of a flush, point after point.

The order is that of `kafka.py`, and whatever decides anything is the same code; what differs is that each wait is a point at
which the process can be stopped, killed or overtaken, and that what was sent may land late. Whoever changes the order there
changes it here; the simulation finds what one of them forgot.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from schemas.changelog import HEADER_KEY
from streams.processor import EnsureTopic, Processor, ProcessorSpec, Share
from streams.runtime.arrivals import Arrivals
from streams.runtime.batch import run_batch
from streams.runtime.exits import EXIT_BUG, EXIT_FENCED
from streams.runtime.expiry import expiry_of
from streams.runtime.history import History
from streams.runtime.memory_log import New, Sending, landed
from streams.runtime.memory_process import Process
from streams.runtime.memory_strands import Point, Strand
from streams.runtime.memory_table import MemoryTable
from streams.runtime.owner import Owner
from streams.runtime.partition import Arrival, Flush, Part, Partition
from streams.runtime.replay import Leaving, Replay, claims, let_leave
from streams.runtime.wakes import Wake, Wakes, wake_records
from streams.runtime.wire import Delivery, Encoded

Make = Callable[[Share], Processor[Any]]
Place = tuple[str, int]
MICROS = 1_000_000
NEVER = 1 << 62
CHUNK = 500
"""Changelog records read between two points of a recovery."""


class MemoryRunner:
    """One processor of a coordinator in memory. Rules of the contract are methods, so that a test can switch one off."""

    def __init__(self, spec: ProcessorSpec, make: Make, process: Process, rng: random.Random | None) -> None:
        """`rng`: what is fetched together, and in which order, is drawn; without it all that there is."""
        self.spec, self._make, self.process, self._rng = spec, make, process, rng
        wire = process.wire
        self.owner: Owner | None = None
        self.changelog = wire.real(spec.changelog.name)
        self.topics = {wire.real(topic.name): topic for topic in spec.reads}
        self._names = tuple(topic.name for topic in spec.reads)
        self._arrivals = Arrivals(spec, wire, process)
        self._row_codec = wire.codecs.of(spec.changelog.subject)
        self._header_codec = wire.codecs.of("changelog.header-value")
        self._wake_codec = wire.codecs.of(spec.wakes.subject)
        self.positions: dict[Place, int] = {}
        self.unacked: dict[Place, set[int]] = {}
        self._waiting: set[tuple[str, int, int]] = set()
        self._seq = 0
        self._emitting: Strand | None = None
        self._round: Strand | None = None
        self._look_at = NEVER
        self.slow: set[str] = set()  # topics of which nothing comes for now, as from a broker that is slow
        self.look = False
        self.moved = False
        self._read_up_to = -1

    # --- assignments

    async def own(self, numbers: Iterable[int]) -> None:
        """Recover these partitions, claim them and say what stands for their rows."""
        process, numbers = self.process, sorted(numbers)
        ahead = {number: process.log.end(self.changelog, number) for number in numbers}
        share = Share(len(numbers), process.settings.kafka.partitions)
        owner = self.new_owner(share)
        for number in numbers:
            replay = await self._replayed(number, ahead[number])
            partition = self._load(owner, number, ahead[number])
            await self.claim(owner, partition, replay)
        flush = Flush()
        for partition in owner.partitions.values():
            owner.republish(flush, partition)
        await self._ensure(flush.topics)
        await landed(self.send(flush.outputs), "republished")
        await Point("recovered")
        self.owner, self.look = owner, True
        self._begin(owner)

    def new_owner(self, share: Share) -> Owner:
        """An owner of nothing yet, with a processor that knows the views."""
        process = self.process
        processor = self._make(share)
        for topic in self.spec.views:
            for key in process.views.items(topic):
                processor.view_changed(topic, key)
        limits = process.settings.coordinator
        return self.owner_class(
            processor, self.spec.repartition.name, process.wire, self._row_codec, process.instance,
            process.clock, process.views, self._finished, limits.batch_bytes, limits.copy_seconds,
        )  # fmt: skip

    owner_class: type[Owner] = Owner
    history_class: type[History] = History

    def _finished(self, number: int, key: str) -> tuple[bytes, int] | None:
        return self._table(number).finished.get(key.encode())

    def _table(self, number: int) -> MemoryTable:
        return self.process.table(self.spec.name, number)

    async def _replayed(self, number: int, ahead: int) -> Replay:
        """Read the changelog into the table, from where the table is to the end that it had."""
        table, log = self._table(number), self.process.log
        replay = Replay(self._header_codec.decode)
        replay.history = self.history_class(self._header_codec.decode)
        at = max(table.offset + 1, log.start(self.changelog, number))
        while at < ahead:
            found = log.read(self.changelog, number, at, min(CHUNK, ahead - at))
            found = [each for each in found if each.offset < ahead]
            for message in found:
                self._replay(table, replay, message)
            at = found[-1].offset + 1 if found else ahead
            await Point("recovering")
        replay.lose(replay.history.rest())
        return replay

    def _replay(self, table: MemoryTable, replay: Replay, message: Any) -> None:
        closed = replay.history.take(message)
        if closed is None:
            return
        offset = replay.close(closed)
        if closed.header is not None:
            table.header = closed.last.value
        for row in closed.rows:
            if row.value is None:
                table.drop(row.key)
            else:
                table.put(row.key, row.value, expiry_of(row.headers))
        table.offset = offset

    def _load(self, owner: Owner, number: int, ahead: int) -> Partition:
        table = self._table(number)
        header = None if table.header is None else self._header_codec.decode(table.header)
        partition = Partition.recovered(number, ahead, header)
        for name, topic in self.topics.items():
            end, reached = self.process.log.end(name, number), partition.inputs.get(topic.name, -1)
            if reached >= end:
                self.process.die(
                    EXIT_BUG, f"{name}.{number} ends at {end}, but effects up to {reached} are in the table"
                )
        for _ in owner.load(partition, ((key.decode(), value) for key, value in table.open.items())):
            pass
        return partition

    async def claim(self, owner: Owner, partition: Partition, replay: Replay) -> None:
        """Append the claim before anything is stepped."""
        batch_bytes = self.process.settings.coordinator.batch_bytes
        for part, hold in claims(partition, replay, self._table(partition.number).stored, batch_bytes):
            await self.record(owner, {partition.number: part}, hold)

    def _begin(self, owner: Owner) -> None:
        """Reading goes on where the group committed; now it is known what the tails are."""
        log, group = self.process.log, self.process.group
        self.positions.clear()
        self.unacked.clear()
        self._read_up_to, self.moved = -1, True
        for number, partition in owner.partitions.items():
            starts = {}
            for name, topic in self.topics.items():
                committed = log.committed(group, name, number)
                start = max(log.start(name, number), committed[0] if committed else 0)
                self.positions[name, number] = starts[topic.name] = start
                self.unacked[name, number] = set()
            self.positioned(partition, starts)

    def positioned(self, partition: Partition, starts: dict[str, int]) -> None:
        """Tell a partition where its inputs are read from."""
        partition.positioned(starts)

    # --- the single-writer loop

    @property
    def idle(self) -> bool:
        """Whether there is nothing to fetch and nobody to wake."""
        if self.owner is None:
            return True
        if self.look:
            return False
        appended = self.process.log.appended
        if appended != self._read_up_to:
            if self._unread():
                return False
            self._read_up_to = -1 if self.slow else appended
        return not self._late()

    def _unread(self) -> list[Place]:
        end = self.process.log.end
        unread = [place for place, at in self.positions.items() if at < end(*place)]
        return [place for place in unread if place[0] not in self.slow] if self.slow else unread

    def _late(self) -> bool:
        asking = self._round is not None and not self._round.done
        return not asking and self.due() <= self.process.clock()

    def due(self) -> int:
        """When there will be something to do although nothing comes, microseconds."""
        owner = self.owner
        if owner is None:
            return NEVER
        timers = [each.timers[0][0] for each in owner.partitions.values() if each.timers]
        return min([*timers, self._look_at])

    async def turn(self) -> None:
        """One round of the loop: what there is, then whom to wake."""
        owner = self.owner
        assert owner is not None
        arrivals = self.fetch()
        await Point("fetched")
        if arrivals:
            await run_batch(owner, arrivals, lambda flush: self.write(owner, flush), self._track)
            self.look = True
        self._nudge(owner)

    async def finish(self) -> None:
        """What was stepped is written and its outputs acked; the rest its next owner reads again."""
        emitting = self._emitting
        if emitting is not None:
            await Point("emitting the last", lambda: emitting.done)

    def fetch(self) -> list[Arrival]:
        """Some of what there is to read, each partition in its order."""
        log, limit = self.process.log, self.process.settings.coordinator.batch_records
        places = self._unread()
        if self._rng is not None:
            places = self._rng.sample(places, self._rng.randint(0, len(places)))
        found: list[Arrival] = []
        self.moved = True
        for place in places:
            count = limit if self._rng is None else self._rng.choice((1, 1, 2, 3, limit))
            taken = log.read(*place, self.positions[place], count)
            self.positions[place] = taken[-1].offset + 1 if taken else log.end(*place)
            for stored in taken:
                self.unacked[place].add(stored.offset)
                found.append(self._arrival(place, stored))
        return found

    def _arrival(self, place: Place, stored: Any) -> Arrival:
        name, number = place
        handle = (name, number, stored.offset)
        delivery = Delivery(
            self.topics[name], number, stored.offset, stored.key, stored.value, stored.timestamp, stored.headers, handle
        )
        return self._arrivals.decoded(delivery, is_last_try=True)

    def _track(self, handle: tuple[str, int, int], waiting: bool) -> None:
        (self._waiting.add if waiting else self._waiting.discard)(handle)

    # --- one flush

    async def write(self, owner: Owner, flush: Flush) -> None:
        """Steps 2 to 5; the last two go on while the next batch is stepped."""
        if not flush.covered:
            return
        await Point("stepped")
        emitting = self._emitting
        if emitting is not None:
            await Point("emitting before", lambda: emitting.done)
        if flush.parts:
            tasks, limits = self.process.settings.tasks, self.process.settings.coordinator
            let_leave(owner, flush, self._leaving, tasks.keep_finished_rows, limits.expire_per_flush)
            await self.record(owner, flush.parts)
        self._emitting = self.process.spawn(f"{self.spec.name} emits", self.emit(flush))

    def _leaving(self, number: int) -> Leaving:
        return self._table(number).leaving

    async def record(self, owner: Owner, parts: Mapping[int, Part], hold: int | None = None) -> None:
        """Steps 2 and 3: one batch per changelog partition, acked where expected; then the local store."""
        process = self.process
        process.refuse_if_paused()
        self._seq += 1
        expected = {number: owner.partitions[number].next for number in parts}
        sent, headers = [], {}
        await Point("recording")
        for number, part in parts.items():
            headers[number] = self._header_codec.encode(owner.header(owner.partitions[number], part, self._seq))
            sent.append(self.send_part(number, part, headers[number]))
        await landed(sent, "changelog sent")
        await Point("changelog acked")
        for number, sending in zip(parts, sent, strict=True):
            if sending.offset != expected[number]:
                why = f"{self.changelog}.{number}: acked at {sending.offset}, expected {expected[number]}"
                process.die(EXIT_FENCED, why)
        for number, part in parts.items():
            self._store(owner.partitions[number], part, headers[number], hold)
        await Point("rows written")

    def send_part(self, number: int, part: Part, header: bytes) -> Sending:
        """One atomic batch: rows and header."""
        records: list[New] = [(each.key, each.value, each.headers) for each in part.records]
        return self.process.producer.send(self.changelog, number, [*records, (HEADER_KEY, header, ())])

    def _store(self, partition: Partition, part: Part, header: bytes, hold: int | None) -> None:
        table = self._table(partition.number)
        partition.next += len(part.records) + 1
        for key, (value, expires) in part.rows.items():
            table.put(key.encode(), value, expires)
        for _, gone in part.drops:
            table.drop(gone)
        table.header = header
        table.offset = partition.next - 1 if hold is None else hold

    async def emit(self, flush: Flush) -> None:
        """Steps 4 and 5."""
        self.process.refuse_if_paused()
        await Point("emitting")
        await self._ensure(flush.topics)
        await landed(self.send(flush.outputs), "outputs sent")
        await Point("outputs acked")
        for name, number, offset in flush.covered:
            self.unacked.get((name, number), set()).discard(offset)
        self.moved = True

    async def _ensure(self, topics: Iterable[EnsureTopic]) -> None:
        for wanted in topics:
            name = self.process.wire.real(wanted.name)
            if name not in self.process.log.topics():  # one that is there keeps its partitions
                self.process.log.create(name, wanted.partitions)

    def send(self, outputs: Iterable[Encoded]) -> list[Sending]:
        """Hand outputs over, one batch for each partition."""
        return self.process.producer.send_outputs(outputs)

    # --- wakes

    def _nudge(self, owner: Owner) -> None:
        """Send wakes, if any are wanted and no tail is unread; at most one round at a time."""
        if self._round is not None and not self._round.done:
            return
        self.look, self._look_at = False, NEVER
        if any(partition.left for partition in owner.partitions.values()):
            return
        limits, now = self.process.settings.coordinator, self.process.clock()
        again = limits.wake_again_seconds
        wakes = Wakes(owner, self._names, again, limits.look_seconds, lambda: self.process.clock() / MICROS)
        ready, ripe = wakes.ready(now), wakes.ripe(now)
        asked = [now + int(again * MICROS) + 1] if owner.asked else []
        self._look_at = min([*asked, *wakes.later(now)], default=NEVER)
        if ready or ripe:
            self._round = self.process.spawn(f"{self.spec.name} wakes", self._wake(wakes, ready, ripe))

    async def _wake(self, wakes: Wakes, ready: list[Wake], ripe: list[Partition]) -> None:
        now = self.process.clock()
        await Point("clock read")
        due = wakes.due(now, self.ends(ripe))
        topic = self.process.wire.real(self.spec.wakes.name)
        encode = self._wake_codec.encode
        outputs = [
            Encoded(topic, number, record.key.encode(), encode(record), ())
            for number, record in wake_records([*ready, *wakes.released(now)], due)
        ]
        await landed(self.send(outputs), "wakes sent")
        self.look = True

    def ends(self, ripe: Iterable[Partition]) -> dict[Place, int]:
        """Where the inputs of these partitions end now: asked after the clock was read."""
        return {
            (topic.name, each.number): self.process.log.end(name, each.number)
            for each in ripe
            for name, topic in self.topics.items()
        }

    # --- commits

    def commits(self) -> dict[Place, int]:
        """What may be committed: up to the first record whose outputs are not acked."""
        if self.owner is None:
            return {}
        return {place: min(self.unacked[place], default=at) for place, at in self.positions.items()}
