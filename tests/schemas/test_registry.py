"""The view folds a registry's records, Confluent's too, and refuses what a reader of old logs could not survive."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from schemas.errors import DecodeError
from schemas.registry import LEVEL, NOOP_KEY, SchemaView

SUBJECT = "things-value"


def record(*fields: dict[str, Any], name: str = "Thing") -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "troupe.v1", "fields": list(fields)}


ID = {"name": "id", "type": "string"}
AT = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
NOTE = {"name": "note", "type": ["null", "string"], "default": None}
KIND = {
    "name": "kind", "default": "unknown",
    "type": {"type": "enum", "name": "Kind", "symbols": ["a", "unknown"], "default": "unknown"},
}  # fmt: skip
BASE = record(ID, AT, KIND)


def registered(*schemas: dict[str, Any], subject: str = SUBJECT) -> SchemaView:
    view = SchemaView()
    for schema in schemas:
        key, value, _ = view.next_entry(subject, schema)
        view.apply(key, value)
    return view


def changed(path: list[Any], value: Any) -> dict[str, Any]:
    schema = copy.deepcopy(BASE)
    place: Any = schema
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return schema


def test_records_are_written_as_confluent_writes_them() -> None:
    key, value, schema_id = SchemaView().next_entry(SUBJECT, record(ID))
    assert key == b'{"keytype":"SCHEMA","subject":"things-value","version":1,"magic":1}'
    assert json.loads(value) == {
        "subject": SUBJECT, "version": 1, "id": schema_id, "deleted": False,
        "schema": json.dumps(record(ID), separators=(",", ":")),
    }  # fmt: skip
    assert SchemaView().level_entry(SUBJECT) == (
        b'{"keytype":"CONFIG","subject":"things-value","magic":0}', b'{"compatibilityLevel":"FULL_TRANSITIVE"}',
    )  # fmt: skip


def test_ids_and_versions_grow_and_equal_text_keeps_its_id() -> None:
    view = registered(record(ID), record(ID, NOTE))
    assert [(version.number, version.schema_id) for version in view.versions(SUBJECT)] == [(1, 1), (2, 2)]
    assert view.ids(SUBJECT) == {1: record(ID), 2: record(ID, NOTE)}
    assert view.id_of(SUBJECT, record(ID, NOTE)) == 2
    assert view.id_of(SUBJECT, record(ID, name="Other")) is None
    assert view.id_of("other-value", record(ID)) is None
    assert view.next_entry("other-value", record(ID))[2] == 1
    assert view.next_entry("other-value", record(AT))[2] == 3


def test_deleted_versions_stay_readable_and_their_ids_are_not_given_again() -> None:
    view = registered(record(ID), record(ID, NOTE))
    view.apply(
        b'{"keytype":"DELETE_SUBJECT","subject":"things-value","magic":0}', b'{"subject":"things-value","version":2}'
    )
    assert view.subjects() == []
    assert view.id_of(SUBJECT, record(ID)) is None
    assert list(view.ids(SUBJECT)) == [1, 2]
    assert view.next_entry(SUBJECT, record(AT))[2] == 3


def test_a_tombstone_removes_a_version_but_not_the_count_of_ids() -> None:
    view = registered(record(ID), record(ID, NOTE))
    view.apply(view.next_entry(SUBJECT, record(AT))[0].replace(b'"version":3', b'"version":2'), None)
    assert list(view.ids(SUBJECT)) == [1]
    assert view.next_entry(SUBJECT, record(AT))[2] == 3


def test_levels_come_and_go() -> None:
    view = SchemaView()
    key, value = view.level_entry(SUBJECT)
    view.apply(key, value)
    assert view.level(SUBJECT) == LEVEL
    view.apply(key, None)
    assert view.level(SUBJECT) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (NOOP_KEY, None),
        (b'{"keytype":"MODE","subject":null,"magic":0}', b'{"mode":"READWRITE"}'),
        (b'{"keytype":"CONTEXT","tenant":"default","context":"x","magic":0}', b"{}"),
        (b'{"keytype":"CONFIG","subject":null,"magic":0}', b'{"compatibilityLevel":"BACKWARD","normalize":true}'),
    ],
)
def test_records_of_a_full_registry_are_read_over(key: bytes, value: bytes | None) -> None:
    view = registered(record(ID))
    view.apply(key, value)
    assert view.subjects() == [SUBJECT]


def test_schemas_that_are_not_avro_only_take_their_id() -> None:
    view = SchemaView()
    value = {
        "subject": "p",
        "version": 1,
        "id": 5,
        "schemaType": "PROTOBUF",
        "schema": 'syntax = "proto3";',
        "deleted": False,
    }
    view.apply(b'{"keytype":"SCHEMA","subject":"p","version":1,"magic":1}', json.dumps(value).encode())
    assert view.ids("p") == {}
    assert view.next_entry("q", record(ID))[2] == 6
    assert view.problems("p", record(ID)) == ["version 1: is not an Avro record"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"", None),
        (b"not json", b"{}"),
        (b"[]", b"{}"),
        (b"{}", b"{}"),
        (b'{"keytype":"SCHEMA","subject":"a","version":1}', b"{}"),
        (b'{"keytype":"SCHEMA","subject":"a","version":1}', b'{"subject":"a","version":1,"id":1,"schema":"{"}'),
        (b'{"keytype":"CONFIG"}', b"\xff"),
    ],
)
def test_foreign_records_are_decode_errors(key: bytes, value: bytes | None) -> None:
    with pytest.raises(DecodeError, match="not a registry record"):
        SchemaView().apply(key, value)


@pytest.mark.parametrize(
    "allowed",
    [
        BASE,
        record(ID, AT, KIND, NOTE),
        record(ID, AT),
        changed(["fields", 2, "type", "symbols"], ["a", "b", "unknown"]),
        changed(["fields", 0], ID | {"doc": "told better"}),
        record(AT, ID, KIND),
    ],
)
def test_compatible_changes(allowed: dict[str, Any]) -> None:
    assert registered(BASE).problems(SUBJECT, allowed) == []


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (record(ID, AT, KIND, {"name": "new", "type": "string"}), "cannot read it: new"),
        (record(AT, KIND), "it cannot read the new one: id"),
        (changed(["fields", 0, "type"], "long"), "cannot read"),
        (changed(["fields", 1, "type", "logicalType"], "timestamp-millis"), "Thing.at changes its logical type"),
        (changed(["fields", 1, "type"], "long"), "from timestamp-micros to None"),
        (changed(["name"], "Renamed"), "cannot read"),
        (record(ID, AT, KIND, {"name": "x", "type": {"type": "array", "items": "null"}, "default": []}), "no bytes"),
        ({"type": "record"}, "not an Avro schema"),
    ],
)
def test_incompatible_changes(refused: dict[str, Any], reason: str) -> None:
    problems = registered(BASE).problems(SUBJECT, refused)
    assert problems and any(reason in problem for problem in problems)


def test_a_logical_type_is_compared_through_null_and_in_nested_records() -> None:
    def outer(unit: str) -> dict[str, Any]:
        instant = {"type": "long", "logicalType": f"timestamp-{unit}"}
        inner = record({"name": "at", "type": ["null", instant], "default": None}, name="Inner")
        return record({"name": "inners", "type": {"type": "array", "items": inner}, "default": []})

    assert registered(outer("micros")).problems(SUBJECT, outer("micros")) == []
    assert any(
        "troupe.v1.Inner.at" in problem for problem in registered(outer("micros")).problems(SUBJECT, outer("millis"))
    )


def test_every_version_counts_and_is_named() -> None:
    view = registered(record(ID, NOTE), record(ID))
    retyped = record(ID, {"name": "note", "type": ["null", "long"], "default": None})
    problems = view.problems(SUBJECT, retyped)
    assert problems and all(problem.startswith("version 1: ") for problem in problems)
