"""Requests from producers that compress, as most clients can: none may stop a coordinator."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas.partitioning import home
from schemas.topics import TASK_REQUESTS
from tests.contract.kafka_stage import KafkaStage
from tests.contract.processor_stage import as_json

pytestmark = pytest.mark.kafka


def test_requests_may_be_compressed_in_each_way_that_kafka_knows(broker: str, tmp_path: Path) -> None:
    stage = KafkaStage(broker, tmp_path)
    try:
        for codec in ("gzip", "snappy", "lz4", "zstd"):
            tasks = [f"{codec}-{number}" for number in range(20)]
            producer = Producer({"bootstrap.servers": broker, "compression.type": codec, "linger.ms": 50})
            for task in tasks:
                producer.produce(stage.name(TASK_REQUESTS), as_json(task, hold=True), task.encode(), home(task, 2))
            assert producer.flush(10) == 0
            stage.until(lambda: all(stage.kinds(task) == ["accepted"] for task in tasks))  # noqa: B023
        assert stage._role.exits == {}
    finally:
        stage.close()
