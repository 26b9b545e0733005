"""Fetching and committing under Faust: what closes the holes around seeks, rebalances and commits in its consumer.

Faust fetches in a thread of its own and delivers in the main loop. Between the two, records could be lost around a seek and
committed before their work was done; the classes here say which hole each method closes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mode
import structlog
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from mode.utils.futures import notify

from schemas.changelog import ChangelogHeader
from streams.runtime.delivered import Chunk

log = structlog.get_logger("faust")

_FETCH_SECONDS = 1.0
"""A fetch that finds nothing returns after this time, to see whether the process stops."""

_FULL_SECONDS = 0.005
"""Between looks whether the loop has taken some of what was delivered."""


@dataclass(slots=True)
class Hooks:
    """What the app tells its owner; set before the app starts.

    deliver: takes a chunk of an input topic; queued: records delivered and not yet taken, of which there are at most
    `queued_records` before fetching waits.
    """

    group_error: Callable[[BaseException], None]
    start_offsets: Callable[[Mapping[Any, int]], None]
    committed: Callable[[], None]
    deliver: Callable[[str, Chunk], None]
    queued: Callable[[], int]
    decode_header: Callable[[bytes], ChangelogHeader]
    fetch_min_bytes: int = 1
    fetch_max_wait_ms: int = 500
    max_partition_fetch_bytes: int = 8 * 1024 * 1024
    max_request_bytes: int = 8 * 1024 * 1024
    queued_records: int = 20_000
    heartbeat_at: float = field(default_factory=time.monotonic)


class _Rest:
    """What is left of a coroutine that was stepped once by hand, as an awaitable."""

    def __init__(self, coroutine: Any, first: Any) -> None:
        self._coroutine, self._first = coroutine, first

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for = self._first
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:
                try:
                    waits_for = self._coroutine.throw(error)
                except StopIteration as done:
                    return done.value
            else:
                try:
                    waits_for = self._coroutine.send(sent)
                except StopIteration as done:
                    return done.value


async def _finish(rest: Awaitable[Any]) -> Any:
    return await rest


class _Live:
    """The main loop's set of active partitions, read while a fetch waits.

    Faust hands over the set itself; pausing its last partition empties it, which aiokafka takes for "all partitions",
    and the records taken then are dropped as not active. An object that only answers `in` means what it says.
    """

    def __init__(self, partitions: Any) -> None:
        self._partitions = partitions

    def __contains__(self, partition: Any) -> bool:
        return partition in self._partitions


class Taken(dict[Any, Any]):
    """What a fetch took, and the seeks that it knew of."""

    seeks: Counter[Any]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seeks = Counter()


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's fetching thread, with fetch settings, and a fetch that a seek overtook given back.

    A fetch waits in the thread for up to a second while seeks pass it in a second worker. What it took counts only if its
    partition was not sought since the fetch began; else the records go back in the same step in which they were taken.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.seeks: Counter[Any] = Counter()
        self.last: dict[Any, int] = {}
        self.given_back = 0
        super().__init__(*args, **kwargs)

    @property
    def _hooks(self) -> Hooks:
        hooks: Hooks = self.consumer.app.hooks
        return hooks

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)  # Faust fixes these at 1500 ms and 1 byte
        consumer._fetch_min_bytes = self._hooks.fetch_min_bytes
        consumer._fetch_max_wait_ms = self._hooks.fetch_max_wait_ms
        consumer._max_partition_fetch_bytes = self._hooks.max_partition_fetch_bytes
        return consumer

    async def _fetch_records(
        self, consumer: Any, active_partitions: Any, timeout: float | None = None, max_records: int | None = None
    ) -> Taken:
        before = self.seeks.copy()
        live = None if active_partitions is None else _Live(active_partitions)
        taken = Taken(await super()._fetch_records(consumer, live, timeout, max_records))
        for partition in [tp for tp in taken if self.seeks[tp] != before[tp]]:  # no await since they were taken
            first = taken.pop(partition)[0].offset
            self.given_back += 1
            if partition in consumer.assignment():
                consumer.seek(partition, first)
        self.last.update((partition, records[-1].offset) for partition, records in taken.items())
        taken.seeks = before
        return taken

    def _sought(self, partitions: Iterable[Any]) -> None:
        for partition in list(partitions):
            self.seeks[partition] += 1
            self.last.pop(partition, None)

    async def on_start(self) -> None:
        await super().on_start()
        self._listen_for_heartbeats(self._consumer._coordinator)

    def _listen_for_heartbeats(self, coordinator: Any) -> None:
        """Remember when the group last heard of us: after a pause a process must know that it may be a zombie."""
        send = coordinator._do_heartbeat

        async def beat() -> Any:
            heard = await send()
            if heard:
                self._hooks.heartbeat_at = time.monotonic()
            return heard

        coordinator._do_heartbeat = beat

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        self._hooks.heartbeat_at = time.monotonic()
        self._sought(assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    async def _seek_wait(self, consumer: Any, partitions: Any) -> None:
        self._sought(partitions)
        await super()._seek_wait(consumer, partitions)

    async def seek_to_committed(self) -> Any:
        return await self.call_thread(self._seek_inputs)

    async def _seek_inputs(self) -> dict[Any, int]:
        """All inputs in one step, to their commit or the log's start, whichever is later.

        aiokafka seeks one by one, and only to a commit above 0; elsewhere the position would stay where a fetch between
        the join and the pause had come to, and those records would be skipped.
        """
        consumer = self._ensure_consumer()
        inputs = [tp for tp in self.assignment() if not self.consumer._is_changelog_tp(tp)]
        starts = await consumer.beginning_offsets(inputs) if inputs else {}
        wanted = {tp: max(await consumer.committed(tp) or 0, starts.get(tp) or 0) for tp in inputs}
        self._sought(wanted)
        for partition, offset in wanted.items():
            consumer.seek(partition, offset)
        return wanted

    async def reached(self, *partitions: Any) -> dict[Any, tuple[int, int]]:
        """(position, last record taken); a marker of a user's transaction moves only the first."""

        async def ask() -> dict[Any, tuple[int, int]]:
            consumer = self._ensure_consumer()
            assigned = consumer.assignment()
            return {tp: (await consumer.position(tp), self.last.get(tp, -1)) for tp in partitions if tp in assigned}

        answer: dict[Any, tuple[int, int]] = await self.call_thread(ask)
        return answer


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Delivers inputs in chunks, commits what is done as one offset each, heals gaps, reports group errors.

    Changelogs are read by Faust's recovery and keep its path.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.in_hand = 0
        self._done: dict[Any, int] = {}
        self._taken = Taken()
        self._expected: dict[Any, int] = {}
        self._retried: dict[Any, int] = {}
        self.gaps: Counter[str] = Counter()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # --- what is done

    def taken_up(self, count: int) -> None:
        """So many records are being worked on (less than 0: laid aside); a rebalance waits for them."""
        self.in_hand += count

    def finished(self, count: int, last: Mapping[Any, int]) -> None:
        """So many are done with all that follows from them; `last` is the highest offset per partition.

        Records of a partition are finished in the order in which they were delivered, so all up to there are done.
        """
        self.in_hand -= count
        for partition, offset in last.items():
            self._done[partition] = offset
            self._acked[partition].clear()  # Faust commits the partitions that have an entry there
        notify(self._waiting_for_ack)

    def _new_offset(self, tp: Any) -> int | None:
        """The offset to commit."""
        last = self._done.get(tp)
        return None if last is None else last + 1

    async def wait_empty(self) -> None:
        """Wait until nothing is being worked on, then commit; Faust's own follows each record."""
        while not self.should_stop and self.in_hand:
            await self.commit()
            if self.in_hand:
                await self._wait_for_ack(timeout=1)
        await self.commit_and_end_transactions()

    async def on_partitions_revoked(self, revoked: Any) -> None:
        try:
            await super().on_partitions_revoked(revoked)
        finally:
            for partition in revoked:
                self._done.pop(partition, None)
                self._expected.pop(partition, None)

    async def perform_seek(self) -> None:
        """Positions return to what is committed, so what was delivered since is forgotten."""
        self._done.clear()
        self._acked.clear()
        self._acked_index.clear()
        await super().perform_seek()
        self._expected = {
            tp: offset
            for tp, offset in self._read_offset.items()
            if offset is not None and not self._is_changelog_tp(tp)
        }
        self.app.hooks.start_offsets(dict(self._expected))

    async def commit(self, *args: Any, **kwargs: Any) -> Any:
        done = await super().commit(*args, **kwargs)
        if done:
            self.app.hooks.committed()
        return done

    # --- delivery

    async def _getmany(self, active_partitions: Any, timeout: float) -> Taken:
        self._taken = await super()._getmany(active_partitions, timeout)
        return self._taken

    async def read_again(self, partition: Any, offset: int) -> None:
        """Read on from this offset."""
        self._expected[partition] = offset
        try:
            await self.seek_wait({partition: offset})
        except IllegalStateError:
            log.info("seek_after_revocation", partition=str(partition))  # the next assignment seeks

    async def _drain_messages(self, fetcher: Any) -> None:
        hooks = self.app.hooks
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                await asyncio.sleep(0)
                if hooks.queued() >= hooks.queued_records:
                    await asyncio.sleep(_FULL_SECONDS)
                    continue
                await self._deliver_next()
        except (*self.consumer_stopped_errors, asyncio.CancelledError):
            if not self.transport.app.should_stop:
                raise

    async def _deliver_next(self) -> None:
        """What the next fetch takes, to its channels."""
        records, active = await self._wait_next_records(_FETCH_SECONDS)
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        generation = self.app.consumer_generation_id
        for partition, taken in records.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return  # a rebalance began; all positions are sought after it
            if active is not None and partition not in active and partition not in self._buffered_partitions:
                continue
            if self._thread.seeks[partition] != self._taken.seeks[partition]:
                continue  # sought meanwhile: it comes again
            if self.app.topics.acks_enabled_for(partition.topic):
                await self._deliver_input(partition, taken, generation)
            else:
                await self._deliver_changelog(partition, taken)

    async def _deliver_input(self, partition: Any, taken: list[Any], generation: int) -> None:
        """The records from the expected one on. A gap before the first is read once more, then believed.

        A gap may be a record lost around a seek, or the commit marker of a user's transaction, which takes an offset
        that no consumer sees.
        """
        expected = self._expected.get(partition, taken[0].offset)
        retried = self._retried.pop(partition, None) == expected
        if taken[0].offset > expected:
            self.gaps["real" if retried else "seen"] += 1
            if not retried:
                self._retried[partition] = expected
                await self.read_again(partition, expected)
                return
        elif retried:
            self.gaps["healed"] += 1
            log.error("gap_healed", partition=str(partition), offset=expected)
        if taken[0].offset < expected:
            taken = [record for record in taken if record.offset >= expected]
            if not taken:
                return
        last = taken[-1].offset
        self._expected[partition], self._read_offset[partition] = last + 1, last
        self.app.monitor.stream_inbound_time[partition] = time.monotonic()
        self.app.hooks.deliver(partition.topic, Chunk(generation, taken))

    async def _deliver_changelog(self, partition: Any, taken: list[Any]) -> None:
        """One by one to Faust's recovery, which may make us wait; not past a seek, or while the flow stops."""
        for record in taken:
            if not self.flow_active or self._thread.seeks[partition] != self._taken.seeks[partition]:
                return
            read = self._read_offset[partition]
            if read is not None and record.offset < read:
                continue
            coroutine = self.callback(self._to_message(partition, record))
            try:
                first = coroutine.send(None)  # normally ends without suspending; Faust's own makes four tasks of it
            except StopIteration:
                pass
            else:
                await self.wait_first(_finish(_Rest(coroutine, first)), self.suspend_flow.wait())
            self._read_offset[partition] = record.offset

    @mode.Service.task  # type: ignore[untyped-decorator]
    async def _watch_group(self) -> None:
        """Report group errors, which Faust never asks for: its worker would look healthy and do nothing."""

        def check() -> None:
            consumer = self._thread._consumer
            coordinator = consumer and consumer._coordinator
            if not coordinator:
                return
            try:
                coordinator.check_errors()
            except Exception as error:
                self.loop.call_soon_threadsafe(self.app.hooks.group_error, error)

        async for _ in self.itertimer(1.0, name="group-errors"):
            self._thread.thread_loop.call_soon_threadsafe(check)
