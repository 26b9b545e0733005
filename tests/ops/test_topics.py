"""`topology apply` on a real broker: creates, checks, refuses, and can be run by anybody at any time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ops.codecs import load_codecs
from ops.topics import admin, apply, found_topics
from schemas.errors import BrokerUnavailable, OperatorError, SchemaError
from schemas.settings import Settings
from schemas.tasks import TaskCommand
from topology import config_of, partitions_of, troupe

pytestmark = pytest.mark.kafka


def changed(settings: Settings, group: str, **values: Any) -> Settings:
    return settings.model_copy(update={group: getattr(settings, group).model_copy(update=values)})


async def create(settings: Settings, name: str, partitions: int, config: dict[str, str]) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    await client.start()
    try:
        topic = NewTopic(settings.kafka.topic_prefix + name, partitions, 1, topic_configs=config)
        response = await client.create_topics([topic])
        assert [code for _name, code, *_ in response.topic_errors] == [0]
    finally:
        await client.close()


async def test_every_topic_gets_what_the_topology_says(settings: Settings) -> None:
    applied = await apply(settings, troupe())
    wanted = {settings.kafka.topic_prefix + topic.name: topic for topic in troupe().all_topics()}
    assert set(applied.created) == set(wanted)
    assert applied.checked == ()
    async with admin(settings) as client:
        found = await found_topics(client, list(wanted))
    for name, topic in wanted.items():
        assert found[name].partitions == partitions_of(topic, settings)
        for key, value in config_of(topic, settings).items():
            assert found[name].config[key] == value, (name, key)


async def test_a_second_apply_creates_nothing(installed: Settings) -> None:
    applied = await apply(installed, troupe())
    assert applied.created == ()
    assert len(applied.checked) == len(list(troupe().all_topics()))


async def test_applies_at_the_same_time_agree(settings: Settings) -> None:
    await asyncio.gather(*(apply(settings, troupe()) for _ in range(4)))
    codecs = await load_codecs(settings, troupe())
    command = TaskCommand(event_id="e", occurred_at=1, source="test", task_id="t")
    codec = codecs.of("tasks.requests-value")
    assert codec.decode(codec.encode(command)) == command


async def test_another_partition_count_is_refused(installed: Settings) -> None:
    with pytest.raises(OperatorError) as caught:
        await apply(changed(installed, "kafka", partitions=3), troupe())
    assert str(caught.value) == f"Topic '{installed.kafka.topic_prefix}tasks.requests' has 2 partitions, wanted are 3"
    assert "kafka.partitions=2" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "config", "found"),
    [
        ("tasks.requests", {}, "message.timestamp.type=CreateTime, wanted is LogAppendTime"),
        ("agents.registry", {"cleanup.policy": "delete"}, "cleanup.policy=delete, wanted is compact"),
        ("tasks.deadletters", {"max.message.bytes": "1000"}, "max.message.bytes=1000, wanted is 4194304"),
    ],
)
async def test_other_settings_are_refused(settings: Settings, name: str, config: dict[str, str], found: str) -> None:
    await create(settings, name, 2, config)
    with pytest.raises(OperatorError) as caught:
        await apply(settings, troupe())
    assert str(caught.value) == f"Topic '{settings.kafka.topic_prefix}{name}' has {found}"
    assert "kafka-configs" in caught.value.hint


async def test_an_operators_own_retention_is_left_alone(settings: Settings) -> None:
    await create(settings, "tasks.events", 2, {"cleanup.policy": "delete", "retention.ms": "60000"})
    await apply(settings, troupe())
    async with admin(settings) as client:
        found = await found_topics(client, [settings.kafka.topic_prefix + "tasks.events"])
    assert [topic.config["retention.ms"] for topic in found.values()] == ["60000"]


async def test_too_few_brokers_is_an_error_that_says_so(settings: Settings) -> None:
    with pytest.raises(OperatorError, match="cannot be created") as caught:
        await apply(changed(settings, "kafka", replication_factor=3), troupe())
    assert "kafka.replication_factor" in caught.value.hint


async def test_no_broker_is_an_error_with_a_next_step(settings: Settings) -> None:
    with pytest.raises(BrokerUnavailable, match=r"Kafka is not reachable at 127\.0\.0\.1:1$") as caught:
        await apply(changed(settings, "kafka", bootstrap_servers="127.0.0.1:1"), troupe())
    assert "troupe up" in caught.value.hint


async def test_codecs_of_some_subjects_only(installed: Settings) -> None:
    codecs = await load_codecs(installed, troupe(), ["tasks.events-value"])
    assert codecs.subjects() == ("tasks.events-value",)
    with pytest.raises(SchemaError):
        codecs.of("tasks.requests-value")
