"""The submitter of a run under faults, and its ledger outside Kafka: what was meant, where it went, what was acked.

Its records are as untidy as those of many clients together: some partitioned by another hash or by none, some repeated,
some with a known id and another body, some no records at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
import uuid
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.codec import Codecs
from schemas.partitioning import home
from schemas.settings import Settings
from schemas.tasks import TaskCommand
from schemas.topics import TASK_REQUESTS

UNKNOWN_SCHEMA = b"\x00\x7f\xff\xff\xf0body"


@dataclass
class Entry:
    """One line of the ledger. kind: task, repeat, conflict, garbage or unknown_schema."""

    at: int
    id: str
    kind: str
    value: bytes
    ack: str | None = None


@dataclass
class Submitter:
    """Writes untidy submits; `entries` are also appended to `submits.jsonl` beside the system's data."""

    settings: Settings
    codecs: Codecs
    rng: random.Random
    untidy: bool = True
    entries: list[Entry] = field(default_factory=list)
    fed: int = 0
    _producer: AIOKafkaProducer | None = None
    _sent: set[asyncio.Task] = field(default_factory=set)

    async def __aenter__(self) -> Submitter:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self.settings.kafka.bootstrap_servers, acks="all", enable_idempotence=True, linger_ms=2
        )
        await self._producer.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._producer.stop()
        with (self.settings.data_dir / "submits.jsonl").open("a") as ledger:
            for each in self.entries:
                line = {"at": each.at, "id": each.id, "kind": each.kind, "ack": each.ack}
                ledger.write(json.dumps(line | {"hash": hashlib.sha256(each.value).hexdigest()}) + "\n")

    async def feed(self, count: int, rate: float | None = None) -> None:
        """Submit `count` more tasks, `rate` a second if given; returns when all are acked, or refused for good.

        If it is cancelled, what was sent goes on; `settled` waits for it.
        """
        begun = time.monotonic()
        for n in range(count):
            if rate is not None:
                await asyncio.sleep(max(0.0, begun + n / rate - time.monotonic()))
            for entry, key, partition in self._records(self.fed):
                self.entries.append(entry)
                self._sent.add(await self._send(entry, key, partition))
            self.fed += 1
        await self.settled()

    async def settled(self) -> None:
        """Return when all that was sent is acked, or refused for good."""
        while sent := self._sent.copy():
            await asyncio.wait(sent)  # and not `gather`, which would cancel them with us
            self._sent -= sent
            for each in sent:
                each.result()

    async def _send(self, entry: Entry, key: bytes | None, partition: int) -> asyncio.Task:
        topic = self.settings.kafka.topic_prefix + TASK_REQUESTS.name
        future = await self._producer.send(topic, entry.value, key=key, partition=partition)

        async def acked() -> None:
            with suppress(KafkaError):  # not acked, so nothing was promised
                where = await future
                entry.ack = f"{where.topic}.{where.partition}.{where.offset}"

        return asyncio.ensure_future(acked())

    def _records(self, n: int) -> list[tuple[Entry, bytes | None, int]]:
        task_id = f"t-{n:06d}"
        task = self._entry(task_id, "task", self._value(n, task_id, "x" * self.rng.randrange(16, 200)))
        found = [(task, *self._place(n, task_id))]
        if not self.untidy:
            return found
        if n % 100 == 20:
            found.append((self._entry(task_id, "repeat", task.value), *self._place(n + 1, task_id)))
        if n % 200 == 40:
            other = self._value(n, task_id, "another body")
            found.append((self._entry(task_id, "conflict", other), *self._place(n + 2, task_id)))
        if n % 500 == 99:
            value = b"\xff\xff" + self.rng.randbytes(20)
            found.append((self._entry("", "garbage", value), b"\xfe\xff", self._anywhere()))
        if n % 500 == 299:
            value = UNKNOWN_SCHEMA + str(n).encode()
            found.append((self._entry("", "unknown_schema", value), None, self._anywhere()))
        return found

    def _entry(self, task_id: str, kind: str, value: bytes) -> Entry:
        return Entry(time.time_ns() // 1000, task_id, kind, value)

    def _value(self, n: int, task_id: str, text: str) -> bytes:
        fields: dict[str, Any] = {"task_id": task_id, "type": "faults", "payload": json.dumps({"text": text})}
        fields["required_capabilities"] = ["work"]
        if n % 7 == 3:
            fields["agent_id"] = "first"
        if n % 10 == 5:
            return json.dumps(fields | {"payload": {"text": text}}).encode()
        now = time.time_ns() // 1000
        command = TaskCommand(event_id=uuid.uuid4().hex, occurred_at=now, source="faults", **fields)
        return self.codecs.of(TASK_REQUESTS.subject).encode(command)

    def _place(self, n: int, task_id: str) -> tuple[bytes | None, int]:
        """Key and partition: as the Java client, as librdkafka, or without a key."""
        key, partitions = task_id.encode(), self.settings.kafka.partitions
        if not self.untidy:
            return key, home(task_id, partitions)
        if n % 50 == 7:
            return None, self._anywhere()
        return key, zlib.crc32(key) % partitions if n % 3 == 1 else home(task_id, partitions)

    def _anywhere(self) -> int:
        return self.rng.randrange(self.settings.kafka.partitions)
