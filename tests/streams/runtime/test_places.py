"""Where outputs go when the coordinator is a process on a real Kafka: a user's topic, and an inbox of several partitions."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic

from schemas.partitioning import home
from schemas.topics import TASK_REQUESTS, TASK_RESULTS, inbox_name
from tests.contract.kafka_stage import KafkaStage
from tests.contract.processor_stage import as_json
from tests.faults.by_hand import admin

pytestmark = pytest.mark.kafka
TASKS = [f"t{number}" for number in range(12)]


@pytest.fixture
def stage(broker: str, tmp_path: Path) -> Iterator[KafkaStage]:
    made = KafkaStage(broker, tmp_path)
    yield made
    made.close()


async def create(broker: str, topic: str, partitions: int) -> str:
    async with admin(broker) as client:
        await client.create_topics([NewTopic(topic, partitions, 1)])
    return topic


def test_the_asker_gets_a_copy_of_each_outcome(stage: KafkaStage, broker: str) -> None:
    topic = asyncio.run(create(broker, f"replies.{uuid.uuid4().hex}", 3))
    stage.agent("worker", "dig", max_in_flight=100)
    for task in TASKS:
        stage.submit(task, required_capabilities=["dig"], reply_to=topic)
    stage.until(lambda: all("assigned" in stage.kinds(task) for task in TASKS))
    for task in TASKS:
        stage.report(task, "worker", "completed", result='{"ok":true}')
    stage.until(lambda: len(stage.read(topic)) == len(TASKS) == len(stage.read(stage.name(TASK_RESULTS))))
    copies = {each.key: each for each in stage.read(topic)}
    own = {each.key: each.value for each in stage.read(stage.name(TASK_RESULTS))}
    assert {key: each.value for key, each in copies.items()} == own
    assert all(each.partition == home(str(key, "ascii"), 3) for key, each in copies.items() if key is not None)


@pytest.mark.parametrize("keeps_store", [True, False])
def test_an_inbox_of_several_partitions_is_used_alike_by_each_process(stage: KafkaStage, keeps_store: bool) -> None:
    topic = stage.settings.kafka.topic_prefix + inbox_name("wide")
    stage.agent("wide", "dig", max_in_flight=100, config='{"inbox_partitions":3}')
    for tasks in (TASKS[:6], TASKS[6:]):
        for task in tasks:
            stage.submit(task, required_capabilities=["dig"])
        stage.until(lambda: {each.key for each in stage.read(topic)} >= {task.encode() for task in tasks})  # noqa: B023
        stage.crash(keeps_store)
    found = {(each.partition, each.key) for each in stage.read(topic)}
    assert found == {(home(task, 3), task.encode()) for task in TASKS}


def test_what_its_topic_just_took_finds_its_home(stage: KafkaStage) -> None:
    """Its copy bears its origin in a header more; were it refused, the coordinator would end for it at each start."""
    value = as_json("large", hold=True, payload={"x": "x" * 900_000})
    topic, away = stage.name(TASK_REQUESTS), 1 - home("large", 2)
    asyncio.run(put(stage.settings.kafka.bootstrap_servers, topic, away, value, 1_048_588 - len(value) - 61 - 30))
    (event,) = stage.until(lambda: stage.events("large"))
    assert event.error is not None and event.error.code == "payload_too_large"


async def put(broker: str, topic: str, partition: int, value: bytes, header_bytes: int) -> None:
    """A record without a key, with a header of this size."""
    producer = AIOKafkaProducer(bootstrap_servers=broker, max_request_size=2_000_000)
    await producer.start()
    await producer.send_and_wait(topic, value, partition=partition, headers=[("padding", b"x" * header_bytes)])
    await producer.stop()
