"""Reading topics as they lie, for whoever only looks: no group, no commits, from given offsets to given ends.

A verb that shows something must never take part: a group would move partitions away from those who work, and a commit
would hide records from them. So partitions are assigned by hand and positions live only here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ops.topics import admin
from schemas.closing import closed
from schemas.errors import BrokerUnavailable, OperatorError
from schemas.settings import Settings
from streams.runtime.fetched import read_any_header_name

_POLL_MS = 200
_MAX_RECORDS = 2000

Offsets = Mapping[TopicPartition, int]


class LogReader:
    """A consumer of no group. One read at a time: each assigns the partitions that it needs."""

    def __init__(self, consumer: AIOKafkaConsumer, client: AIOKafkaAdminClient, settings: Settings) -> None:
        self._consumer = consumer
        self._admin = client
        self._bootstrap = settings.kafka.bootstrap_servers
        self._limit_s = settings.kafka.metadata_timeout_seconds
        self._silence_s = settings.kafka.request_timeout_seconds

    @property
    def consumer(self) -> AIOKafkaConsumer:
        """For readers of a format of their own; whatever they assign is replaced by the next read."""
        return self._consumer

    async def topics(self) -> dict[str, list[TopicPartition]]:
        """All topics of the cluster by their real names, each with its partitions in order."""
        async with self._bounded():
            described = await self._admin.describe_topics()
        return {
            each["topic"]: [TopicPartition(each["topic"], part["partition"]) for part in _in_order(each["partitions"])]
            for each in described
        }

    async def partitions(self, topic: str) -> list[TopicPartition]:
        """All partitions of a topic, in order. Raises OperatorError if it does not exist."""
        found = (await self.topics()).get(topic)
        if not found:
            raise OperatorError(
                f"Topic '{topic}' does not exist",
                hint="see `troupe topics list`, create ours with `troupe topology apply`, check kafka.topic_prefix",
            )
        return found

    async def beginnings(self, partitions: Iterable[TopicPartition]) -> Offsets:
        """The first offsets that are still there."""
        wanted = list(partitions)
        if not wanted:
            return {}
        self._consumer.assign(wanted)  # so that it learns who leads them
        async with self._bounded():
            return dict(await self._consumer.beginning_offsets(wanted))

    async def ends(self, partitions: Iterable[TopicPartition]) -> Offsets:
        """The offsets that the next records will get."""
        wanted = list(partitions)
        if not wanted:
            return {}
        self._consumer.assign(wanted)  # so that it learns who leads them
        async with self._bounded():
            return dict(await self._consumer.end_offsets(wanted))

    async def since(self, partitions: Iterable[TopicPartition], at_s: float) -> Offsets:
        """The offsets of the first records at or after an instant, in seconds since the epoch; the ends if there is none."""
        ends = await self.ends(partitions)
        if not ends:
            return {}
        async with self._bounded():
            found = await self._consumer.offsets_for_times({place: int(at_s * 1000) for place in ends})
        return {place: end if (at := found.get(place)) is None else at.offset for place, end in ends.items()}

    async def committed(self, group: str, partition: TopicPartition) -> int:
        """Offset up to which a group has done its work in a partition; 0 if it never said."""
        async with self._bounded():
            found = await self._admin.list_consumer_group_offsets(group, partitions=[partition])
        offset: int = found[partition].offset
        return max(0, offset)

    async def read(self, start: Offsets, end: Offsets) -> AsyncIterator[ConsumerRecord]:
        """The records from `start` up to `end`, both by partition; ordered within a partition.

        Raises BrokerUnavailable if nothing comes for `kafka.request_timeout_seconds`.
        """
        waiting = {partition: end[partition] for partition in start if start[partition] < end[partition]}
        if not waiting:
            return
        self._assign({partition: start[partition] for partition in waiting})
        heard = time.monotonic()
        while waiting:
            for partition, records in (await self._poll()).items():
                heard = time.monotonic()
                for record in records:
                    if record.offset < waiting.get(partition, 0):
                        yield record
            # By position and not by the last record: markers of transactions and compacted records have offsets too.
            for partition in list(waiting):
                if await self._consumer.position(partition) >= waiting[partition]:
                    del waiting[partition]
            if time.monotonic() - heard > self._silence_s:
                raise BrokerUnavailable.at(self._bootstrap)

    async def follow(self, start: Offsets) -> AsyncIterator[ConsumerRecord | None]:
        """The records from `start` on, without end; None whenever nothing came for a moment."""
        self._assign(start)
        while True:
            batches = await self._poll()
            for records in batches.values():
                for record in records:
                    yield record
            if not batches:
                yield None

    def _assign(self, start: Offsets) -> None:
        self._consumer.assign(list(start))
        for partition, offset in start.items():
            self._consumer.seek(partition, offset)

    async def _poll(self) -> dict[TopicPartition, list[ConsumerRecord]]:
        try:
            found: dict[TopicPartition, list[ConsumerRecord]] = await self._consumer.getmany(
                timeout_ms=_POLL_MS, max_records=_MAX_RECORDS
            )
        except KafkaError as error:
            raise BrokerUnavailable.at(self._bootstrap) from error
        return found

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limit_s):
                yield
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerUnavailable.at(self._bootstrap) from error


def _in_order(partitions: Iterable[Mapping[str, int]]) -> list[Mapping[str, int]]:
    return sorted(partitions, key=lambda each: each["partition"])


@asynccontextmanager
async def open_log(settings: Settings) -> AsyncIterator[LogReader]:
    """A reader, closed at the end. Raises BrokerUnavailable if the broker does not answer in time."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        request_timeout_ms=int(settings.kafka.request_timeout_seconds * 1000),
        max_partition_fetch_bytes=max(1024 * 1024, settings.limits.max_wrapped_bytes),
    )
    async with admin(settings) as client:
        try:
            try:
                async with asyncio.timeout(settings.kafka.metadata_timeout_seconds):
                    await consumer.start()
                    read_any_header_name(consumer._fetcher)
            except (KafkaError, OSError, TimeoutError) as error:
                raise BrokerUnavailable.at(settings.kafka.bootstrap_servers) from error
            yield LogReader(consumer, client, settings)
        finally:
            await closed(consumer.stop(), settings.kafka.metadata_timeout_seconds)
