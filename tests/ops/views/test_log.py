"""Reading topics on a real broker: to their ends, the last few, and on."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from ops.views.log import LogReader, open_log
from ops.views.topics import after, all_records, last_records, list_topics
from schemas.errors import BrokerUnavailable, OperatorError
from schemas.settings import Kafka, Settings
from tests.streams.runtime.spoilt import READABLE, send
from topology import troupe

pytestmark = pytest.mark.kafka


async def write(settings: Settings, topic: str, values: dict[int, list[str]], transaction: bool = False) -> None:
    """Write values by partition, one second apart, the partitions in turn."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        transactional_id=f"{topic}-writer" if transaction else None,
    )
    await producer.start()
    try:
        for partition, texts in values.items():
            if transaction:
                await producer.begin_transaction()
            for number, text in enumerate(texts):
                at = 1_700_000_000_000 + 1000 * number + partition
                await producer.send_and_wait(topic, text.encode(), partition=partition, timestamp_ms=at)
            if transaction:
                await producer.commit_transaction()
    finally:
        await producer.stop()


async def values_of(log: LogReader, partitions: list[TopicPartition]) -> list[str]:
    return sorted([record.value.decode() async for record in all_records(log, partitions)])


async def test_it_reads_to_the_ends_and_the_last_few_in_time_order(installed: Settings) -> None:
    name = installed.kafka.topic_prefix + "tasks.events"
    await write(installed, name, {0: ["a0", "a1", "a2", "a3"], 1: ["b0", "b1"]})
    async with open_log(installed) as log:
        partitions = await log.partitions(name)
        assert await values_of(log, partitions) == ["a0", "a1", "a2", "a3", "b0", "b1"]
        last = await last_records(log, partitions, 3)
        assert [record.value.decode() for record in last] == ["b1", "a2", "a3"]
        assert await last_records(log, partitions, 0) == []
        assert len(await last_records(log, partitions, 100)) == 6


async def test_a_header_name_that_is_no_text_hides_no_record(installed: Settings) -> None:
    name = installed.kafka.topic_prefix + "tasks.events"
    await send(
        installed.kafka.bootstrap_servers, name, [("k", each.encode(), each == "a1") for each in ("a0", "a1", "a2")]
    )
    async with open_log(installed) as log:
        records = await last_records(log, await log.partitions(name), 3)
        assert [(record.value, record.headers) for record in records] == [
            (b"a0", ()), (b"a1", ((READABLE, b"x"),)), (b"a2", ()),
        ]  # fmt: skip


async def test_markers_of_transactions_are_not_waited_for(installed: Settings) -> None:
    name = installed.kafka.topic_prefix + "tasks.events"
    await write(installed, name, {0: ["a0", "a1"], 1: ["b0"]}, transaction=True)
    async with open_log(installed) as log, asyncio.timeout(10):
        assert await values_of(log, await log.partitions(name)) == ["a0", "a1", "b0"]


async def test_following_goes_on_behind_what_was_shown(installed: Settings) -> None:
    name = installed.kafka.topic_prefix + "tasks.events"
    await write(installed, name, {0: ["a0"], 1: ["b0"]})
    async with open_log(installed) as log:
        partitions = await log.partitions(name)
        start = after(await last_records(log, partitions, 2), await log.ends(partitions))
        await write(installed, name, {0: ["a1"], 1: ["b1"]})
        found: list[str] = []
        async with asyncio.timeout(20):
            async for record in log.follow(start):
                if record is not None:
                    found.append(record.value.decode())
                if len(found) == 2:
                    break
    assert sorted(found) == ["a1", "b1"]


async def test_topics_are_listed_with_what_they_hold(installed: Settings) -> None:
    prefix = installed.kafka.topic_prefix
    await write(installed, prefix + "tasks.events", {0: ["a0", "a1"], 1: ["b0"]})
    async with open_log(installed) as log:
        listed = {each.name: each for each in await list_topics(log, installed, troupe())}
    ours = {prefix + topic.name for topic in troupe().all_topics()}
    assert set(listed) == ours | {"_schemas"}
    events = listed[prefix + "tasks.events"]
    assert (events.partitions, events.key, events.record, events.retention, events.records) == (
        2, "task_id", "TaskEvent", "E", 3,
    )  # fmt: skip


async def test_an_absent_topic_and_an_absent_broker_are_named(installed: Settings) -> None:
    async with open_log(installed) as log:
        with pytest.raises(OperatorError, match="Topic 'nope' does not exist"):
            await log.partitions("nope")
    with pytest.raises(BrokerUnavailable, match=r"Kafka is not reachable at 127\.0\.0\.1:1$"):
        async with open_log(Settings(kafka=Kafka(bootstrap_servers="127.0.0.1:1"))):
            pass
