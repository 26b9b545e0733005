"""Batches as clients of other languages may make them: with a header name that is no UTF-8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

CODECS = PLAIN, GZIP, SNAPPY, LZ4, ZSTD = range(5)
READABLE = "\\xff\\xfe-é"
"""What the name of a spoilt header is read as."""


class Spoilt(str):
    """A header's name that lies in the log as other bytes than those of a text."""

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfe-" + "é".encode()


class Builder(_DefaultRecordBatchBuilderPy):  # type: ignore[misc]
    """Of a batch; the compiled one takes no such name, and neither makes markers."""

    def __init__(self, codec: int, size: int = 1 << 20, *, transactional: bool = False, producer: int = -1) -> None:
        super().__init__(2, codec, transactional, producer, 0, 0, size)
        self.marker = False

    def _get_attributes(self, *args: Any, **kwargs: Any) -> Any:
        return super()._get_attributes(*args, **kwargs) | self.CONTROL_MASK * self.marker


async def send(broker: str, topic: str, records: Sequence[tuple[str, bytes, bool]], codec: int = PLAIN) -> None:
    """One batch for partition 0, of (key, value, whether it has a spoilt header)."""
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    made = BatchBuilder(1 << 20, codec)
    made._builder = Builder(codec)
    for key, value, spoilt in records:
        made.append(key=key.encode(), value=value, timestamp=None, headers=[(Spoilt("?"), b"x")] if spoilt else [])
    await (await producer.send_batch(made, topic, partition=0))
    await producer.stop()
