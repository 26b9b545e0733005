"""The small promises of the client in memory, and of where the words of a rehearsal go."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from ops.memory.logs import plain_logs
from ops.memory.rehearsal import Rehearsal
from schemas.errors import PayloadTooLarge
from schemas.partitioning import home
from schemas.settings import Kafka, Limits, Settings
from schemas.topics import TASK_EVENTS, TASK_REQUESTS
from tests.ops.memory.cast import adder


async def test_a_request_may_be_as_large_as_on_kafka_headers_included() -> None:
    settings = Settings(kafka=Kafka(partitions=1), limits=Limits(max_record_bytes=2000))
    async with Rehearsal([adder()], settings=settings) as troupe:
        with pytest.raises(PayloadTooLarge, match="Payload of 2001 bytes exceeds 2000 bytes"):
            for length in range(1000, 2000):
                await troupe.submit("sum", {"text": "x" * length}, task_id="same")
        last = troupe.log.read(TASK_REQUESTS.name, 0, 0, 2000)[-1]
        assert len(last.value or b"") + sum(len(name) + len(text) for name, text in last.headers) == 2000


async def test_an_event_that_is_written_twice_is_told_once() -> None:
    async with Rehearsal([adder()]) as troupe:
        told: list[str] = []
        troupe.follow(lambda event: told.append(str(event.kind)))
        task = await troupe.submit("sum", {"a": 1, "b": 2})
        await troupe.result(task)
        place = TASK_EVENTS.name, home(task, 2)
        again = [(each.key, each.value, each.headers) for each in troupe.log.read(*place, 0, 10)]
        troupe.log.append(*place, again)  # as a coordinator does that was killed before it had committed
        await troupe.submit("sum", {"a": 1, "b": 2}, task_id=task)
        await asyncio.sleep(1)
        assert told == ["assigned", "completed"]


def test_logs_that_somebody_has_configured_stay_as_they_are() -> None:
    ours = [structlog.processors.JSONRenderer()]
    structlog.configure(processors=ours)
    try:
        with plain_logs():
            assert structlog.get_config()["processors"] is ours
        assert structlog.is_configured()
    finally:
        structlog.reset_defaults()
    with plain_logs():
        assert structlog.is_configured()
    assert not structlog.is_configured()
