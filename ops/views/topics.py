"""Which topics there are and what lies in them, for `troupe topics`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aiokafka import ConsumerRecord, TopicPartition

from ops.registry.schema_log import TOPIC as SCHEMAS
from ops.views.log import LogReader, Offsets
from schemas.settings import Settings
from schemas.topics import INBOX, REPLY_TO, Topic
from topology import Topology


@dataclass(frozen=True, slots=True)
class Listed:
    """A topic as it is. record and retention are names; records is the span of offsets, so compacted ones count."""

    name: str
    partitions: int
    key: str
    record: str
    retention: str
    records: int


async def list_topics(log: LogReader, settings: Settings, topology: Topology) -> list[Listed]:
    """The topics of the installation that exist, by name; families (inboxes, reply topics) by what they match."""
    found: list[Listed] = []
    for name, partitions in sorted((await log.topics()).items()):
        described = _described(name, settings, topology)
        if described is not None:
            begin, end = await log.beginnings(partitions), await log.ends(partitions)
            records = sum(end[each] - begin[each] for each in partitions)
            found.append(Listed(name, len(partitions), *described, records))
    return found


def _described(name: str, settings: Settings, topology: Topology) -> tuple[str, str, str] | None:
    """Key, record and class of a topic, None if it is not one of ours."""
    if name == SCHEMAS:
        return "subject, version", "registered schema", "COMPACT"
    prefix = settings.kafka.topic_prefix
    if not name.startswith(prefix):
        return None
    bare = name.removeprefix(prefix)
    known = {topic.name: topic for topic in topology.all_topics()}
    topic = known.get(bare) or _family(bare, settings)
    return None if topic is None else (topic.key, topic.record.__name__, topic.retention.name)


def _family(name: str, settings: Settings) -> Topic | None:
    if fnmatchcase(name, "agents.*.inbox"):
        return INBOX
    if any(fnmatchcase(name, pattern) for pattern in settings.kafka.reply_topics):
        return REPLY_TO
    return None


async def last_records(log: LogReader, partitions: list[TopicPartition], limit: int) -> list[ConsumerRecord]:
    """The last `limit` records of a topic, oldest first by timestamp."""
    begin, end = await log.beginnings(partitions), await log.ends(partitions)
    start = {each: max(begin[each], end[each] - limit) for each in partitions}
    found = [record async for record in log.read(start, end)]
    return sorted(found, key=_place)[-limit:] if limit else []


async def all_records(log: LogReader, partitions: list[TopicPartition]) -> AsyncIterator[ConsumerRecord]:
    """Every record up to the present ends, ordered within a partition."""
    begin, end = await log.beginnings(partitions), await log.ends(partitions)
    async for record in log.read(begin, end):
        yield record


def after(records: list[ConsumerRecord], ends: Offsets) -> Offsets:
    """Where to go on after some records were shown: behind the last of each partition, else at its end."""
    shown: dict[TopicPartition, int] = {}
    for record in records:
        partition = TopicPartition(record.topic, record.partition)
        shown[partition] = max(shown.get(partition, 0), record.offset + 1)
    return {partition: shown.get(partition, offset) for partition, offset in ends.items()}


def _place(record: ConsumerRecord) -> tuple[int, int, int]:
    return record.timestamp, record.partition, record.offset
