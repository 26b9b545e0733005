"""Schemas that were registered after a process began: found when a record names them, without a look for each record."""

from __future__ import annotations

from typing import Any

import pytest

from ops.codecs import NewerSchemas, load_codecs
from ops.registry.schema_log import read_schemas, register_schemas
from schemas.avro import avro_schema
from schemas.errors import BrokerUnavailable, UnknownSchemaId
from schemas.registry import SchemaView
from schemas.settings import Settings
from schemas.tasks import ReportKind, TaskReport
from schemas.topics import TASK_REPORTS
from topology import troupe

REPORT = TaskReport(
    event_id="e", occurred_at=1, source="a", kind=ReportKind.STARTED, task_id="t", agent_id="a", attempt=1, epoch=1
)


@pytest.mark.kafka
async def test_a_schema_of_a_later_version_is_admitted_when_it_is_named(installed: Settings) -> None:
    codecs = await load_codecs(installed, troupe())
    value = codecs.of(TASK_REPORTS.subject).encode(REPORT)
    schema = avro_schema(TaskReport)
    later = schema | {"fields": [*schema["fields"], {"name": "mood", "type": ["null", "string"], "default": None}]}
    view = await register_schemas(
        installed.kafka.bootstrap_servers, {TASK_REPORTS.subject: later}, installed.kafka.metadata_timeout_seconds
    )
    later_id = view.id_of(TASK_REPORTS.subject, later)
    assert later_id is not None
    newer = b"\0" + later_id.to_bytes(4, "big") + value[5:] + b"\0"
    with pytest.raises(UnknownSchemaId) as unknown:
        codecs.of(TASK_REPORTS.subject).decode(newer)
    look = NewerSchemas(installed, codecs)
    await look(unknown.value.schema_id)
    assert codecs.of(TASK_REPORTS.subject).decode(newer) == REPORT


@pytest.mark.kafka
async def test_garbage_cannot_make_us_look_without_end(installed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    now, looked = [0.0], []
    look = NewerSchemas(installed, await load_codecs(installed, troupe()), lambda: now[0])

    async def count(*_: object) -> object:
        looked.append(now[0])
        raise LookupError

    monkeypatch.setattr("ops.codecs.read_schemas", count)
    for schema_id in (7, 7, 8, 9, 10, 11, 12, 13):
        try:
            await look(schema_id)
        except LookupError:
            continue
    assert len(looked) == 5, "one look for each id, five in a second"
    now[0] = 1.0
    with pytest.raises(LookupError):
        await look(7)


@pytest.mark.kafka
@pytest.mark.parametrize(("away", "patience_s"), [(2, 30.0), (1_000, 0.05)])
async def test_a_broker_that_is_away_is_waited_for(
    installed: Settings, monkeypatch: pytest.MonkeyPatch, away: int, patience_s: float
) -> None:
    kafka = installed.kafka.model_copy(update={"request_timeout_seconds": patience_s})
    look = NewerSchemas(installed.model_copy(update={"kafka": kafka}), await load_codecs(installed, troupe()))
    asked: list[int] = []

    async def answers_late(*where: Any) -> SchemaView:
        asked.append(len(asked))
        if len(asked) <= away:
            raise BrokerUnavailable.at(installed.kafka.bootstrap_servers)
        return await read_schemas(*where)

    monkeypatch.setattr("ops.codecs.read_schemas", answers_late)
    monkeypatch.setattr("ops.codecs._AGAIN_S", 0.01)
    if away > 2:
        with pytest.raises(BrokerUnavailable):
            await look(7)
    else:
        await look(7)
        assert len(asked) == away + 1
