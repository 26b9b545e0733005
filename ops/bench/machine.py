"""What a figure was measured on. Without it a figure cannot be compared with any other."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from aiokafka.admin import AIOKafkaAdminClient

from ops.broker.jars import KAFKA_VERSION
from ops.broker.java import find_java
from ops.topics import admin, found_topics
from schemas.settings import Settings
from schemas.topics import TASK_REQUESTS

PACKAGES = ("troupe", "aiokafka", "faust-streaming", "fastavro", "pydantic", "rocksdict")
_OS_DECIDES = 2**63 - 1  # Kafka's default of flush.messages: a record is on disk when the system writes it there
_GIGABYTE = 1024**3


def cores() -> int:
    """Cores that this process may use, fewer than there are under `taskset`."""
    process = psutil.Process()
    allowed = process.cpu_affinity() if hasattr(process, "cpu_affinity") else None
    return len(allowed or ()) or psutil.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory in GiB, system."""
    return {
        "cpu": _processor(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / _GIGABYTE, 1),
        "system": platform.platform(),
    }


def versions(embedded: bool) -> dict[str, str | None]:
    """Of Python, the packages that do the work, the embedded Kafka and its Java; None for what is not ours."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    found |= {name: _version(name) for name in PACKAGES}
    return found | {
        "kafka": KAFKA_VERSION if embedded else None,
        "java": str(find_java().major) if embedded else None,
    }


async def durability(settings: Settings) -> dict[str, Any]:
    """What a confirmed submit rests on, as the broker has it for the topic of requests."""
    name = settings.kafka.topic_prefix + TASK_REQUESTS.name
    async with admin(settings) as client:
        found = (await found_topics(client, [name]))[name]
        replicas = await _replicas(client, name)
    flush = int(found.config.get("flush.messages", _OS_DECIDES))
    return {
        "acks": "all",
        "idempotent_producer": True,
        "replication_factor": replicas,
        "min_insync_replicas": int(found.config.get("min.insync.replicas", 1)),
        "fsync": "by the operating system" if flush == _OS_DECIDES else f"every {flush} records",
        "partitions": found.partitions,
    }


async def _replicas(client: AIOKafkaAdminClient, name: str) -> int:
    described = await client.describe_topics([name])
    return len(described[0]["partitions"][0]["replicas"])


def log_size(directory: Path) -> Callable[[], int]:
    """How many bytes the records of an embedded broker take, segments only: indexes are laid out in advance."""

    def measure() -> int:
        segments = directory.glob("data-*/*/*.log")
        return sum(file.stat().st_size for file in segments if not file.parent.name.startswith("__cluster_metadata"))

    return measure


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a bare checkout
        return None


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
