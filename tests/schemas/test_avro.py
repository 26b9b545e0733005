"""The mapper says exactly what a model means or refuses it; the guard refuses schemas that could hurt a reader."""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from fastavro import parse_schema
from pydantic import BaseModel, Field, create_model

from schemas.avro import Avro, Int, Micros, avro_schema, check_safe, runtime_schema
from schemas.errors import SchemaError


class Colour(StrEnum):
    """What it looks like."""

    RED = "red"
    UNKNOWN = "unknown"


class Closed(StrEnum):
    ONLY = "only"


class Part(BaseModel):
    """A part.

    Only the first paragraph is told.
    """

    at: Micros | None = None
    size: Int = 1


class Whole(BaseModel):
    name: str = Field(description="how it is called")
    colour: Colour = Colour.RED
    left: Part | None = None
    parts: tuple[Part, ...] = ()
    by_name: dict[str, Part] = Field(default_factory=dict)
    raw: bytes = b"\xff"
    share: float = 1


def schema_of(hint: Any, default: Any = ...) -> dict[str, Any]:
    return avro_schema(create_model("Probe", field=(hint, default)))["fields"][0]


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (str, "string"),
        (int, "long"),
        (float, "double"),
        (bool, "boolean"),
        (bytes, "bytes"),
        (Int, "int"),
        (Annotated[Int, Field(ge=1)], "int"),
        (Micros, {"type": "long", "logicalType": "timestamp-micros"}),
        (Annotated[str, Avro(logicalType="uuid")], {"type": "string", "logicalType": "uuid"}),
        (Literal["a", "b"], "string"),
        (list[int], {"type": "array", "items": "long"}),
        (tuple[str, ...], {"type": "array", "items": "string"}),
        (dict[str, float], {"type": "map", "values": "double"}),
    ],
)
def test_types(hint: Any, expected: Any) -> None:
    assert schema_of(hint) == {"name": "field", "type": expected}


@pytest.mark.parametrize("hint", [str, Int, Micros, list[str]])
def test_optional_is_null_first_with_default_null(hint: Any) -> None:
    assert schema_of(hint | None, None) == {"name": "field", "type": ["null", schema_of(hint)["type"]], "default": None}


def test_records_and_enums_are_defined_once_and_then_named() -> None:
    schema = avro_schema(Whole)
    fields = {field["name"]: field for field in schema["fields"]}
    assert (schema["namespace"], schema["name"]) == ("troupe.v1", "Whole")
    assert fields["left"]["type"][1]["doc"] == "A part."
    assert fields["parts"]["type"] == {"type": "array", "items": "troupe.v1.Part"}
    assert fields["by_name"]["type"] == {"type": "map", "values": "troupe.v1.Part"}
    assert fields["colour"]["type"]["default"] == "unknown"
    assert fields["name"]["doc"] == "how it is called"
    parse_schema(schema)


def test_defaults_are_constants_of_the_fields_type() -> None:
    found = {field["name"]: field.get("default", "none") for field in avro_schema(Whole)["fields"]}
    assert found == {
        "name": "none", "colour": "red", "left": None, "parts": [], "by_name": {}, "raw": "ÿ", "share": 1.0,
    }  # fmt: skip
    assert isinstance(found["share"], float)


def test_a_clock_or_id_factory_means_required() -> None:
    model = create_model("Probe", field=(str, Field(default_factory=lambda: "made")))
    assert "default" not in avro_schema(model)["fields"][0]


def test_the_text_is_the_same_every_time() -> None:
    assert json.dumps(avro_schema(Whole)) == json.dumps(avro_schema(Whole))


@pytest.mark.parametrize(
    ("hint", "default", "reason"),
    [
        (int | str, ..., "only union"),
        (int | str | None, None, "only union"),
        (int | None, 5, "default to None"),
        (int | None, ..., "default to None"),
        (Annotated[int | None, Avro(logicalType="timestamp-micros")], None, "inside the union"),
        (Closed, ..., "'unknown'"),
        (datetime, ..., "no Avro type"),
        (Any, ..., "no Avro type"),
        (dict[int, str], ..., "no Avro type"),
        (list[int], [1], "no place in a schema"),
        (str, Field(alias="other"), "alias"),
    ],
)
def test_refused_with_the_field_named(hint: Any, default: Any, reason: str) -> None:
    with pytest.raises(SchemaError, match=reason) as refused:
        schema_of(hint, default)
    assert "Probe.field" in str(refused.value)


class Tree(BaseModel):
    label: str
    children: list[Tree] = []


def test_recursive_and_empty_models_are_refused() -> None:
    with pytest.raises(SchemaError, match="contains itself"):
        avro_schema(Tree)
    with pytest.raises(SchemaError, match="no bytes"):
        avro_schema(create_model("Empty"))


def test_two_types_of_one_name_are_refused() -> None:
    other = create_model("Part", other=(int, ...))
    with pytest.raises(SchemaError, match="two types are called Part"):
        avro_schema(create_model("Probe", a=(Part, ...), b=(other, ...)))


def nested(levels: int) -> Any:
    schema: Any = "string"
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


EMPTY = {"type": "record", "name": "E", "fields": []}


@pytest.mark.parametrize(
    "hostile",
    [
        {"type": "array", "items": "null"},
        {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}},
        {"type": "array", "items": EMPTY},
        {"type": "map", "values": EMPTY},
        {"type": "record", "name": "N", "fields": [{"name": "a", "type": "null"}]},
        {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]},
        {"type": "record", "name": "M", "fields": [{"name": "m", "type": {"type": "map", "values": "M"}}]},
        nested(100),
        nested(5_000),
        {"type": "record", "name": "X", "fields": [{"name": "a", "type": "nonsense"}]},
        {"type": "fixed", "name": "F", "size": -1},
        {"type": "record"},
        {},
        17,
        None,
    ],
)
def test_hostile_schemas_are_refused(hostile: Any) -> None:
    with pytest.raises(SchemaError):
        check_safe(hostile)


@pytest.mark.parametrize("fine", ["string", ["null", "long"], nested(10), {"type": "map", "values": "null"}])
def test_ordinary_schemas_are_admitted(fine: Any) -> None:
    check_safe(fine)


def test_runtime_schema_drops_logical_types_and_nothing_else() -> None:
    schema = avro_schema(Part)
    assert "logicalType" in json.dumps(schema)
    assert runtime_schema(schema) == json.loads(json.dumps(schema).replace(', "logicalType": "timestamp-micros"', ""))
    kept = {"type": "map", "values": "string", "default": {"logicalType": "x"}}
    assert runtime_schema(kept) == kept
