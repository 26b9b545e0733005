"""Fetching and committing under Faust: what closes the holes around seeks, rebalances and commits in its consumer.

Faust fetches in a thread of its own and delivers in the main loop. Between the two, records could be lost around a seek and
committed before their work was done; the classes here say which hole each method closes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mode
import structlog
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver

from schemas.changelog import ChangelogHeader

log = structlog.get_logger("faust")

REMOVED = frozenset({25, 82})
"""Kafka's answers to a member that the group no longer has: unknown member id, fenced instance id."""

_COMMIT, _JOIN_HEARTBEAT_SYNC = 8, (11, 12, 14)


class Replaced(Exception):
    """The group has given our place to somebody else; `silent_s` seconds after it last heard of us."""

    def __init__(self, silent_s: float) -> None:
        super().__init__(f"the group removed us {silent_s:.1f} s after it last heard of us")
        self.silent_s = silent_s


@dataclass(slots=True)
class Hooks:
    """What the app tells its owner; set before the app starts."""

    group_error: Callable[[BaseException], None]
    start_offsets: Callable[[Mapping[Any, int]], None]
    committed: Callable[[], None]
    decode_header: Callable[[bytes], ChangelogHeader]
    fetch_min_bytes: int = 1
    fetch_max_wait_ms: int = 500
    max_partition_fetch_bytes: int = 8 * 1024 * 1024
    max_request_bytes: int = 8 * 1024 * 1024
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
        self._listen_for_removal(coordinator)

    async def beat(self) -> None:
        """Ask the group now whether we are still in it; `Hooks.group_error` hears if not."""
        await self.call_thread(self._ensure_consumer()._coordinator._do_heartbeat)

    def _listen_for_removal(self, coordinator: Any) -> None:
        """aiokafka would join again under its name and take the place back from whoever has it by now, without end."""
        send = coordinator._send_req

        async def listening(request: Any) -> Any:
            answer = await send(request)
            if REMOVED & _codes(answer):
                self._hooks.group_error(Replaced(time.monotonic() - self._hooks.heartbeat_at))
            return answer

        coordinator._send_req = listening

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


def _codes(answer: Any) -> set[int]:
    """The error codes of an answer to a commit, join, heartbeat or sync; of others none."""
    if answer.API_KEY == _COMMIT:
        return {code for _, places in answer.topics for _, code in places}
    return {answer.error_code} if answer.API_KEY in _JOIN_HEARTBEAT_SYNC else set()


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Commits in delivery order, delivers without an asyncio task per record, heals gaps, reports group errors."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._inflight: dict[Any, deque[int]] = defaultdict(deque)
        self._taken = Taken()
        self._expected: dict[Any, int] = {}
        self._retried: dict[Any, int] = {}
        self.gaps: Counter[str] = Counter()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_revoked(self, revoked: Any) -> None:
        try:
            await super().on_partitions_revoked(revoked)
        finally:
            for partition in revoked:
                self._inflight.pop(partition, None)
                self._expected.pop(partition, None)

    async def perform_seek(self) -> None:
        """Positions return to what is committed, so what was delivered since is forgotten."""
        self._inflight.clear()
        self._acked.clear()
        self._acked_index.clear()
        await super().perform_seek()
        self._expected = {
            tp: offset
            for tp, offset in self._read_offset.items()
            if offset is not None and not self._is_changelog_tp(tp)
        }
        self.app.hooks.start_offsets(dict(self._expected))

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

    async def commit(self, *args: Any, **kwargs: Any) -> Any:
        done = await super().commit(*args, **kwargs)
        if done:
            self.app.hooks.committed()
        return done

    def _new_offset(self, tp: Any) -> int | None:
        """The end of the acked prefix in delivery order; Faust's own may pass an unacked first record."""
        queue, done, last = self._inflight.get(tp), self._acked_index[tp], None
        while queue and queue[0] in done:
            last = queue.popleft()
            done.discard(last)
        self._acked[tp].clear()
        return None if last is None else last + 1

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                await asyncio.sleep(0)
                count = 0
                async for partition, message in self.getmany(timeout=1.0):
                    count += 1
                    if not count % 100:
                        await asyncio.sleep(0)
                    if not await self._deliver(partition, message):
                        continue
                    self._read_offset[partition] = message.offset
        except (*self.consumer_stopped_errors, asyncio.CancelledError):
            if not self.transport.app.should_stop:
                raise

    async def _deliver(self, partition: Any, message: Any) -> bool:
        """One record to its channel; False if it is not its turn."""
        if self._thread.seeks[partition] != self._taken.seeks[partition]:
            return False  # sought meanwhile: it comes again
        if self.app.topics.acks_enabled_for(message.topic):
            if not await self._in_turn(partition, message):
                return False
        else:
            read = self._read_offset[partition]
            if read is not None and message.offset < read:
                return False
        coroutine = self.callback(message)
        try:
            first = coroutine.send(None)  # normally ends without suspending; Faust's own makes four tasks of it
        except StopIteration:
            return True
        await self.wait_first(_finish(_Rest(coroutine, first)), self.suspend_flow.wait())
        return True

    async def _in_turn(self, partition: Any, message: Any) -> bool:
        """Whether the record follows the one before it. A gap is read once more, then believed.

        A gap may be a record lost around a seek, or the commit marker of a user's transaction, which takes an offset
        that no consumer sees.
        """
        expected = self._expected.get(partition, message.offset)
        retried = self._retried.pop(partition, None) == expected
        if message.offset < expected:
            return False
        if message.offset > expected and message.offset == self._taken[partition][0].offset:
            self.gaps["real" if retried else "seen"] += 1
            if not retried:
                self._retried[partition] = expected
                await self.read_again(partition, expected)
                return False
        elif retried:
            self.gaps["healed"] += 1
            log.error("gap_healed", partition=str(partition), offset=expected)
        self._expected[partition] = message.offset + 1
        self._inflight[partition].append(message.offset)
        return True

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
