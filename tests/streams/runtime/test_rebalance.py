"""A rebalance hands over what is done, so that the next owner reads nothing of it again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from ops.cli.roles import children
from schemas.partitioning import home
from schemas.settings import Coordinator, Settings
from tests.faults.roles import READY_S, Role

pytestmark = pytest.mark.kafka
TASKS = [f"t{number}" for number in range(30)]


async def until(happened: Callable[[], bool | Awaitable[bool]], role: Role) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        role.look()
        found = happened()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline, role.log()[-3000:]
        await asyncio.sleep(0.05)


async def ends(settings: Settings, topic: str) -> dict[TopicPartition, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers)
    await consumer.start()
    name = settings.kafka.topic_prefix + topic
    found = await consumer.end_offsets([TopicPartition(name, number) for number in range(settings.kafka.partitions)])
    await consumer.stop()
    return dict(found)


async def committed(settings: Settings, topic: str) -> dict[TopicPartition, int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    await admin.start()
    found = await admin.list_consumer_group_offsets(f"{settings.kafka.topic_prefix}coordinator")
    await admin.close()
    name = settings.kafka.topic_prefix + topic
    return {place: at.offset for place, at in found.items() if place.topic == name and at.offset > 0}


async def submit(settings: Settings) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)
    await producer.start()
    name = settings.kafka.topic_prefix + "tasks.requests"
    for task in TASKS:
        value = json.dumps({"task_id": task, "hold": True}).encode()
        await producer.send(name, value, key=task.encode(), partition=home(task, settings.kafka.partitions))
    await producer.stop()


async def test_who_joins_reads_nothing_again(installed: Settings) -> None:
    """Nothing is committed but by the rebalance: the next commit would be due in an hour."""
    member = Coordinator(replicas=2, commit_interval_seconds=3600, heartbeat_seconds=0.3, idle_seconds=0.02)
    settings = installed.model_copy(update={"coordinator": member})
    first, second = (Role(spec) for spec in children(settings, os.environ, ("coordinator",), ()))
    try:
        first.start()
        await until(lambda: first.was_ready, first)
        await submit(settings)

        async def accepted() -> bool:
            return sum((await ends(settings, "tasks.events")).values()) == len(TASKS)

        await until(accepted, first)
        await asyncio.sleep(0.2)  # the last outputs are in the log; their acks are heard of by now
        assert await committed(settings, "tasks.requests") == {}
        second.start()
        await until(lambda: second.was_ready, second)
        assert await committed(settings, "tasks.requests") == await ends(settings, "tasks.requests")
        assert first.alive
    finally:
        for role in (first, second):
            role.signal(signal.SIGKILL)
            if role.process is not None:
                role.process.wait(10)
