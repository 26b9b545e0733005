"""Showing any record: by the schema in front of it, and with a reason where that does not work."""

from __future__ import annotations

import inspect
import json
import struct
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

from ops.views.records import JSON_FIELDS, Decoder
from schemas import agents, changelog, deadletters, inbox, task_row, tasks
from schemas.avro import avro_schema
from schemas.codec import Codec
from schemas.registry import SchemaView
from schemas.tasks import TaskError, TaskEvent

SUBJECT = "tasks.events-value"
EVENT = TaskEvent(
    event_id="e",
    occurred_at=1,
    source="coordinator",
    task_id="t",
    version=1,
    cause="c",
    decided_at=2,
    decision='{"chosen": "a"}',
    error=TaskError(code="x", message="{no json}", details="{"),
)


def registered(*schemas: dict[str, Any]) -> SchemaView:
    view = SchemaView()
    for number, schema in enumerate(schemas):
        key, value, _ = view.next_entry(SUBJECT if number == 0 else f"s{number}", schema)
        view.apply(key, value)
    return view


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(registered(avro_schema(TaskEvent)))


@pytest.fixture
def encoded() -> bytes:
    return Codec(TaskEvent, avro_schema(TaskEvent), 1, SUBJECT, 10_000).encode(EVENT)


def test_a_record_is_shown_with_its_json_text_as_values(decoder: Decoder, encoded: bytes) -> None:
    schema, value = decoder.value(encoded)
    assert schema is not None
    assert schema.document() == {"id": 1, "subject": SUBJECT, "name": "TaskEvent"}
    assert value["decision"] == {"chosen": "a"}
    assert value["registry_at"] == {}
    assert value["error"]["message"] == "{no json}"
    assert value["error"]["details"] == "{"
    assert value["decided_at"] == 2
    json.dumps(value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello", "no schema frame"),
        (b"", "no schema frame"),
        (struct.pack(">bI", 0, 77) + b"x", "schema id 77 is not registered"),
        (b"{", "begins like JSON and is none"),
    ],
)
def test_what_cannot_be_decoded_is_shown_as_bytes_with_the_reason(decoder: Decoder, data: bytes, reason: str) -> None:
    schema, value = decoder.value(data)
    assert schema is None
    assert value["reason"] == reason
    assert "base64" in value


def test_damage_and_left_over_bytes_have_reasons(decoder: Decoder, encoded: bytes) -> None:
    assert "damaged" in decoder.value(encoded[:-3])[1]["reason"]
    assert "left over" in decoder.value(encoded + b"!")[1]["reason"]


def test_json_and_tombstones(decoder: Decoder) -> None:
    assert decoder.value(b'{"a": 1}') == (None, {"a": 1})
    assert decoder.value(None) == (None, None)


def test_a_hostile_schema_is_not_used() -> None:
    nothing = {"type": "record", "name": "N", "fields": []}
    hostile = {"type": "record", "name": "H", "fields": [{"name": "f", "type": {"type": "array", "items": nothing}}]}
    decoder = Decoder(registered(avro_schema(TaskEvent), hostile))
    assert "is not used" in decoder.value(struct.pack(">bI", 0, 2) + b"\xfe\xff\xff\xff\x0f\x00")[1]["reason"]


def test_the_fields_with_json_text_are_those_of_the_vocabulary() -> None:
    declared = set[str]()
    modules: list[ModuleType] = [agents, changelog, deadletters, inbox, task_row, tasks]
    for module in modules:
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                hints = inspect.get_annotations(kind)
                declared |= {name for name, hint in hints.items() if "Json" in str(hint).replace(" ", "").split("|")}
    assert declared == JSON_FIELDS
