"""The `_schemas` topic is the registry: every process reads it at its start, and deploying writes it.

There must be one writer at a time, or two schemas could get one id. Instead of electing one, whoever wants to write
takes the fixed transactional id, which shuts out every earlier writer at the broker; then it appends a record that
says nothing, so that the partition itself knows the new epoch, reads the log to its end, decides, and writes all new
versions in one transaction. A writer that is shut out in between starts again and finds the other's work done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.closing import closed
from schemas.errors import BrokerUnavailable, DecodeError, OperatorError, SchemaError
from schemas.registry import LEVEL, NOOP_KEY, SchemaView

TOPIC = "_schemas"
TRANSACTIONAL_ID = "troupe-registry"

_POLL_MS = 200
_ATTEMPTS = 20  # a writer is shut out once for each other that starts meanwhile
_AGAIN_SECONDS = 0.2  # pause before the next attempt


async def read_schemas(bootstrap: str, timeout_s: float) -> SchemaView:
    """Return what the topic says up to its present end.

    Raises OperatorError if the topic is missing or holds foreign records, BrokerUnavailable without an answer in time.
    """
    async with _within(bootstrap, timeout_s):
        return await _read(bootstrap, timeout_s)


async def register_schemas(
    bootstrap: str, subjects: Mapping[str, dict[str, Any]], timeout_s: float, replicas: int = 1
) -> SchemaView:
    """Register the schemas `{subject: schema}` that are missing, all or none, and return the view that has them.

    Creates the topic with `replicas` copies if it is not there; writes nothing if nothing is missing; safe to run from
    any number of processes at once. Raises SchemaError, naming subjects and reasons, if a schema may not follow the
    versions before it; OperatorError and BrokerUnavailable as `read_schemas`.
    """
    async with _within(bootstrap, timeout_s):
        await _ensure_topic(bootstrap, replicas, timeout_s)
        view, attempts = await _read(bootstrap, timeout_s), 0
        while _missing(view, subjects):
            _refuse_incompatible(view, subjects)
            attempts += 1
            try:
                await _write(bootstrap, subjects, timeout_s)
            except KafkaError:  # shut out by another writer, most likely; if it is the broker, it will show again
                if attempts == _ATTEMPTS:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
            view = await _read(bootstrap, timeout_s)
        return view


@asynccontextmanager
async def _within(bootstrap: str, timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (TimeoutError, KafkaError) as wrong:
        raise BrokerUnavailable.at(bootstrap) from wrong


async def _ensure_topic(bootstrap: str, replicas: int, close_s: float) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        if TOPIC in await admin.list_topics():
            return
        topic = NewTopic(TOPIC, 1, replicas, topic_configs={"cleanup.policy": "compact"})
        response = await admin.create_topics([topic])
        for name, code, *_ in response.topic_errors:  # answered, not raised
            if code and for_code(code) is not TopicAlreadyExistsError:  # another process may be faster
                raise for_code(code)(name)
        while TOPIC not in await admin.list_topics():  # noqa: ASYNC110 - no event tells; the caller bounds it
            await asyncio.sleep(_AGAIN_SECONDS)
    finally:
        await closed(admin.close(), close_s)


async def _read(bootstrap: str, close_s: float) -> SchemaView:
    """Fold the log up to the end of its committed records, with a consumer that belongs to no group.

    The caller bounds it; its limit may be over when the client is to be closed, which then gets `close_s` of its own.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False)
    try:
        await consumer.start()
        if TOPIC not in await consumer.topics():
            raise OperatorError(f"the topic {TOPIC} does not exist", hint="run `troupe topology apply`")
        partition = TopicPartition(TOPIC, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        view = SchemaView()
        while await consumer.position(partition) < end:
            batches = await consumer.getmany(partition, timeout_ms=_POLL_MS)
            for record in batches.get(partition, ()):
                try:
                    view.apply(record.key or b"", record.value)
                except DecodeError as wrong:
                    raise OperatorError(
                        f"{TOPIC} offset {record.offset}: {wrong}",
                        hint="only a schema registry may write to this topic",
                    ) from wrong
        return view
    finally:
        await closed(consumer.stop(), close_s)


def _missing(view: SchemaView, subjects: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {subject: schema for subject, schema in subjects.items() if view.id_of(subject, schema) is None}


def _refuse_incompatible(view: SchemaView, subjects: Mapping[str, dict[str, Any]]) -> None:
    wrong = [
        f"{subject}: {problem}"
        for subject, schema in sorted(_missing(view, subjects).items())
        for problem in view.problems(subject, schema)
    ]
    if wrong:
        raise SchemaError(
            "incompatible schemas are not registered: " + " | ".join(wrong),
            hint="give new fields a default, keep names and types; else a new subject is needed",
        )


async def _write(bootstrap: str, subjects: Mapping[str, dict[str, Any]], close_s: float) -> None:
    """Append what is missing as the only writer. Raises KafkaError if another writer took over."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=TRANSACTIONAL_ID, acks="all")
    try:
        await producer.start()
        async with producer.transaction():
            await producer.send_and_wait(TOPIC, key=NOOP_KEY, partition=0)
        view = await _read(bootstrap, close_s)  # complete, and nobody else can add to it now
        _refuse_incompatible(view, subjects)
        records: list[tuple[bytes, bytes]] = []
        for subject, schema in sorted(_missing(view, subjects).items()):
            key, value, _ = view.next_entry(subject, schema)
            records.append((key, value))
            if view.level(subject) != LEVEL:
                records.append(view.level_entry(subject))
            view.apply(key, value)  # the next id follows from this one
        async with producer.transaction():
            for key, value in records:
                await producer.send_and_wait(TOPIC, key=key, value=value, partition=0)
    finally:
        await closed(producer.stop(), close_s)
