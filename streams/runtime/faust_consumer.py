"""Delivering and committing under Faust: inputs in chunks, commits in delivery order.

Faust's own path per record is slow, and it commits records before their work is done around rebalances and gaps; each method
here says what it replaces.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Generator, Iterator, Mapping
from typing import Any

import mode
import structlog
from aiokafka.errors import IllegalStateError, KafkaError
from faust.transport.drivers import aiokafka as driver
from mode.utils.futures import notify

from streams.runtime.delivered import Chunk
from streams.runtime.faust_fetching import ConsumerTask, Taken

log = structlog.get_logger("faust")

_FETCH_SECONDS = 1.0
"""A fetch that finds nothing returns after this time, to see whether the process stops."""

_FULL_SECONDS = 0.005
"""Between looks whether the loop has taken some of what was delivered."""


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

    def _new_consumer_thread(self) -> ConsumerTask:
        return ConsumerTask(self, loop=self.loop, beacon=self.beacon)

    # --- what is done

    def taken_up(self, count: int) -> None:
        """So many records are being worked on (less than 0: laid aside); a rebalance waits for them."""
        self.in_hand += count

    def finished(self, count: int, last: Mapping[Any, int]) -> None:
        """So many are done with all that follows from them; `last` is the highest offset per partition.

        Records of a partition are finished in the order in which they were delivered, so all up to there are done.
        """
        self.in_hand -= count
        self._done.update(last)
        notify(self._waiting_for_ack)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[Any]:
        """Partitions that may have something to commit.

        Faust looks among its own acks, of which it forgets all as soon as a rebalance begins: what was done since the last
        commit would be read again by the next owner.
        """
        return (tp for tp in self._done if topics is None or tp in topics or tp.topic in topics)

    async def _commit_offsets(self, offsets: Mapping[Any, int], start_new_transaction: bool = True) -> bool:
        """Faust takes a refused commit for done; without a newer record it would never be made."""
        done: bool = await super()._commit_offsets(offsets, start_new_transaction)
        if not done:
            self._committed_offset.update(dict.fromkeys(offsets))
        return done

    def _new_offset(self, tp: Any) -> int | None:
        """The offset to commit."""
        last = self._done.get(tp)
        return None if last is None else last + 1

    async def wait_empty(self) -> None:
        """Wait until nothing is being worked on, then commit; Faust's own follows each record.

        Faust takes a commit that is under way for the one that is wanted; it may have begun before the last was done.
        """
        while not self.should_stop and self.in_hand:
            await self.commit()
            if self.in_hand:
                await self._wait_for_ack(timeout=1)
        await self.maybe_wait_for_commit_to_finish()
        await self.commit_and_end_transactions()

    async def on_partitions_revoked(self, revoked: Any) -> None:
        try:
            await super().on_partitions_revoked(revoked)
        finally:
            for partition in revoked:
                self._done.pop(partition, None)
                self._expected.pop(partition, None)

    async def perform_seek(self) -> None:
        """Positions return to what is committed, so what was delivered since is forgotten.

        What is done stays done: a fetch that comes back in the midst of a rebalance seeks too, before the last commit.
        """
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
                if hooks.is_full():
                    hooks.full_at = time.monotonic()
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
            try:
                await self.perform_seek()
            except KafkaError as error:  # the broker is away, or a partition is gone: the next assignment seeks
                log.info("seek_given_up", error=repr(error))
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

        async for _ in self.itertimer(1.0, name="group-errors"):
            consumer = self._thread._consumer
            if consumer and consumer._coordinator:
                try:
                    consumer._coordinator.check_errors()
                except Exception as error:
                    self.app.hooks.group_error(error)
