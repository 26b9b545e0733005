"""Read-only copies of compacted topics, so that a rule can know of other keys without asking anybody.

Each process reads all partitions of the topics with a consumer that belongs to no group. The copy is complete, up to the
end that the topics had, before the first record is stepped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.errors import BrokerUnavailable
from streams.runtime.compacted import Compacted
from streams.runtime.fetched import read_any_header_name

POLL_MS = 500


class CompactedViews(Compacted):
    """The views of one process on Kafka; the start-up checks have seen that the topics have its partition count."""

    async def fill(self, bootstrap: str, timeout_s: float) -> AIOKafkaConsumer:
        """Read every topic to the end that it has now; returns the consumer for `follow`. Raises BrokerUnavailable."""
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
        try:
            async with asyncio.timeout(timeout_s):
                await consumer.start()
                read_any_header_name(consumer._fetcher)
                partitions = await self._assign(consumer)
                ends = await consumer.end_offsets(partitions) if partitions else {}
                for partition in partitions:
                    self.reached[self.topics[partition.topic].name][partition.partition] = 0
                while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                    self._take(await consumer.getmany(timeout_ms=POLL_MS))
        except TimeoutError as late:
            await consumer.stop()
            raise BrokerUnavailable(f"views were not read to their end within {timeout_s:g} s") from late
        return consumer

    async def follow(self, consumer: AIOKafkaConsumer) -> None:
        """Keep reading until cancelled."""
        if not self.topics:
            return
        while True:
            self._take(await consumer.getmany(timeout_ms=POLL_MS))

    async def _assign(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        partitions = [TopicPartition(name, number) for name in self.topics for number in range(self.partitions)]
        consumer.assign(partitions)
        if partitions:
            await consumer.seek_to_beginning(*partitions)
        return partitions

    def _take(self, batches: Mapping[Any, list[Any]]) -> None:
        for partition, records in batches.items():
            topic = self.topics[partition.topic]
            for record in records:
                self.apply(topic, partition.partition, record.offset, record.key, record.value, record.headers)
