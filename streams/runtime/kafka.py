"""One processor on Faust: recovery and claim, the single-writer loop, and the five steps of a flush.

Nothing here decides anything about a record; `owner.py` does that. Here is what may fail: a changelog batch that is acked
elsewhere than expected means another writer, and the process stops; a produce that fails for good stops it too, without a
commit, and the supervisor starts it again (retrying in place could let a late batch overtake). A process that was paused
past its session must not send: it may be a zombie.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol

import mode
import rocksdict
import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

from schemas.changelog import HEADER_KEY, ChangelogHeader
from schemas.errors import BrokerUnavailable
from schemas.failpoint import Failpoints
from schemas.settings import Settings
from streams.processor import Processor, ProcessorSpec, Share
from streams.runtime.arrivals import Arrivals, Schemas
from streams.runtime.batch import run_batch
from streams.runtime.batches import build
from streams.runtime.delivered import Delivered
from streams.runtime.exits import EXIT_BUG, EXIT_FENCED, EXIT_KAFKA, EXIT_OPERATOR
from streams.runtime.faust_app import App, BatchStream
from streams.runtime.outbox import Outbox, Sent, acked
from streams.runtime.owner import Owner
from streams.runtime.partition import ChangelogRecord, Flush, Part, Partition
from streams.runtime.replay import Leaving, OtherLog, claims, let_leave
from streams.runtime.store import (
    ChangelogStore,
    commit,
    drop_row,
    finished_row,
    is_damage,
    leaving,
    open_rows,
    put_row,
    seal,
    stored_row,
)
from streams.runtime.turns import Turns
from streams.runtime.views import CompactedViews
from streams.runtime.waker import Waker
from streams.runtime.wakes import Clock
from streams.runtime.wire import Wire

log = structlog.get_logger("coordinator")

Make = Callable[[Share], Processor[Any]]


class Host(Schemas, Protocol):
    """What a runner needs of its process."""

    def die(self, code: int, why: str, hint: str = "") -> NoReturn:
        """Stop at once; nothing is committed past this point."""

    async def fenced(self, why: str) -> NoReturn:
        """Stop because somebody else wrote to our changelog; says so if it bears our name."""


class Runner:
    """One processor of the coordinator."""

    def __init__(
        self,
        spec: ProcessorSpec,
        make: Make,
        app: App,
        wire: Wire,
        views: CompactedViews,
        settings: Settings,
        failpoints: Failpoints,
        clock: Clock,
        host: Host,
    ) -> None:
        self.spec = spec
        self.owner: Owner | None = None
        self.recovered = asyncio.Event()
        self._make, self._app, self._wire, self._views = make, app, wire, views
        self._settings, self._failpoints, self._clock, self._host = settings, failpoints, clock, host
        self._changelog = wire.real(spec.changelog.name)
        self._arrivals = Arrivals(spec, wire, host)
        self.topics = self._arrivals.topics
        self.delivered = Delivered(lambda: app.consumer_generation_id if app.flow_control.is_active() else None)
        self._waker = Waker(spec, app, wire, settings, clock, host.die)
        self._row_codec = wire.codecs.of(spec.changelog.subject)
        self._header_codec = wire.codecs.of("changelog.header-value")
        self._outbox: Outbox | None = None
        self._seq = 0
        self._ack_seconds = settings.kafka.request_timeout_seconds
        self._emitting: asyncio.Task[None] | None = None
        self._declare()

    def _declare(self) -> None:
        app, count = self._app, self._settings.kafka.partitions
        raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
        channel = app.topic(*self.topics, **raw)
        self.table = app.Table(
            self.spec.name,
            key_type=bytes,
            value_type=bytes,
            partitions=count,
            on_recover=self._rebuild,
            options={"driver": "rocksdict", "block_cache_size": 8 << 20, "write_buffer_size": 16 << 20},
        )
        supervise = mode.CrashingSupervisor  # Faust's own would restart the loop past the record that broke it
        app.agent(channel, name=f"{app.conf.id}.{self.spec.name}", supervisor_strategy=supervise)(self._loop)

    # --- assignments

    def revoked(self) -> None:
        """All partitions are gone (the group's protocol is eager); Faust has waited for our acks."""
        self.owner = None

    def positioned(self, starts: Mapping[Any, int]) -> None:
        """Reading begins at these offsets, so it is known what the tails are."""
        if self.owner is None:
            return
        for number, partition in self.owner.partitions.items():
            partition.positioned(
                {topic.name: starts[TP(name, number)] for name, topic in self.topics.items() if TP(name, number) in starts}
            )

    async def _rebuild(self) -> None:
        """After each recovery, before records flow: indexes from rows, then the claim of each partition."""
        try:
            await self._recover()
        except Exception as error:
            self._fail("recovery", error)

    def _fail(self, what: str, error: Exception) -> NoReturn:
        """Stop for what nobody here can mend; a local store that is no copy is the next start's to rebuild."""
        text = f"{what} of {self.spec.name}: {error!r}"
        if isinstance(error, KafkaError | BrokerUnavailable | TimeoutError):
            self._host.die(EXIT_KAFKA, text)
        if isinstance(error, OtherLog) or is_damage(error):
            self._app.hooks.store_broken(text)
        log.exception("coordinator_failed", doing=what, processor=self.spec.name)
        self._host.die(EXIT_BUG, text)

    async def _recover(self) -> None:
        app, store = self._app, self.table.data
        highwaters = app.tables.recovery.active_highwaters
        numbers = sorted(tp.partition for tp in app.assignor.assigned_actives() if tp.topic == self._changelog)
        self._outbox = self._outbox or Outbox(app.producer._producer, self._wire, self._settings)
        owner = self._new_owner(numbers)
        for number in numbers:
            ahead = highwaters[TP(self._changelog, number)] + 1
            partition = await self._load(owner, store, number, ahead)
            await self._claim(owner, store, partition)
        self.owner = owner
        flush = Flush()
        for partition in owner.partitions.values():
            owner.republish(flush, partition)
        async with asyncio.timeout(self._ack_seconds):
            await self._outbox.ensure(flush.topics)
        await acked(await self._outbox.send(flush.outputs), self._ack_seconds)
        self._failpoints.hit("recovered")
        self._waker.heard()
        self.recovered.set()
        rows = sum(len(partition.open) for partition in owner.partitions.values())
        log.info("recovered", processor=self.spec.name, partitions=numbers, open_rows=rows)

    def _new_owner(self, numbers: list[int]) -> Owner:
        processor = self._make(Share(len(numbers), self._settings.kafka.partitions))
        for topic in self.spec.views:
            for key in self._views.items(topic):
                processor.view_changed(topic, key)
        return Owner(
            processor,
            self.spec.repartition.name,
            self._wire,
            self._row_codec,
            self._settings.coordinator.instance,
            self._clock.now,
            self._views,
            lambda number, key: finished_row(self.table.data._db_for_partition(number), key.encode()),
            self._settings.coordinator.batch_bytes,
            self._settings.coordinator.copy_seconds,
        )

    async def _load(self, owner: Owner, store: ChangelogStore, number: int, ahead: int) -> Partition:
        replay = store.replay(number)
        replay.ended(ahead)
        replay.lose(replay.history.rest())
        database = store._db_for_partition(number)
        stored = database.get(HEADER_KEY)
        header = None if stored is None else self._header_codec.decode(stored)
        partition = Partition.recovered(number, ahead, header)
        await self._refuse_lost_inputs(partition)
        for _ in owner.load(partition, ((key.decode(), value) for key, value in open_rows(database))):
            await asyncio.sleep(0)
        return partition

    async def _refuse_lost_inputs(self, partition: Partition) -> None:
        """A header ahead of its input means that the input was emptied or made anew: its tail would never end."""
        places = {TP(name, partition.number): topic.name for name, topic in self.topics.items()}
        async with asyncio.timeout(self._ack_seconds):
            ends = await self._app.consumer.highwaters(*places)
        for place, name in places.items():
            reached = partition.inputs.get(name, -1)
            if reached >= (ends.get(place) or 0):
                self._host.die(
                    EXIT_OPERATOR,
                    f"{place.topic}.{place.partition} ends at {ends.get(place)}, but its records up to {reached} are done"
                    f" in {self._changelog}: the topic was emptied or made anew",
                    hint=f"restore {place.topic}, or start over under another kafka.topic_prefix",
                )

    async def _claim(self, owner: Owner, store: ChangelogStore, partition: Partition) -> None:
        """Append the claim; the store keeps its own offset, or while winners are missing the one before the first stray."""
        replay, database = store.replay(partition.number), store._db_for_partition(partition.number)
        batch_bytes = self._settings.coordinator.batch_bytes
        for part, hold in claims(partition, replay, lambda key: stored_row(database, key), batch_bytes):
            await self._record(owner, {partition.number: part}, hold)
        store.replays.pop(partition.number, None)
        if replay.ignored:
            log.warning(
                "strays_ignored", changelog=f"{self._changelog}.{partition.number}", first=(replay.hold or 0) + 1,
                batches=replay.strays, records=replay.ignored, keys_written_again=len(replay.losers - {HEADER_KEY}),
                meaning="written by a coordinator that was overtaken, or by something else; nothing of it counts",
            )  # fmt: skip

    async def close(self) -> None:
        """Close the connections of its own; its work has ended."""
        if self._outbox is not None:
            await self._outbox.close()

    # --- the single-writer loop

    async def _loop(self, stream: BatchStream) -> None:
        await stream.begin()
        limits, flow = self._settings.coordinator, self._app.flow_control
        try:
            while not stream.should_stop:
                records = await self.delivered.take(limits.batch_records, limits.idle_seconds)
                try:
                    owner = self.owner
                    if owner is None:
                        continue
                    if records:
                        self._waker.heard()
                        await self._process(owner, records)
                    elif flow.is_active() and self._waker.silent_for(limits.silence_seconds):
                        await self._waker.look_for_stalls(owner, lambda: self.delivered.count)
                    if flow.is_active() and owner is self.owner and self._outbox is not None:
                        self._waker.nudge(owner, self._outbox)
                except Exception as error:
                    self._fail("work", error)
        except StopAsyncIteration:
            return  # how Faust ends an agent
        finally:
            stream.finish()

    async def _process(self, owner: Owner, records: list[Any]) -> None:
        consumer = self._app.consumer
        consumer.taken_up(len(records))
        turn = Turns(self._settings.coordinator.turn_seconds).over
        arrivals = await self._arrivals.of(records, turn)

        def track(record: Any, waiting: bool) -> None:
            consumer.taken_up(-1 if waiting else 1)

        async def write(flush: Flush) -> None:
            await self._write(owner, flush)

        await run_batch(owner, arrivals, write, track, turn)

    # --- one flush

    async def _write(self, owner: Owner, flush: Flush) -> None:
        if not flush.covered:
            return
        self._failpoints.hit("stepped")
        if self._emitting is not None:
            await self._emitting  # the outputs of the flush before are acked before the next changelog batch
        if flush.parts:
            limits = self._settings
            let_leave(owner, flush, self._leaving, limits.tasks.keep_finished_rows, limits.coordinator.expire_per_flush)
            await self._record(owner, flush.parts)
        self._emitting = asyncio.ensure_future(self._emit(flush))

    def _leaving(self, number: int) -> Leaving:
        database = self.table.data._db_for_partition(number)
        return lambda until, limit: leaving(database, until, limit)

    async def _record(self, owner: Owner, parts: Mapping[int, Part], hold: int | None = None) -> None:
        """Steps 2 and 3: one Kafka batch per changelog partition, acked where expected; then the local store."""
        self._refuse_if_paused()
        self._seq += 1
        producer, sent, headers = self._app.producer._producer, Sent(), {}
        before = time.time()
        expected = {number: owner.partitions[number].next for number in parts}
        for number, part in parts.items():
            header: ChangelogHeader = owner.header(owner.partitions[number], part, self._seq)
            headers[number] = self._header_codec.encode(header)
            batch = build(producer, (*part.records, ChangelogRecord(HEADER_KEY, headers[number])))
            sent.add(await producer.send_batch(batch, self._changelog, partition=number), self._changelog, number)
        self._failpoints.hit("changelog-queued")  # stopped here, a zombie sends it when it goes on
        await self._pass("changelog-sent")
        acks = await acked(sent, self._ack_seconds)
        await self._pass("changelog-acked")
        for number, ack in zip(parts, acks, strict=True):
            self._clock.learn(before, time.time(), ack.timestamp if ack.timestamp_type == 1 else 0)
            if ack.offset != expected[number]:
                await self._host.fenced(
                    f"{self._changelog}.{number}: acked at {ack.offset}, expected {expected[number]}: another coordinator"
                    " owns the partition by now, or something else wrote to its changelog; what was just written counts as a"
                    " stray, the next start reads the changelog again and goes on",
                )
        for number, part in parts.items():
            self._store(owner.partitions[number], part, headers[number], hold)
        await self._pass("rows-written")

    def _store(self, partition: Partition, part: Part, header: bytes, hold: int | None) -> None:
        partition.next += len(part.records) + 1
        write = rocksdict.WriteBatch(raw_mode=True)
        for key, (value, expires) in part.rows.items():
            put_row(write, key.encode(), value, expires)
        for index_key, gone in part.drops:
            drop_row(write, gone, index_key)
        seal(write, header, partition.next - 1 if hold is None else hold)
        commit(self.table.data._db_for_partition(partition.number), write)

    async def _emit(self, flush: Flush) -> None:
        """Steps 4 and 5; runs while the next batch is stepped."""
        assert self._outbox is not None
        try:
            self._refuse_if_paused()
            if flush.topics:
                async with asyncio.timeout(self._ack_seconds):
                    await self._outbox.ensure(flush.topics)
            futures = await self._outbox.send(flush.outputs)
            await self._pass("outputs-sent")
            await acked(futures, self._ack_seconds)
            await self._pass("outputs-acked")
            last = {(record.topic, record.partition): record.offset for record in flush.covered}
            self._app.consumer.finished(len(flush.covered), {TP(*place): offset for place, offset in last.items()})
        except Exception as error:
            self._fail("outputs", error)

    async def _pass(self, point: str) -> None:
        if self._failpoints.armed(point):
            await asyncio.sleep(0.002)  # what was sent may or may not reach the broker
            self._failpoints.hit(point)

    def _refuse_if_paused(self) -> None:
        silent = time.monotonic() - self._app.hooks.heartbeat_at
        if silent > self._settings.coordinator.session_timeout_seconds:
            self._host.die(EXIT_FENCED, f"the group has not heard of us for {silent:.1f} s; another may own our partitions")
