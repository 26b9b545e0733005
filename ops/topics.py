"""`topology apply`: make the cluster fit the topology, and say exactly where it does not.

Topics are created here and nowhere else (inboxes aside, which follow their agents), because a topic that a broker makes
on first use has the wrong partition count, and that count can never be put right: keys would move. So a missing topic
is created with all its settings, and one that is there is checked and never changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from ops.registry.schema_log import TOPIC as SCHEMAS
from ops.registry.schema_log import register_schemas
from schemas.avro import avro_schema
from schemas.closing import closed
from schemas.errors import BrokerUnavailable, OperatorError
from schemas.settings import Settings
from schemas.topics import Topic
from topology import Topology, config_of, partitions_of

CHECKED = ("cleanup.policy", "message.timestamp.type", "max.message.bytes")
"""Kafka settings that must be as the topology says; the others (retention, say) an operator may change."""

_OK, _ALREADY_EXISTS, _UNKNOWN_TOPIC = 0, 36, 3
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did: real names of the topics it created and of those it found right; the registered subjects."""

    created: tuple[str, ...]
    checked: tuple[str, ...]
    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A topic as the cluster has it."""

    name: str
    partitions: int
    config: Mapping[str, str]


@asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client, closed at the end. Raises BrokerUnavailable if the broker does not answer in time."""
    bootstrap, limit_s = settings.kafka.bootstrap_servers, settings.kafka.metadata_timeout_seconds
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=int(limit_s * 1000))
    try:
        async with asyncio.timeout(limit_s):
            await client.start()
    except (KafkaError, OSError, TimeoutError) as error:
        await closed(client.close(), limit_s)
        raise BrokerUnavailable.at(bootstrap) from error
    try:
        yield client
    except KafkaError as error:  # not OSError: in the caller's block that may be a file or a closed pipe
        raise BrokerUnavailable.at(bootstrap) from error
    finally:
        await closed(client.close(), limit_s)


async def apply(settings: Settings, topology: Topology) -> Applied:
    """Create every topic that is missing, check the others, register the schemas. Safe to run again, and at once.

    Raises OperatorError naming the topic, what was found and what is wanted; BrokerUnavailable; SchemaError if a schema
    may not follow its registered versions. Each wait is bounded by `kafka.metadata_timeout_seconds`.
    """
    wanted = {settings.kafka.topic_prefix + topic.name: topic for topic in topology.all_topics()}
    async with admin(settings) as client:
        replicas = await _replicas(client, settings)
        before = await found_topics(client, list(wanted))
        missing = [name for name in wanted if name not in before]
        new = [_new(name, wanted[name], replicas, settings) for name in missing]
        if not await found_topics(client, [SCHEMAS]):
            new.append(NewTopic(SCHEMAS, 1, replicas, topic_configs={"cleanup.policy": "compact"}))
        await _create(client, new, replicas)
        present = await _until_present(client, [*wanted, SCHEMAS], settings.kafka.metadata_timeout_seconds)
    for name, topic in wanted.items():
        check_topic(present[name], topic, settings)
    subjects = {subject: avro_schema(model) for subject, model in topology.models().items()}
    await register_schemas(
        settings.kafka.bootstrap_servers, subjects, settings.kafka.metadata_timeout_seconds, replicas
    )  # fmt: skip
    return Applied(tuple(missing), tuple(name for name in wanted if name in before), tuple(subjects))


async def found_topics(client: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, Found]:
    """Those of the named topics that exist, with partition count and effective settings."""
    described = await client.describe_topics(list(names)) if names else []
    counts = {each["topic"]: len(each["partitions"]) for each in described if each["error_code"] == _OK}
    if not counts:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in counts]
    configs: dict[str, dict[str, str]] = {}
    for response in await client.describe_configs(resources):
        for code, message, _kind, name, entries in response.resources:
            if code == _UNKNOWN_TOPIC:  # deleted, or not yet known to the broker that was asked
                continue
            if code != _OK:
                raise for_code(code)(message)
            configs[name] = {entry[0]: entry[1] for entry in entries}
    return {name: Found(name, counts[name], configs[name]) for name in counts if name in configs}


async def _replicas(client: AIOKafkaAdminClient, settings: Settings) -> int:
    if settings.kafka.replication_factor is not None:
        return settings.kafka.replication_factor
    brokers = len((await client.describe_cluster())["brokers"])
    return 1 if brokers == 1 else 3


def _new(name: str, topic: Topic, replicas: int, settings: Settings) -> NewTopic:
    return NewTopic(name, partitions_of(topic, settings), replicas, topic_configs=config_of(topic, settings))


async def _create(client: AIOKafkaAdminClient, topics: list[NewTopic], replicas: int) -> None:
    if not topics:
        return
    response = await client.create_topics(topics)
    for name, code, message in response.topic_errors:
        if code not in (_OK, _ALREADY_EXISTS):
            raise OperatorError(
                f"Topic '{name}' cannot be created: {message or for_code(code).__name__}",
                hint=f"with fewer than {replicas} brokers set kafka.replication_factor; else ask who runs the cluster",
            )


async def _until_present(client: AIOKafkaAdminClient, names: Sequence[str], limit_s: float) -> dict[str, Found]:
    """All named topics; a new one takes a moment until every broker knows it."""
    deadline = time.monotonic() + limit_s
    while len(present := await found_topics(client, names)) < len(names):
        if time.monotonic() >= deadline:
            absent = ", ".join(sorted(set(names) - set(present)))
            raise OperatorError(
                f"Topics were created and are not there after {limit_s:g} s: {absent}",
                hint="run `troupe topology apply` again",
            )
        await asyncio.sleep(_POLL_S)
    return present


def check_topic(found: Found, topic: Topic, settings: Settings) -> None:
    """Refuse a topic that is laid out otherwise than the topology says. Raises OperatorError with both values."""
    wanted = partitions_of(topic, settings)
    if found.partitions != wanted:
        raise OperatorError(
            f"Topic '{found.name}' has {found.partitions} partitions, wanted are {wanted}",
            hint=f"set kafka.partitions to the installation's count (--set kafka.partitions={found.partitions}), "
            "or use another kafka.topic_prefix",
        )
    for key, value in config_of(topic, settings).items():
        if key in CHECKED and not _fits(key, found.config.get(key, ""), value):
            raise OperatorError(
                f"Topic '{found.name}' has {key}={found.config.get(key, '')}, wanted is {value}",
                hint=f"kafka-configs --bootstrap-server {settings.kafka.bootstrap_servers} --alter "
                f"--entity-type topics --entity-name {found.name} --add-config {key}={value}",
            )


def _fits(key: str, found: str, wanted: str) -> bool:
    if key == "max.message.bytes":
        return int(found or 0) >= int(wanted)
    return found == wanted
