"""What must be true of the topics before a coordinator may touch them.

Most of these would lose tasks in silence: another partition count sends keys elsewhere, a changelog that deletes by age
loses rows, and an empty changelog under a group with commits means that all rows are gone. A topic that takes less at once
than we send would end us at the first busy moment, and at each start after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from schemas.errors import BrokerUnavailable, OperatorError
from schemas.settings import Settings
from schemas.topics import Topic
from streams.processor import ProcessorSpec
from streams.runtime.partition import HEADER_ROOM_BYTES

CHANGELOG_ROOM_BYTES = 2 * HEADER_ROOM_BYTES
"""What a changelog batch may hold besides rows: a header row full of notes, and tombstones of what leaves with it."""

LEAST_BATCH_BYTES = 10_000
"""The setting's own lower bound."""

APPLY = "run `troupe topology apply`, if it is the right Kafka and the right kafka.topic_prefix"


async def refuse_unsound_topics(settings: Settings, specs: Sequence[ProcessorSpec]) -> None:
    """Raises OperatorError naming the topic and the remedy, BrokerUnavailable if Kafka does not answer in time."""
    bootstrap = settings.kafka.bootstrap_servers
    _refuse_large_batches(settings)
    _refuse_early_trust(settings)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        async with asyncio.timeout(settings.kafka.metadata_timeout_seconds):
            await admin.start()
            for spec in specs:
                await _refuse_counts(admin, settings, spec)
                await _refuse_configs(admin, settings, spec)
            await _refuse_lost_rows(settings, specs)
    except (KafkaError, TimeoutError) as error:
        raise BrokerUnavailable.at(bootstrap) from error
    finally:
        await admin.close()


async def _refuse_counts(admin: AIOKafkaAdminClient, settings: Settings, spec: ProcessorSpec) -> None:
    prefix, wanted = settings.kafka.topic_prefix, settings.kafka.partitions
    names = [prefix + topic.name for topic in (*spec.reads, *spec.views, *_written(spec))]
    for found in await admin.describe_topics(names):
        name, count = found["topic"], len(found["partitions"])
        if found["error_code"]:
            raise OperatorError(f"Topic '{name}' does not exist", hint=APPLY)
        if count != wanted:
            raise OperatorError(
                f"Topic '{name}' has {count} partitions, the settings say {wanted}",
                hint=f"set kafka.partitions to {count}, or use a new kafka.topic_prefix",
            )


def _written(spec: ProcessorSpec) -> tuple[Topic, ...]:
    """All topics that it writes to under a name of its own, its changelog first; inboxes are made on the way."""
    return spec.changelog, spec.repartition, spec.wakes, *(topic for topic in spec.outputs_to if not topic.family)


async def _refuse_configs(admin: AIOKafkaAdminClient, settings: Settings, spec: ProcessorSpec) -> None:
    names = [settings.kafka.topic_prefix + topic.name for topic in _written(spec)]
    answers: Any = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    values: dict[str, dict[str, str]] = {
        name: {entry[0]: entry[1] for entry in entries}
        for answer in answers
        for _, _, _, name, entries in answer.resources
    }
    changelog = names[0]
    policy = values[changelog].get("cleanup.policy")
    if policy != "compact":
        raise OperatorError(
            f"Changelog '{changelog}' has cleanup.policy={policy}: rows would be deleted by age",
            hint=_alter(settings, changelog, "cleanup.policy=compact"),
        )
    for name in names:
        room = CHANGELOG_ROOM_BYTES if name == changelog else 0
        if takes := values[name].get("max.message.bytes"):
            _refuse_small(settings, name, int(takes), room)


def _refuse_large_batches(settings: Settings) -> None:
    """Inboxes come and go with their agents, so only what they are made with can be looked at."""
    batch_bytes, inbox_bytes = settings.coordinator.batch_bytes, settings.limits.max_wrapped_bytes
    if batch_bytes > inbox_bytes:
        raise OperatorError(
            f"coordinator.batch_bytes is {batch_bytes}, inboxes take {inbox_bytes} bytes at once (limits.max_wrapped_bytes)",
            hint=f"set coordinator.batch_bytes to {inbox_bytes} or less",
        )


def _refuse_early_trust(settings: Settings) -> None:
    """A copy that may still be on its way would be taken for one that has come, and the row that knows it would leave."""
    copy_s, produce_s = settings.coordinator.copy_seconds, settings.kafka.request_timeout_seconds
    if copy_s <= produce_s:
        raise OperatorError(
            f"coordinator.copy_seconds is {copy_s:g}, and a produce may take {produce_s:g} s (kafka.request_timeout_seconds)",
            hint=f"set coordinator.copy_seconds to {4 * produce_s:g}",
        )


def _refuse_small(settings: Settings, name: str, takes: int, room: int) -> None:
    """A broker refuses a batch that is larger than its topic takes, and would refuse it again at each start."""
    batch_bytes = settings.coordinator.batch_bytes
    wanted = batch_bytes + room
    if wanted > takes:
        lower = f"set coordinator.batch_bytes to {takes - room} or less" if takes - room >= LEAST_BATCH_BYTES else ""
        enlarge = _alter(settings, name, f"max.message.bytes={wanted}")
        besides = f", and header rows need {room} besides" if room else ""
        raise OperatorError(
            f"Topic '{name}' takes {takes} bytes at once (max.message.bytes), coordinator.batch_bytes is {batch_bytes}"
            f"{besides}",
            hint=f"{lower}, or: {enlarge}" if lower else enlarge,
        )


def _alter(settings: Settings, name: str, config: str) -> str:
    return (
        f"kafka-configs --bootstrap-server {settings.kafka.bootstrap_servers} --alter --entity-type topics"
        f" --entity-name {name} --add-config {config}"
    )


async def _refuse_lost_rows(settings: Settings, specs: Sequence[ProcessorSpec]) -> None:
    prefix, bootstrap = settings.kafka.topic_prefix, settings.kafka.bootstrap_servers
    # Not the admin client: it takes a group that is just being loaded for one without commits; a consumer waits for it.
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, group_id=f"{prefix}coordinator")
    await consumer.start()
    try:
        committed = await _committed(consumer, settings, specs)
        for spec in specs:
            name = prefix + spec.changelog.name
            places = [TopicPartition(name, number) for number in range(settings.kafka.partitions)]
            ends = await consumer.end_offsets(places)
            for place in places:
                inputs = {topic.name: TopicPartition(prefix + topic.name, place.partition) for topic in spec.inputs}
                read = [topic for topic, each in inputs.items() if each in committed]
                if not ends[place] and read:
                    raise OperatorError(
                        f"Changelog '{name}.{place.partition}' is empty, but records of {', '.join(read)} were processed:"
                        " its rows are lost",
                        hint=f"restore it, or start over: under another kafka.topic_prefix, or delete the group"
                        f" {prefix}coordinator and all topics of this prefix",
                    )
    finally:
        await consumer.stop()


async def _committed(
    consumer: AIOKafkaConsumer, settings: Settings, specs: Sequence[ProcessorSpec]
) -> set[TopicPartition]:
    """Inputs of which our group has done anything."""
    names = {settings.kafka.topic_prefix + topic.name for spec in specs for topic in spec.inputs}
    places = [TopicPartition(name, number) for name in sorted(names) for number in range(settings.kafka.partitions)]
    found = await asyncio.gather(*(consumer.committed(place) for place in places))
    return {place for place, offset in zip(places, found, strict=True) if offset}
