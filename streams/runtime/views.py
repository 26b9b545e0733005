"""Read-only copies of compacted topics, so that a rule can know of other keys without asking anybody.

Each process reads all partitions of the topics with a consumer that belongs to no group. The copy is complete, up to the
end that the topics had, before the first record is stepped; of two records of one key the higher version stays, because a
paused owner may publish an old one late.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.codec import Codecs
from schemas.errors import BrokerUnavailable, DecodeError, UnknownSchemaId
from schemas.topics import Topic

log = structlog.get_logger("views")
POLL_MS = 500
Changed = Callable[[Topic, str], None]


class CompactedViews:
    """The views of one process; implements `streams.processor.Views`."""

    def __init__(self, topics: tuple[Topic, ...], codecs: Codecs, prefix: str, partitions: int) -> None:
        """`partitions` is the installation's count; the start-up checks have seen that the topics have it."""
        self._partitions = partitions
        self._topics = {prefix + topic.name: topic for topic in topics}
        self._codecs = codecs
        self._records: dict[str, dict[str, Any]] = {topic.name: {} for topic in topics}
        self._reached: dict[str, dict[int, int]] = {topic.name: {} for topic in topics}
        self._text: str | None = None
        self.listeners: list[Changed] = []

    def get(self, topic: Topic, key: str) -> Any:
        """The record of a key, or None."""
        return self._records[topic.name].get(key)

    def items(self, topic: Topic) -> Mapping[str, Any]:
        """All records by key."""
        return self._records[topic.name]

    def offsets(self) -> str:
        """The next offset of each partition read, as JSON text `{topic: [offset, ...]}`."""
        if self._text is None:
            reached = {name: [at for _, at in sorted(parts.items())] for name, parts in self._reached.items()}
            self._text = json.dumps(reached, separators=(",", ":"))
        return self._text

    def apply(self, topic: Topic, partition: int, offset: int, key: bytes | None, value: bytes | None) -> None:
        """Take one record. One that cannot be read is logged and passed over: the key keeps what it had."""
        self._reached[topic.name][partition] = offset + 1
        self._text = None
        if key is None:
            return
        name, records = key.decode(errors="replace"), self._records[topic.name]
        if value is None:
            records.pop(name, None)
        else:
            try:
                record = self._codecs.of(topic.subject).decode(value)
            except (DecodeError, UnknownSchemaId) as error:
                log.error("view_record_unreadable", topic=topic.name, offset=offset, error=str(error))
                return
            known = records.get(name)
            if known is not None and known.version > record.version:
                return
            records[name] = record
        for changed in self.listeners:
            changed(topic, name)

    async def fill(self, bootstrap: str, timeout_s: float) -> AIOKafkaConsumer:
        """Read every topic to the end that it has now; returns the consumer for `follow`. Raises BrokerUnavailable."""
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
        try:
            async with asyncio.timeout(timeout_s):
                await consumer.start()
                partitions = await self._assign(consumer)
                ends = await consumer.end_offsets(partitions) if partitions else {}
                for partition in partitions:
                    self._reached[self._topics[partition.topic].name][partition.partition] = 0
                while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                    self._take(await consumer.getmany(timeout_ms=POLL_MS))
        except TimeoutError as late:
            await consumer.stop()
            raise BrokerUnavailable(f"views were not read to their end within {timeout_s:g} s") from late
        return consumer

    async def follow(self, consumer: AIOKafkaConsumer) -> None:
        """Keep reading until cancelled."""
        if not self._topics:
            return
        while True:
            self._take(await consumer.getmany(timeout_ms=POLL_MS))

    async def _assign(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        partitions = [TopicPartition(name, number) for name in self._topics for number in range(self._partitions)]
        consumer.assign(partitions)
        if partitions:
            await consumer.seek_to_beginning(*partitions)
        return partitions

    def _take(self, batches: Mapping[Any, list[Any]]) -> None:
        for partition, records in batches.items():
            topic = self._topics[partition.topic]
            for record in records:
                self.apply(topic, partition.partition, record.offset, record.key, record.value)
