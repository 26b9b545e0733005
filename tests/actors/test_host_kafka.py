"""The host against a real Kafka, its coordinator played by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from actors.api import Actor, Context
from schemas.topics import inbox_name
from tests.actors.stage import Stage

pytestmark = pytest.mark.kafka


class Sum(BaseModel):
    a: int
    b: int


class Total(BaseModel):
    total: int


async def add(numbers: Sum, ctx: Context) -> Total:
    return Total(total=numbers.a + numbers.b)


async def test_an_assignment_is_reported_and_committed(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("adder", add)):
        await stage.assign("adder", "t1", {"a": 1, "b": 2})
        (report,) = await stage.reports(len)
        assert (report.kind, report.task_id, report.result) == ("completed", "t1", '{"total":3}')
        assert (report.attempt, report.epoch, report.agent_id, report.source) == (1, 1, "adder", "adder")
        assert report.event_id == f"{stage.name(inbox_name('adder'))}.0.0.0"
        await stage.committed_to("adder", 1)
        beats = await stage.commands(lambda seen: [each for each in seen if each.kind == "heartbeat"])
        assert beats[-1].agent_id == "adder"
