"""The stage on a real Kafka, with the coordinator as the process that `troupe up` starts."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from ops.cli.roles import children
from ops.codecs import load_codecs
from ops.topics import apply
from tests.contract.processor_stage import LIMIT_S, Raw, Stage, settings_for
from tests.faults.roles import READY_S, Role
from topology import troupe


class KafkaStage(Stage):
    """See above. One consumer reads everything from its beginning and remembers it."""

    def __init__(self, bootstrap: str, data: Path) -> None:
        self.settings = settings_for(bootstrap, f"c{uuid.uuid4().hex[:8]}.", data_dir=data)
        asyncio.run(apply(self.settings, troupe()))
        self.codecs = asyncio.run(load_codecs(self.settings, troupe()))
        given = {"bootstrap.servers": bootstrap}
        self._producer = Producer({**given, "acks": "all", "linger.ms": 0})
        self._consumer = Consumer({**given, "group.id": "nobody", "enable.auto.commit": False})
        self._seen: defaultdict[str, list[Raw]] = defaultdict(list)
        self._assigned: set[str] = set()
        self._role = Role(children(self.settings, os.environ, ("coordinator",), ())[0])
        self._role.start()
        self._ready()

    def _ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while not self._role.was_ready:
            assert time.monotonic() < deadline, f"not ready:\n{self._role.log()[-3000:]}"
            self._role.look()
            time.sleep(0.02)

    def close(self) -> None:
        process = self._role.process
        if process is not None:
            process.terminate()
            process.wait(20)
        self._consumer.close()
        del self._producer, self._consumer  # or they would look for the broker after its end

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes) -> str:
        acked: list[Any] = []
        self._producer.produce(topic, value, key, partition, on_delivery=lambda *answer: acked.append(answer))
        assert self._producer.flush(10) == 0
        ((error, message),) = acked
        assert error is None, error
        return f"{topic}.{partition}.{message.offset()}"

    def append_many(self, topic: str, partition: int, records: Iterable[tuple[bytes, bytes]]) -> None:
        wrong: list[Any] = []
        for key, value in records:
            self._producer.produce(
                topic, value, key, partition, on_delivery=lambda error, _: wrong.append(error) if error else None
            )
        assert self._producer.flush(20) == 0 and not wrong, wrong

    def read(self, topic: str) -> list[Raw]:
        if topic not in self._assigned:
            found = self._consumer.list_topics(topic, timeout=5).topics[topic]
            if found.error is not None or not found.partitions:
                return []
            self._assigned.add(topic)
            self._consumer.incremental_assign([TopicPartition(topic, number, 0) for number in found.partitions])
        return sorted(self._seen[topic], key=lambda each: (each.partition, each.offset))

    def _look(self) -> None:
        for message in self._consumer.consume(1000, 0.05):
            assert message.error() is None, message.error()
            raw = Raw(message.topic(), message.partition(), message.offset(), message.key(), message.value())
            self._seen[raw.topic].append(raw)

    def until(self, happened: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
        deadline = time.monotonic() + limit_s
        while not (found := happened()):
            assert time.monotonic() < deadline, f"it did not happen within {limit_s:g} s\n{self._role.log()[-3000:]}"
            self._look()
        return found

    def crash(self, keeps_store: bool, meanwhile: Callable[[], None] = lambda: None) -> None:
        self._role.signal(signal.SIGKILL)
        assert self._role.process is not None
        self._role.process.wait(10)
        self._role.look()
        meanwhile()
        self._role.forget = None if keeps_store else self.settings.data_dir / "tables"
        self._role.start()
        self._ready()
