"""Outputs on a real Kafka: acked all, and a user's topic that refuses costs a moment and its fallback, nothing else."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ops.codecs import load_codecs
from schemas.settings import Settings
from schemas.topics import INBOX, inbox_name
from streams.processor import EnsureTopic
from streams.runtime.outbox import Outbox, acked
from streams.runtime.wire import Encoded, Wire
from topology import troupe

pytestmark = pytest.mark.kafka
LIMIT_S = 20.0


@pytest.fixture
async def outbox(installed: Settings) -> AsyncIterator[Outbox]:
    producer = AIOKafkaProducer(
        bootstrap_servers=installed.kafka.bootstrap_servers, acks="all", enable_idempotence=True, max_batch_size=1 << 20
    )
    await producer.start()
    made = Outbox(producer, Wire(installed, await load_codecs(installed, troupe())), installed)
    yield made
    await made.close()
    # A batch that its topic never takes would be tried again for ever; the test's end is not to wait for it.
    await asyncio.wait([asyncio.create_task(producer.stop())], timeout=1.0)


async def create(settings: Settings, name: str, **config: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(name, 2, 1, topic_configs=config)])
    for _ in range(100):
        if not (await admin.describe_topics([name]))[0]["error_code"]:
            break
        await asyncio.sleep(0.05)
    await admin.close()
    return name


async def values(settings: Settings, topic: str) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    places = [TopicPartition(topic, number) for number in range(2)]
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    ends = await consumer.end_offsets(places)
    found: list[bytes] = []
    while any([await consumer.position(place) < ends[place] for place in places]):
        for records in (await consumer.getmany(timeout_ms=200)).values():
            found += [record.value for record in records]
    await consumer.stop()
    return found


def reply(settings: Settings, topic: str, value: bytes, partition: int = -1) -> Encoded:
    events = f"{settings.kafka.topic_prefix}tasks.events"
    instead = Encoded(events, 0, b"k", b"instead of " + value, ())
    return Encoded(topic, partition, b"k", value, (), users=True, fallback=instead)


async def test_a_users_topic_gets_its_copy(installed: Settings, outbox: Outbox) -> None:
    topic = await create(installed, f"replies.{uuid.uuid4().hex}")
    await acked(await outbox.send([reply(installed, topic, b"outcome")]), LIMIT_S)
    assert await values(installed, topic) == [b"outcome"]
    assert await values(installed, f"{installed.kafka.topic_prefix}tasks.events") == []


async def test_a_record_too_large_for_a_users_topic_becomes_an_event(installed: Settings, outbox: Outbox) -> None:
    topic = await create(installed, f"replies.{uuid.uuid4().hex}", **{"max.message.bytes": "200"})
    await acked(await outbox.send([reply(installed, topic, b"x" * 500)]), LIMIT_S)
    (told,) = await values(installed, f"{installed.kafka.topic_prefix}tasks.events")
    assert told.startswith(b"instead of ")


@pytest.mark.parametrize("partition", [-1, 7])
async def test_what_a_users_topic_cannot_take_becomes_an_event(
    installed: Settings, outbox: Outbox, partition: int
) -> None:
    missing = f"replies.{uuid.uuid4().hex}"
    topic = missing if partition < 0 else await create(installed, missing)
    await acked(await outbox.send([reply(installed, topic, b"outcome", partition)]), LIMIT_S)
    assert await values(installed, f"{installed.kafka.topic_prefix}tasks.events") == [b"instead of outcome"]


async def test_a_topic_that_does_not_answer_holds_nobody_up_twice(installed: Settings, outbox: Outbox) -> None:
    gone = await create(installed, f"replies.{uuid.uuid4().hex}")
    await acked(await outbox.send([reply(installed, gone, b"0")]), LIMIT_S)
    admin = AIOKafkaAdminClient(bootstrap_servers=installed.kafka.bootstrap_servers)
    await admin.start()
    await admin.delete_topics([gone])
    await admin.close()
    results = f"{installed.kafka.topic_prefix}tasks.results"
    took = []
    for number in (b"1", b"2", b"3"):
        started = time.monotonic()
        own = Encoded(results, 1, b"k", number, ())
        await acked(await outbox.send([reply(installed, gone, number), own]), LIMIT_S)
        took.append(time.monotonic() - started)
    assert took[0] < installed.kafka.reply_timeout_seconds + 3
    assert max(took[1:]) < 1.0, "it is remembered that the topic refuses"
    assert await values(installed, results) == [b"1", b"2", b"3"]
    told = await values(installed, f"{installed.kafka.topic_prefix}tasks.events")
    assert told == [b"instead of 1", b"instead of 2", b"instead of 3"]


async def test_an_inbox_is_there_before_it_is_written_to(installed: Settings, outbox: Outbox) -> None:
    wanted = EnsureTopic(INBOX, inbox_name("newcomer"), 2)
    await outbox.ensure([wanted])
    await outbox.ensure([wanted])
    name = installed.kafka.topic_prefix + inbox_name("newcomer")
    await acked(await outbox.send([Encoded(name, 1, b"k", b"work", ())]), LIMIT_S)
    assert await values(installed, name) == [b"work"]


async def test_an_inbox_keeps_the_partitions_that_it_has(installed: Settings, outbox: Outbox) -> None:
    """Else records would go where no partition is, and the process would stop for it again and again."""
    name = inbox_name("agent")
    await create(installed, installed.kafka.topic_prefix + name)
    for wanted in (3, 1, 4):
        await outbox.ensure([EnsureTopic(INBOX, name, wanted)])
        assert outbox._wire._inbox_partitions[name] == 2
    await outbox.ensure([EnsureTopic(INBOX, inbox_name("other"), 3)])
    assert outbox._wire._inbox_partitions[inbox_name("other")] == 3
