"""What no part of ours would do to a topic, done by hand: foreign records in a changelog, topics deleted and made anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from schemas.changelog import HEADER_KEY
from tests.faults.checker import Found, read_all


@asynccontextmanager
async def foreign_producer(broker: str, transaction: str | None = None) -> AsyncIterator[AIOKafkaProducer]:
    """A producer of somebody else's."""
    more = {"transactional_id": transaction} if transaction else {}
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", **more)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def meddle(broker: str, changelog: str, kind: str) -> int:
    """Append to a partition of a changelog that has rows; returns how many records.

    rows: an old value of a known key and an unknown key, without a header row. garbage: the same and a header row that is
    none. copy: the last batch once more. transaction: the same as rows, committed, so that a marker ends the log.
    """
    history = await read_all(broker, changelog, 2)
    known = next(each for each in history if each.key != HEADER_KEY and each.value is not None)
    partition = known.partition
    history = [each for each in history if each.partition == partition]
    records = [(known.key, known.value), (b"by-hand", known.value)]
    if kind == "garbage":
        records.append((HEADER_KEY, b"no header"))
    if kind == "copy":
        records = _last_batch(history)
    transaction = f"by-hand.{changelog}.{partition}" if kind == "transaction" else None
    async with foreign_producer(broker, transaction) as producer:
        if transaction:
            async with producer.transaction():
                for key, value in records:
                    await producer.send_and_wait(changelog, value, key=key, partition=partition)
        else:
            for key, value in records:
                await producer.send_and_wait(changelog, value, key=key, partition=partition)
    return len(records)


def _last_batch(history: list[Found]) -> list[tuple[bytes | None, bytes | None]]:
    headers = [n for n, each in enumerate(history) if each.key == HEADER_KEY]
    with_rows = [(first, last) for first, last in pairwise(headers) if last > first + 1]
    first, last = with_rows[-1]
    return [(each.key, each.value) for each in history[first + 1 : last + 1]]


@asynccontextmanager
async def admin(broker: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=broker)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def make_anew(broker: str, topic: str, partitions: int, config: dict[str, str]) -> None:
    """Delete a topic and create it under its name, empty."""
    async with admin(broker) as client:
        await client.delete_topics([topic])
        for _ in range(100):
            await asyncio.sleep(0.1)
            (found,) = await client.describe_topics([topic])
            if found["error_code"]:
                break
        for _ in range(100):
            try:
                answer = await client.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])
                if not answer.topic_errors[0][1]:
                    break
            except KafkaError:
                pass
            await asyncio.sleep(0.1)
        for _ in range(100):
            (found,) = await client.describe_topics([topic])
            if not found["error_code"] and len(found["partitions"]) == partitions:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{topic} was not made anew")


async def set_config(broker: str, topic: str, **config: str) -> None:
    """Change settings of a topic; returns when the broker says them itself."""
    wanted = {name.replace("_", "."): value for name, value in config.items()}
    async with admin(broker) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=wanted)])
        for _ in range(100):
            answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            found = {entry[0]: entry[1] for answer in answers for resource in answer.resources for entry in resource[4]}
            if wanted.items() <= found.items():
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{topic} did not take {wanted}")
