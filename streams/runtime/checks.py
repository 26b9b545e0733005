"""What must be true of the topics before a coordinator may touch them.

Each of these would lose tasks in silence: another partition count sends keys elsewhere, a changelog that deletes by age
loses rows, and an empty changelog under a group with commits means that all rows are gone.
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
from streams.processor import ProcessorSpec

APPLY = "run `troupe topology apply`, if it is the right Kafka and the right kafka.topic_prefix"


async def refuse_unsound_topics(settings: Settings, specs: Sequence[ProcessorSpec]) -> None:
    """Raises OperatorError naming the topic and the remedy, BrokerUnavailable if Kafka does not answer in time."""
    bootstrap = settings.kafka.bootstrap_servers
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        async with asyncio.timeout(settings.kafka.metadata_timeout_seconds):
            await admin.start()
            for spec in specs:
                await _refuse_counts(admin, settings, spec)
                await _refuse_policy(admin, settings, spec)
            await _refuse_lost_rows(admin, settings, specs)
    except (KafkaError, TimeoutError) as error:
        raise BrokerUnavailable.at(bootstrap) from error
    finally:
        await admin.close()


async def _refuse_counts(admin: AIOKafkaAdminClient, settings: Settings, spec: ProcessorSpec) -> None:
    prefix, wanted = settings.kafka.topic_prefix, settings.kafka.partitions
    names = [prefix + topic.name for topic in (*spec.reads, *spec.views, spec.changelog)]
    for found in await admin.describe_topics(names):
        name, count = found["topic"], len(found["partitions"])
        if found["error_code"]:
            raise OperatorError(f"Topic '{name}' does not exist", hint=APPLY)
        if count != wanted:
            raise OperatorError(
                f"Topic '{name}' has {count} partitions, the settings say {wanted}",
                hint=f"set kafka.partitions to {count}, or use a new kafka.topic_prefix",
            )


async def _refuse_policy(admin: AIOKafkaAdminClient, settings: Settings, spec: ProcessorSpec) -> None:
    name = settings.kafka.topic_prefix + spec.changelog.name
    answers: Any = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    values = {entry[0]: entry[1] for answer in answers for resource in answer.resources for entry in resource[4]}
    policy = values.get("cleanup.policy")
    if policy != "compact":
        raise OperatorError(
            f"Changelog '{name}' has cleanup.policy={policy}: rows would be deleted by age",
            hint=f"kafka-configs --bootstrap-server {settings.kafka.bootstrap_servers} --alter --entity-type topics"
            f" --entity-name {name} --add-config cleanup.policy=compact",
        )


async def _refuse_lost_rows(admin: AIOKafkaAdminClient, settings: Settings, specs: Sequence[ProcessorSpec]) -> None:
    prefix, bootstrap = settings.kafka.topic_prefix, settings.kafka.bootstrap_servers
    commits = await admin.list_consumer_group_offsets(f"{prefix}coordinator")
    committed = {(tp.topic, tp.partition): found.offset for tp, found in commits.items() if found.offset > 0}
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        for spec in specs:
            name = prefix + spec.changelog.name
            places = [TopicPartition(name, number) for number in range(settings.kafka.partitions)]
            ends = await consumer.end_offsets(places)
            for place in places:
                read = [topic.name for topic in spec.inputs if (prefix + topic.name, place.partition) in committed]
                if not ends[place] and read:
                    raise OperatorError(
                        f"Changelog '{name}.{place.partition}' is empty, but records of {', '.join(read)} were processed:"
                        " its rows are lost",
                        hint=f"restore it, or start over: under another kafka.topic_prefix, or delete the group"
                        f" {prefix}coordinator and all topics of this prefix",
                    )
    finally:
        await consumer.stop()
