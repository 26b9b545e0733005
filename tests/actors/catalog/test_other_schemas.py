"""Columns and Avro: what the maker of rows calls right the judge takes, and what it calls wrong the judge refuses."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.catalog.avro_shape import AvroSchema
from actors.catalog.cases import trials
from actors.catalog.column_shape import ColumnSchema

SEEDS = st.integers(0, 2**32)
MANY = settings(max_examples=100, deadline=None)


def agree(schema: AvroSchema | ColumnSchema, seed: int) -> None:
    """Hold sixty rows to the schema."""
    for trial in trials(schema.shape(), 60, seed):
        row = json.loads(json.dumps(trial.row, allow_nan=False))
        assert (schema.violation(row) is None) == (trial.kind != "invalid"), (trial, schema.violation(row))


def column(kind: str, low: int, span: int, nullable: bool, bounded: bool) -> dict[str, Any]:
    """One column of a kind, with bounds that make sense for it."""
    bounds: dict[str, Any] = {}
    if kind in ("int", "float", "timestamp"):
        bounds = {"min": low, "max": low + span}
    elif kind == "str":
        bounds = {"min_length": span % 5, "max_length": span % 5 + abs(low) % 7}
    return {"type": kind, "nullable": nullable} | (bounds if bounded else {})


COLUMNS = st.builds(
    column,
    st.sampled_from(["int", "float", "str", "bool", "timestamp"]),
    st.integers(-(10**15), 10**15),
    st.integers(0, 10**6),
    st.booleans(),
    st.booleans(),
) | st.lists(st.integers(0, 9) | st.text(max_size=3), min_size=1, max_size=3).map(lambda each: {"values": each})


@MANY
@given(columns=st.lists(COLUMNS, min_size=1, max_size=6), seed=SEEDS)
def test_columns(columns: list[dict[str, Any]], seed: int) -> None:
    agree(ColumnSchema([{"name": f"c{place}"} | each for place, each in enumerate(columns)]), seed)


PRIMITIVES = ["boolean", "int", "long", "float", "double", "string", "bytes"]
TYPES = st.recursive(
    st.sampled_from(PRIMITIVES),
    lambda below: st.one_of(
        below.map(lambda each: {"type": "array", "items": each}),
        below.map(lambda each: {"type": "map", "values": each}),
        below.filter(lambda each: not isinstance(each, list)).map(lambda each: ["null", each]),
    ),
    max_leaves=4,
)


@MANY
@given(types=st.lists(st.tuples(TYPES, st.booleans()), min_size=1, max_size=5), seed=SEEDS)
def test_avro(types: list[tuple[Any, bool]], seed: int) -> None:
    fields = [
        {"name": f"f{place}", "type": each} | ({"default": None} if optional and isinstance(each, list) else {})
        for place, (each, optional) in enumerate(types)
    ]
    own = [
        {"name": "side", "type": {"type": "enum", "name": "Side", "symbols": ["A", "B"]}},
        {"name": "again", "type": "Side"},
    ]
    nested = {"name": "inner", "type": {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": "long"}]}}
    agree(AvroSchema({"type": "record", "name": "Row", "fields": [*fields, *own, nested]}), seed)
