"""Hand-built batches: a future for each record would cost more than the record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from schemas.partitioning import home
from streams.runtime.partition import ChangelogRecord
from streams.runtime.wire import Encoded


def build(producer: AIOKafkaProducer, records: Iterable[ChangelogRecord]) -> Any:
    """One batch of these records. Raises ValueError if they do not fit in one."""
    batch = producer.create_batch()
    for record in records:
        if batch.append(key=record.key, value=record.value, timestamp=None, headers=list(record.headers)) is None:
            raise ValueError(f"{batch.record_count()} records fill the batch; lower coordinator.batch_bytes")
    batch.close()
    return batch


def empty(limit: int) -> BatchBuilder:
    """A batch for at most `limit` bytes; the first record is always taken."""
    return BatchBuilder(limit, 0)


def append(batch: BatchBuilder, output: Encoded) -> bool:
    """Whether it had room."""
    headers = list(output.headers)
    return batch.append(key=output.key, value=output.value, timestamp=None, headers=headers) is not None


def by_key(output: Encoded, partitions: int) -> int:
    """The partition that its key has among so many."""
    return home((output.key or b"").decode(), partitions)
