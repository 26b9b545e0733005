"""Sends reports in batches and says which are acknowledged; any report that fails for good ends the host.

While one flush is under way the next gathers, so the size of a batch follows the load: one report when it is quiet,
hundreds when it is not. One future per batch and partition, instead of one per report, is most of what that saves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer

from actors.mailbox import Work
from actors.reports import Report
from schemas.errors import BrokerUnavailable
from schemas.failpoint import Failpoints
from schemas.partitioning import home

ON_THE_WIRE_SECONDS = 0.005
"""The producer writes in tasks of its own: only after a moment has a batch been sent, which one failpoint needs."""


class Outbox:
    """Reports on their way to one topic. `acked` is called with the works that are done with, after their ack."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        partitions: int,
        acked: Callable[[list[Work]], None],
        failpoints: Failpoints,
        limit_seconds: float,
    ) -> None:
        """`limit_seconds`: a report that takes longer has failed for good."""
        self._limit_seconds = limit_seconds
        self._producer, self._topic, self._partitions = producer, topic, partitions
        self._acked, self._failpoints = acked, failpoints
        self._waiting: list[Report] = []
        self._filled = asyncio.Event()
        self._turn = asyncio.Event()
        self._put_count = self._acked_count = 0

    def put(self, report: Report) -> None:
        """Take a report; it is sent with the next batch."""
        self._waiting.append(report)
        self._put_count += 1
        if len(self._waiting) == 1:
            self._filled.set()

    async def flushed(self) -> None:
        """Return when all that was put until now is acknowledged."""
        put = self._put_count
        while self._acked_count < put:
            await self._turn.wait()

    async def run(self) -> None:
        """Send for ever. Raises KafkaError or BrokerUnavailable when a report fails for good, which settles nothing."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            batch, self._waiting = self._waiting, []
            await self._send(batch)
            self._failpoints.hit("reports-acked")
            self._acked([report.settles for report in batch if report.settles is not None])
            self._acked_count += len(batch)
            self._turn.set()
            self._turn.clear()  # whoever waits has been woken; the next turn is another

    async def _send(self, reports: list[Report]) -> None:
        producer, topic = self._producer, self._topic
        open_batches: dict[int, Any] = {}
        futures = []
        for key, value, headers, _ in reports:
            partition = home(key, self._partitions)
            batch = open_batches.get(partition)
            if batch is None:
                batch = open_batches[partition] = producer.create_batch()
            if batch.append(key=key.encode(), value=value, timestamp=None, headers=[*headers]) is None:
                futures.append(await producer.send_batch(batch, topic, partition=partition))
                batch = open_batches[partition] = producer.create_batch()
                if batch.append(key=key.encode(), value=value, timestamp=None, headers=[*headers]) is None:
                    raise ValueError(f"a report of {len(value)} bytes fits no batch")  # never dropped in silence
        for partition, batch in open_batches.items():
            futures.append(await producer.send_batch(batch, topic, partition=partition))
        if self._failpoints.armed("reports-sent"):
            await asyncio.sleep(ON_THE_WIRE_SECONDS)
            self._failpoints.hit("reports-sent")
        try:
            # An idempotent producer of aiokafka never gives up by itself.
            async with asyncio.timeout(self._limit_seconds):
                await asyncio.gather(*futures)
        except TimeoutError:
            raise BrokerUnavailable(f"{topic} took no reports within {self._limit_seconds:g} s") from None
