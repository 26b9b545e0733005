"""A header whose name is no UTF-8: Kafka takes it and aiokafka cannot read it, so nobody may end for it."""

from __future__ import annotations

import asyncio
import signal
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c

from schemas.partitioning import home
from schemas.topics import TASK_REQUESTS
from tests.contract.kafka_stage import KafkaStage
from tests.contract.processor_stage import as_json

pytestmark = pytest.mark.kafka
NAME, SPOILT = b"a-header's-name", b"\xff\xfe\xfd-header's-na"
CRC_AT, CRC_OF = 17, 21
GOOD = tuple(name for name in (f"good-{number}" for number in range(100)) if home(name, 2) == 0)


class Spoilt(BatchBuilder):
    """A batch in which a header has another name than its builder could give it."""

    def _build(self) -> bytes:
        if self._buffer is None:
            raw = bytearray(bytes(super()._build()).replace(NAME, SPOILT))
            struct.pack_into(">I", raw, CRC_AT, calc_crc32c(bytes(raw[CRC_OF:])))
            self._buffer = bytes(raw)
        return bytes(self._buffer)


async def put(broker: str, topic: str, tasks: Sequence[str]) -> None:
    """One batch for partition 0; the header of each task that is called bad is spoilt."""
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    batch = Spoilt(1 << 20, 0)
    for task in tasks:
        headers = [(NAME.decode(), b"x")] if task.startswith("bad") else []
        batch.append(key=task.encode(), value=as_json(task, hold=True), timestamp=None, headers=headers)
    await (await producer.send_batch(batch, topic, partition=0))
    await producer.stop()


def test_all_but_what_cannot_be_read_is_worked_on(broker: str, tmp_path: Path) -> None:
    """A batch is read from its begin, so what its producer sent behind such a record is not read either."""
    stage = KafkaStage(broker, tmp_path)
    try:
        topic, bootstrap = stage.name(TASK_REQUESTS), stage.settings.kafka.bootstrap_servers
        for before, behind in ((0, 1), (6, 2)):
            good = GOOD[before : before + 6]
            for tasks in (good[:2], [*good[2:4], f"bad-{before}", *["behind"] * behind], good[4:]):
                asyncio.run(put(bootstrap, topic, tasks))
            stage.until(lambda: all(stage.kinds(task) == ["accepted"] for task in good))  # noqa: B023
            stage.crash(keeps_store=True)
        asyncio.run(put(bootstrap, topic, GOOD[25:27]))
        stage.until(lambda: all(stage.kinds(task) == ["accepted"] for task in GOOD[25:27]))
        assert stage._role.exits == {-signal.SIGKILL: 2}, "when it was killed, and at no other time"
        assert '"event": "record_passed_over"' in stage._role.log()
    finally:
        stage.close()
