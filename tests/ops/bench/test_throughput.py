"""The whole bench, small: real processes, a real Kafka, and nothing left on it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from ops.cli.roles import environ_with_sources, troupe_command
from schemas.settings import process_environment

TASKS, WARMUP, PAYLOAD = 300, 50, 256


def bench(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = environ_with_sources(process_environment()) | {"XDG_STATE_HOME": str(state)}
    command = troupe_command("bench", "throughput", *arguments)
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=150, check=False)


async def topics(broker: str) -> list[str]:
    client = AIOKafkaAdminClient(bootstrap_servers=broker)
    await client.start()
    try:
        return await client.list_topics()
    finally:
        await client.close()


@pytest.mark.kafka
def test_a_small_run_on_a_foreign_kafka_loses_nothing_and_leaves_nothing(broker: str, tmp_path: Path) -> None:
    sizes = ["--tasks", str(TASKS), "--warmup", str(WARMUP), "--payload-bytes", str(PAYLOAD), "--in-flight", "100"]
    ended = bench(tmp_path, *sizes, "--broker", broker, "--set", "kafka.partitions=2", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["tasks"], found["payload_bytes"], found["lost"], found["duplicate_results"]) == (TASKS, PAYLOAD, 0, 0)
    assert found["tasks_per_s"] > 0 and found["accepted_per_s"] >= found["tasks_per_s"]
    assert 0 < found["ack_p50_ms"] <= found["ack_p99_ms"]
    assert 0 < found["handler_p50_ms"] < found["result_p50_ms"] <= found["result_p99_ms"]
    for role in ("submitter", "coordinator", "actors"):
        assert found["cpu_us_per_task"][role] > 0 and found["rss_mb"][role] > 10
    assert found["cpu_us_per_task"]["broker"] is None and found["log_bytes_per_task"] is None
    assert found["durability"]["acks"] == "all" and found["durability"]["replication_factor"] == 1
    assert not [name for name in asyncio.run(topics(broker)) if name.startswith("bench-")]


def test_a_kafka_that_is_not_there_is_named(tmp_path: Path) -> None:
    ended = bench(tmp_path, "--broker", "127.0.0.1:1", "--set", "kafka.metadata_timeout_seconds=1")
    assert ended.returncode == 1
    assert "Error: Kafka is not reachable at 127.0.0.1:1" in ended.stderr
    assert ended.stdout == ""
