"""The registry on a real broker: idempotent, one writer at a time, nothing half written, and clear words when it
fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from ops.registry.schema_log import TOPIC, TRANSACTIONAL_ID, read_schemas, register_schemas
from schemas.errors import BrokerUnavailable, SchemaError
from schemas.registry import LEVEL

TIMEOUT_S = 30.0


def schema(*extra: dict[str, Any], name: str = "") -> dict[str, Any]:
    """A record whose text is new in each test, so that its id is too."""
    fields = [{"name": "id", "type": "string"}, *extra]
    return {"type": "record", "name": name or f"R{uuid4().hex}", "namespace": "troupe.test", "fields": fields}


def subject() -> str:
    return f"test-{uuid4().hex}-value"


@pytest.fixture(autouse=True)
def _quiet_when_shut_out() -> Iterator[None]:
    """aiokafka reports being shut out as an unexpected error and leaves futures behind; here that is the point.

    They are collected now: their last words format a traceback, which must not happen while pytest parses a module.
    """
    loggers = [logging.getLogger(name) for name in ("aiokafka.producer.sender", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield
    gc.collect()
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.kafka
async def test_registering_is_idempotent_and_sets_the_level(broker: str) -> None:
    subjects = {subject(): schema(), subject(): schema()}
    first = await register_schemas(broker, subjects, TIMEOUT_S)
    again = await register_schemas(broker, subjects, TIMEOUT_S)
    fresh = await read_schemas(broker, TIMEOUT_S)
    for name, text in subjects.items():
        assert first.ids(name) == again.ids(name) == fresh.ids(name)
        assert list(fresh.ids(name).values()) == [text]
        assert fresh.level(name) == LEVEL


@pytest.mark.kafka
async def test_a_compatible_version_follows_and_an_incompatible_one_leaves_no_trace(broker: str) -> None:
    name, old = subject(), schema()
    note = {"name": "note", "type": ["null", "string"], "default": None}
    required = {"name": "must", "type": "string"}
    await register_schemas(broker, {name: old}, TIMEOUT_S)
    view = await register_schemas(broker, {name: schema(note, name=old["name"])}, TIMEOUT_S)
    assert [version.number for version in view.versions(name)] == [1, 2]

    innocent = subject()
    with pytest.raises(SchemaError, match=f"{name}: version 1: .*must"):
        await register_schemas(broker, {innocent: schema(), name: schema(required, name=old["name"])}, TIMEOUT_S)
    view = await read_schemas(broker, TIMEOUT_S)
    assert len(view.versions(name)) == 2
    assert view.ids(innocent) == {}


@pytest.mark.kafka
async def test_writers_at_once_never_share_an_id(broker: str) -> None:
    shared = {subject(): schema() for _ in range(3)}
    wishes = [shared | {subject(): schema() for _ in range(3)} for _ in range(4)]
    await asyncio.gather(*(register_schemas(broker, wish, TIMEOUT_S) for wish in wishes))
    view = await read_schemas(broker, TIMEOUT_S)
    versions = [version for wish in wishes for name in wish for version in view.versions(name)]
    assert all(len(view.versions(name)) == 1 for wish in wishes for name in wish)
    texts_of_id = Counter(schema_id for schema_id, _ in {(version.schema_id, version.text) for version in versions})
    assert len(texts_of_id) == 3 + 4 * 3
    assert set(texts_of_id.values()) == {1}


@pytest.mark.kafka
async def test_a_writer_that_was_shut_out_leaves_nothing(broker: str) -> None:
    """A process that pauses in mid-write: unseen while open, undone by the next writer, refused when it goes on."""
    stale, name = subject(), subject()
    view = await register_schemas(broker, {subject(): schema()}, TIMEOUT_S)
    key, value, taken = view.next_entry(stale, schema())
    paused = AIOKafkaProducer(bootstrap_servers=broker, transactional_id=TRANSACTIONAL_ID, acks="all")
    await paused.start()
    try:
        await paused.begin_transaction()
        await paused.send_and_wait(TOPIC, key=key, value=value, partition=0)
        assert (await read_schemas(broker, TIMEOUT_S)).ids(stale) == {}
        view = await register_schemas(broker, {name: schema()}, TIMEOUT_S)
        assert list(view.ids(name)) == [taken]
        with pytest.raises(KafkaError):
            await paused.commit_transaction()
    finally:
        with contextlib.suppress(KafkaError):
            await paused.stop()
    assert (await read_schemas(broker, TIMEOUT_S)).ids(stale) == {}


async def test_no_broker_is_said_with_a_next_step() -> None:
    with pytest.raises(BrokerUnavailable, match=r"Kafka is not reachable at 127\.0\.0\.1:1") as gone:
        await read_schemas("127.0.0.1:1", TIMEOUT_S)
    assert gone.value.hint


async def test_a_broker_that_never_answers_is_given_up_on() -> None:
    silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    try:
        with pytest.raises(BrokerUnavailable, match="Kafka is not reachable at"):
            await register_schemas(f"127.0.0.1:{port}", {}, 0.5)
    finally:
        silent.close()
