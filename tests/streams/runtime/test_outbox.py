"""Outputs on a real Kafka: acked all, each where its key belongs, in batches that its topic takes.

A user's topic that refuses costs a moment and its fallback, nothing else.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NotLeaderForPartitionError
from aiokafka.producer.message_accumulator import BatchBuilder

from ops.codecs import load_codecs
from schemas.partitioning import home
from schemas.settings import Settings
from schemas.topics import INBOX, inbox_name
from streams.processor import EnsureTopic
from streams.runtime.outbox import Outbox, acked
from streams.runtime.replies import KNOWN_TOPICS, Replies
from streams.runtime.wire import Encoded, Wire
from topology import troupe

pytestmark = pytest.mark.kafka
LIMIT_S = 20.0
KEYS = [f"task-{number}" for number in range(12)]


@asynccontextmanager
async def outbox_of(settings: Settings) -> AsyncIterator[Outbox]:
    """The outbox of one coordinator, with the limits of its producer."""
    limit = 2 * settings.limits.max_wrapped_bytes
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        acks="all", enable_idempotence=True, max_batch_size=limit, max_request_size=limit,
    )  # fmt: skip
    await producer.start()
    made = Outbox(producer, Wire(settings, await load_codecs(settings, troupe())), settings)
    yield made
    await made.close()
    # A batch that its topic never takes would be tried again for ever; the test's end is not to wait for it.
    await asyncio.wait([asyncio.create_task(producer.stop())], timeout=1.0)


@pytest.fixture
async def outbox(installed: Settings) -> AsyncIterator[Outbox]:
    async with outbox_of(installed) as made:
        yield made


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
    return [value for _, _, value in await records(settings, topic)]


async def records(settings: Settings, topic: str, partitions: int = 2) -> list[tuple[int, bytes, bytes]]:
    """(partition, key, value) of all."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    places = [TopicPartition(topic, number) for number in range(partitions)]
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    ends = await consumer.end_offsets(places)
    found: list[tuple[int, bytes, bytes]] = []
    while any([await consumer.position(place) < ends[place] for place in places]):
        for taken in (await consumer.getmany(timeout_ms=200)).values():
            found += [(record.partition, record.key, record.value) for record in taken]
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


async def test_one_that_is_too_large_spoils_nothing_for_others(installed: Settings, outbox: Outbox) -> None:
    """Neither those that were sent with it nor those that come later."""
    topic = await create(installed, f"replies.{uuid.uuid4().hex}", **{"max.message.bytes": "2000"})
    small = [b"%d" % number for number in range(50)]
    replies = [reply(installed, topic, value, 0) for value in small]
    large = reply(installed, topic, b"x" * 3000, 0)
    await acked(await outbox.send([*replies[:20], large, *replies[20:40]]), LIMIT_S)
    await acked(await outbox.send(replies[40:]), LIMIT_S)
    assert sorted(await values(installed, topic)) == sorted(small)
    (told,) = await values(installed, f"{installed.kafka.topic_prefix}tasks.events")
    assert told.startswith(b"instead of xxx")


async def test_a_partition_that_is_not_there_is_its_asker_s_mistake_alone(installed: Settings, outbox: Outbox) -> None:
    topic = await create(installed, f"replies.{uuid.uuid4().hex}")
    await acked(await outbox.send([reply(installed, topic, b"1", 7), reply(installed, topic, b"2", 1)]), LIMIT_S)
    await acked(await outbox.send([reply(installed, topic, b"3", 0)]), LIMIT_S)
    assert sorted(await values(installed, topic)) == [b"2", b"3"]
    assert await values(installed, f"{installed.kafka.topic_prefix}tasks.events") == [b"instead of 1"]


async def test_replies_to_one_topic_go_together(installed: Settings, outbox: Outbox) -> None:
    """Each by itself was a request by itself: a few hundred were late, and the topic was taken for one that refuses."""
    topic = await create(installed, f"replies.{uuid.uuid4().hex}")
    wanted = [b"%04d" % number + b"x" * 500 for number in range(5000)]
    sent = await outbox.send([reply(installed, topic, value, int(value[3:4]) % 2) for value in wanted])
    assert sent.places == [f"{topic}.-1"]
    await acked(sent, LIMIT_S)
    assert sorted(await values(installed, topic)) == wanted


@pytest.mark.parametrize("never", [False, True], ids=["refused", "unanswered"])
async def test_what_arrived_becomes_no_event_although_another_partition_failed(
    installed: Settings, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, never: bool
) -> None:
    """Nor what arrived in that partition before it failed."""
    topic = await create(installed, f"replies.{uuid.uuid4().hex}")
    await acked(await outbox.send([reply(installed, topic, b"0", 0)]), LIMIT_S)
    producer = outbox._replies._producer
    assert producer is not None
    send, batches = producer.send_batch, 0

    async def send_batch(batch: BatchBuilder, name: str, *, partition: int) -> asyncio.Future[object]:
        nonlocal batches
        batches += partition
        if batches < 2 or not partition:
            answer: asyncio.Future[object] = await send(batch, name, partition=partition)
        else:
            answer = asyncio.get_running_loop().create_future()
            if not never:
                answer.set_exception(NotLeaderForPartitionError())
        return answer

    monkeypatch.setattr(producer, "send_batch", send_batch)
    large = [b"%d" % number + b"x" * (installed.coordinator.batch_bytes * 2 // 3) for number in range(3)]
    told = [reply(installed, topic, value, 1) for value in large]
    await acked(await outbox.send([reply(installed, topic, b"1", 0), *told]), LIMIT_S)
    assert sorted(await values(installed, topic)) == [b"0", large[0], b"1"]
    events = await values(installed, f"{installed.kafka.topic_prefix}tasks.events")
    assert sorted(events) == [b"instead of " + value for value in large[1:]]


async def test_topics_are_not_remembered_for_ever() -> None:
    async def nobody() -> NoReturn:
        raise AssertionError("nothing is asked for")

    replies = Replies(Settings(), nobody)
    for number in range(KNOWN_TOPICS + 10):
        replies._remember(f"replies.{number}", 1)
    assert len(replies._known) == KNOWN_TOPICS
    assert f"replies.{KNOWN_TOPICS + 9}" in replies._known and "replies.9" not in replies._known


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
    topic = await create(installed, installed.kafka.topic_prefix + name)
    for wanted in (3, 1, 4):
        await outbox.ensure([EnsureTopic(INBOX, name, wanted)])
        await acked(await outbox.send(work(topic)), LIMIT_S)
    assert where(await records(installed, topic)) == {(home(key, 2), key.encode()) for key in KEYS}


async def test_each_coordinator_finds_the_same_partition_of_an_inbox(installed: Settings) -> None:
    """Only the owner of the agent's row is told how many there are; the others assign to it all the same."""
    name = inbox_name("wide")
    topic = installed.kafka.topic_prefix + name
    async with outbox_of(installed) as owner, outbox_of(installed) as other, outbox_of(installed) as next_owner:
        await owner.ensure([EnsureTopic(INBOX, name, 3)])
        for each in (owner, other, next_owner, other):
            await acked(await each.send(work(topic)), LIMIT_S)
    found = await records(installed, topic, 3)
    assert len(found) == 4 * len(KEYS)
    assert where(found) == {(home(key, 3), key.encode()) for key in KEYS}
    assert {number for number, _, _ in found} == {0, 1, 2}


async def test_an_inbox_that_somebody_deleted_is_made_again(installed: Settings, outbox: Outbox) -> None:
    """A cancel for an agent that is gone has nobody else to make its inbox."""
    topic = installed.kafka.topic_prefix + inbox_name("gone")
    await acked(await outbox.send(work(topic)), LIMIT_S)
    assert where(await records(installed, topic, 1)) == {(0, key.encode()) for key in KEYS}
    assert await config(installed, topic, "max.message.bytes") == str(installed.limits.max_wrapped_bytes)


async def test_many_inboxes_are_asked_about_together(
    installed: Settings, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turn they took 40 s for a thousand, in which nothing else was done."""
    names = [inbox_name(f"one-of-{number}") for number in range(30)]
    topics = [installed.kafka.topic_prefix + name for name in names]
    await outbox.ensure([EnsureTopic(INBOX, name, 1) for name in names])
    ask, asking, most = outbox._producer.partitions_for, 0, 0

    async def partitions_for(topic: str) -> set[int]:
        nonlocal asking, most
        asking, most = asking + 1, max(most, asking + 1)
        found: set[int] = await ask(topic)
        asking -= 1
        return found

    monkeypatch.setattr(outbox._producer, "partitions_for", partitions_for)
    outputs = [output for topic in topics for output in work(topic)]
    await acked(await outbox.send(outputs), LIMIT_S)
    assert most == len(topics)
    assert where(await records(installed, topics[-1], 1)) == {(0, key.encode()) for key in KEYS}


async def test_results_that_are_too_much_for_one_batch_go_in_several(installed: Settings, outbox: Outbox) -> None:
    """A topic takes a mebibyte at once; what finishes together may be more, and would be sent again at each start."""
    topic = f"{installed.kafka.topic_prefix}tasks.results"
    large = [Encoded(topic, 1, b"%d" % number, b"x" * 100_000, ()) for number in range(25)]
    sent = await outbox.send([*large, Encoded(topic, 1, b"alone", b"x" * 1_000_000, ()), *large[:1]])
    assert sent.places == [f"{topic}.1"] * 6
    await acked(sent, LIMIT_S)
    assert [key for _, key, _ in await records(installed, topic)] == [b"%d" % n for n in range(25)] + [b"alone", b"0"]


async def config(settings: Settings, topic: str, name: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    await admin.start()
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    await admin.close()
    found: dict[str, str] = {
        entry[0]: entry[1] for each in answers for resource in each.resources for entry in resource[4]
    }
    return found[name]


def work(topic: str) -> list[Encoded]:
    return [Encoded(topic, -1, key.encode(), b"work", ()) for key in KEYS]


def where(found: list[tuple[int, bytes, bytes]]) -> set[tuple[int, bytes]]:
    return {(number, key) for number, key, _ in found}
