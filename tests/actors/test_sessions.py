from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.fetch import FetchRequest_v11

from actors.runtime.sessions import SessionConsumer
from schemas.fetch_sessions import Session, _Fetch

pytestmark = pytest.mark.asyncio

TOPICS = 5
READ_BYTES = 100_000
VERSIONS = {FetchRequest_v11.API_KEY: (4, 11)}


class Asked(NamedTuple):
    """One fetch as it went to the broker."""

    id: int
    epoch: int
    named: set[str]
    forgotten: set[str]


class Reading:
    """A consumer of some topics, what it asked the broker, and a producer."""

    def __init__(self, consumer: SessionConsumer, producer: AIOKafkaProducer, topics: list[str]) -> None:
        self.consumer, self.producer, self.topics = consumer, producer, topics
        self.places = [TopicPartition(topic, 0) for topic in topics]
        self.asked: list[Asked] = []
        self._send = consumer.sessions._send
        consumer.sessions._send = self._note

    async def _note(self, node: int, request: Any, **options: Any) -> Any:
        if isinstance(request, _Fetch):
            made = request.prepare(VERSIONS)
            named, forgotten = {topic for topic, _ in made.topics}, {topic for topic, _ in made.forgotten_topics_data}
            self.asked.append(Asked(made.session_id, made.session_epoch, named, forgotten))
        return await self._send(node, request, **options)

    async def begin(self) -> None:
        """Read all topics, and wait until nothing but the session is left to talk about."""
        self.consumer.assign(self.places)
        for place in self.places:
            self.consumer.seek(place, 0)
        await self.until(lambda: bool(self.asked) and not self.asked[-1].named)

    async def until(self, happened: Any) -> None:
        async with asyncio.timeout(20):
            while not happened():
                assert not await self.consumer.getmany(timeout_ms=20)

    async def put(self, number: int, text: str) -> None:
        await self.producer.send_and_wait(self.topics[number], text.encode())

    async def next(self) -> list[tuple[int, str]]:
        """The records that come next: number of the topic and text."""
        async with asyncio.timeout(20):
            while not (got := await self.consumer.getmany(timeout_ms=100)):
                pass
        return [(self.topics.index(place.topic), each.value.decode()) for place, many in got.items() for each in many]


@pytest.fixture
async def reading(broker: str) -> AsyncIterator[Reading]:
    prefix = uuid.uuid4().hex[:8]
    topics = [f"{prefix}-{number}" for number in range(TOPICS)]
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1) for topic in topics])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    consumer = SessionConsumer(
        *topics,
        bootstrap_servers=broker,
        enable_auto_commit=False,
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=READ_BYTES,
    )
    await producer.start()
    await consumer.start()
    consumer.unsubscribe()
    made = Reading(consumer, producer, topics)
    await made.begin()
    yield made
    await consumer.stop()
    await producer.stop()


async def test_a_fetch_names_what_has_moved_and_nothing_else(reading: Reading) -> None:
    assert reading.asked[0].epoch == 0
    assert reading.asked[0].named == set(reading.topics)

    await reading.put(3, "a")
    assert await reading.next() == [(3, "a")]

    count = len(reading.asked)
    await reading.until(lambda: len(reading.asked) > count + 2)
    later = reading.asked[count - 1 :]
    assert [each.named for each in later if each.named] == [{reading.topics[3]}]
    assert len({each.id for each in later}) == 1
    assert [each.epoch for each in later] == list(range(later[0].epoch, later[0].epoch + len(later)))


async def test_nothing_is_lost_or_twice_over_many_fetches(reading: Reading) -> None:
    texts = [(number % TOPICS, str(number)) for number in range(200)]

    async def put_all() -> None:
        for number, text in texts:
            await reading.put(number, text)

    putting = asyncio.create_task(put_all())
    got: list[tuple[int, str]] = []
    while len(got) < len(texts):
        got += await reading.next()
    await putting
    assert sorted(got) == sorted(texts)
    for topic in range(TOPICS):
        assert [each for each in got if each[0] == topic] == [each for each in texts if each[0] == topic]


async def test_a_paused_place_is_forgotten_and_comes_back(reading: Reading) -> None:
    reading.consumer.pause(reading.places[1])
    await reading.until(lambda: any(each.forgotten == {reading.topics[1]} for each in reading.asked))
    await reading.put(1, "held")
    await reading.put(2, "goes on")
    assert await reading.next() == [(2, "goes on")]
    reading.consumer.resume(reading.places[1])
    assert await reading.next() == [(1, "held")]


async def test_a_seek_is_told(reading: Reading) -> None:
    await reading.put(0, "again")
    assert await reading.next() == [(0, "again")]
    reading.consumer.seek(reading.places[0], 0)
    assert await reading.next() == [(0, "again")]


async def test_a_session_that_the_broker_has_dropped_is_begun_anew(reading: Reading) -> None:
    sessions = reading.consumer.sessions._sessions
    (node,) = sessions
    sessions[node] = Session(7, 9, {(topic, 0): (0, READ_BYTES) for topic in reading.topics})
    await reading.until(lambda: any(each.id == 7 and each.epoch == 0 for each in reading.asked))
    strange = next(place for place, each in enumerate(reading.asked) if each.id == 7)
    assert reading.asked[strange].epoch == 9
    assert reading.asked[strange].named == set()
    assert reading.asked[strange + 1].named == set(reading.topics)
    await reading.put(4, "after")
    assert await reading.next() == [(4, "after")]


async def test_after_a_fetch_that_failed_everything_is_named(reading: Reading) -> None:
    sessions = reading.consumer.sessions
    send = sessions._send

    async def broken(node: int, request: Any, **options: Any) -> Any:
        sessions._send = send
        await send(node, request, **options)
        raise asyncio.CancelledError  # as when an assignment ends: the broker has noted it, we do not know that

    await reading.put(2, "before")
    assert await reading.next() == [(2, "before")]
    count = len(reading.asked)
    sessions._send = broken
    await reading.until(lambda: len(reading.asked) > count + 3)
    again = [each for each in reading.asked[count:] if each.epoch == 0]
    assert [each.named for each in again] == [set(reading.topics)]
    await reading.put(2, "behind")
    assert await reading.next() == [(2, "behind")]


async def test_who_is_given_partitions_learns_the_ends_of_quiet_ones(reading: Reading) -> None:
    count = len(reading.asked)
    reading.consumer.sessions.renew()
    await reading.until(lambda: any(each.epoch == 0 for each in reading.asked[count:]))
    assert [each.named for each in reading.asked[count:] if each.epoch == 0] == [set(reading.topics)]
    reading.consumer.assign(reading.places)
    for place in reading.places:
        reading.consumer.seek(place, 0)
    reading.consumer.sessions.renew()  # as no fetch need have been under way that the assignment cut off
    await reading.until(lambda: all(reading.consumer.highwater(place) == 0 for place in reading.places))
