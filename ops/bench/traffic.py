"""Submits tasks as fast as their outcomes come back: the closed loop of a throughput run; and reads outcomes, for any run.

The client is often the bottleneck of such a measurement, so it hands whole batches to the producer (one future per
batch instead of one per record, and no waking of every sender at each finished batch), and reads without a group. It is
the client of somebody with many tasks: `Client.submit`, for one at a time, waits for each confirmation. Nothing that such
a client needs is left out or prepared in advance, and all of it counts as the submitter's cost: a new id and payload for
each task, the record as the product's codec writes it, the CloudEvents headers, the home partition, idempotent batches
confirmed by all replicas, and each outcome read and decoded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from ops.bench.ledger import Ledger
from ops.bench.work import Work
from ops.commands import cloud_event_headers
from schemas.closing import closed
from schemas.codec import Codecs
from schemas.errors import BrokerUnavailable, OperatorError
from schemas.partitioning import home
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, TASK_REQUESTS, TASK_RESULTS
from topology import partitions_of

BATCH_BYTES = 1024 * 1024
SUBJECTS = tuple(topic.subject for topic in (TASK_REQUESTS, TASK_RESULTS, DEAD_LETTERS))
_POLL_MS = 200
_PARTS = 8  # a refill waits until this part of the window is free: batches stay batches


class Submitter:
    """Sends the submits of numbered tasks to their home partitions."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partitions: int, codecs: Codecs, work: Work) -> None:
        self._producer, self._topic, self._partitions = producer, topic, partitions
        self._codec = codecs.of(TASK_REQUESTS.subject)
        self._work = work
        self._unconfirmed: set[asyncio.Future[Any]] = set()

    async def run(self, numbers: range, in_flight: int, ledger: Ledger, stall_s: float) -> None:
        """Submit all, never more than `in_flight` without an outcome; return when the last is confirmed.

        Raises OperatorError if a submit is refused, or if nothing comes back for `stall_s` seconds.
        """
        refill = max(1, in_flight // _PARTS)
        open_before, at = ledger.finished, numbers.start
        while at < numbers.stop:
            sent = at - numbers.start
            room = in_flight - (sent - (ledger.finished - open_before))
            wanted = min(refill, numbers.stop - at)
            if room < wanted:
                if not await ledger.changed(stall_s):
                    raise OperatorError(
                        f"No outcome came for {stall_s:g} s with {in_flight - room} tasks in flight",
                        hint="run it again with --data DIR and read the logs in DIR/logs",
                    )
                continue
            await self._send(range(at, at + wanted), ledger)
            at += wanted
        await self._confirmed(stall_s)

    async def _send(self, numbers: range, ledger: Ledger) -> None:
        filling: dict[int, tuple[Any, list[int]]] = {}
        for number in numbers:
            command = self._work.command(number)
            ledger.submitted[number] = ledger.sent[number] = command.occurred_at
            partition = home(command.task_id, self._partitions)
            record = {
                "key": command.task_id.encode(),
                "value": self._codec.encode(command),
                "headers": cloud_event_headers(command),
                "timestamp": None,
            }
            batch, held = filling.get(partition) or (self._producer.create_batch(), [])
            if batch.append(**record) is None:
                await self._hand_over(partition, batch, held, ledger)
                batch, held = self._producer.create_batch(), []
                batch.append(**record)
            held.append(number)
            filling[partition] = batch, held
        for partition, (batch, held) in filling.items():
            await self._hand_over(partition, batch, held, ledger)

    async def _hand_over(self, partition: int, batch: Any, numbers: list[int], ledger: Ledger) -> None:
        future = await self._producer.send_batch(batch, self._topic, partition=partition)

        def confirmed(done: asyncio.Future[Any]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._unconfirmed.discard(done)
                ledger.mark_acked(numbers, time.time_ns() // 1000)

        self._unconfirmed.add(future)
        future.add_done_callback(confirmed)

    async def _confirmed(self, limit_s: float) -> None:
        if not self._unconfirmed:
            return
        done, pending = await asyncio.wait(self._unconfirmed, timeout=limit_s)
        errors = [error for each in done if (error := each.exception())]
        if errors or pending:
            cause = f"{type(errors[0]).__name__}: {errors[0]}" if errors else f"no answer for {limit_s:g} s"
            raise OperatorError(
                f"Kafka did not confirm {len(errors) + len(pending)} batches of submits: {cause}",
                hint="see the broker's log in DIR/kafka (run it again with --data DIR)",
            )


class Observer:
    """Reads outcomes and dead letters into the ledger, until it is cancelled."""

    def __init__(self, consumer: AIOKafkaConsumer, settings: Settings, codecs: Codecs, work: Work) -> None:
        self._consumer, self._work = consumer, work
        self._dead_letters = settings.kafka.topic_prefix + DEAD_LETTERS.name
        self._results, self._letters = codecs.of(TASK_RESULTS.subject), codecs.of(DEAD_LETTERS.subject)

    async def run(self, ledger: Ledger) -> None:
        """Never returns. Raises DecodeError for a record that is none."""
        while True:
            found = await self._consumer.getmany(timeout_ms=_POLL_MS)
            at = time.time_ns() // 1000
            for partition, records in found.items():
                read = self._letter if partition.topic == self._dead_letters else self._result
                for record in records:
                    read(record, at, ledger)
            if found:
                ledger.announce()

    def _result(self, record: ConsumerRecord, at: int, ledger: Ledger) -> None:
        fields = self._results.decode_fields(record.value)
        number = self._work.number(fields["task_id"])
        if number is not None:
            began = orjson.loads(fields["result"]).get("at", 0) if fields["result"] else 0
            why = fields["error"]["message"] if fields["error"] else ""
            ledger.mark_result(number, at, fields["status"], began, why)

    def _letter(self, record: ConsumerRecord, at: int, ledger: Ledger) -> None:
        letter = self._letters.decode(record.value)
        number = self._work.number(letter.task_id or "")
        if number is not None:
            ledger.mark_dead(number, at, letter.error.message)


@asynccontextmanager
async def producing(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """A producer as clients of ours use it: acknowledged by all in-sync replicas, idempotent."""
    kafka = settings.kafka
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        acks="all",
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES,
        max_request_size=4 * BATCH_BYTES,
        request_timeout_ms=int(kafka.request_timeout_seconds * 1000),
    )
    async with _started(producer, settings):
        yield producer


@asynccontextmanager
async def consuming(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group at the beginning of outcomes and dead letters; the topics are new."""
    kafka = settings.kafka
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, enable_auto_commit=False, auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * BATCH_BYTES, fetch_max_wait_ms=_POLL_MS,
    )  # fmt: skip
    async with _started(consumer, settings):
        consumer.assign(
            [
                TopicPartition(kafka.topic_prefix + topic.name, number)
                for topic in (TASK_RESULTS, DEAD_LETTERS)
                for number in range(partitions_of(topic, settings))
            ]
        )
        yield consumer


@asynccontextmanager
async def _started(client: Any, settings: Settings) -> AsyncIterator[None]:
    limit_s = settings.kafka.metadata_timeout_seconds
    try:
        await client.start()
    except (KafkaError, OSError) as error:
        await closed(client.stop(), limit_s)
        raise BrokerUnavailable.at(settings.kafka.bootstrap_servers) from error
    try:
        yield
    finally:
        await closed(client.stop(), limit_s)
