"""The compiled writer and reader against fastavro: for every record of the product the same bytes and values."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro import avro_schema, runtime_schema
from schemas.compiled import DAMAGES, MISFITS, compile_reader, compile_writer
from schemas.errors import SchemaError
from topology import troupe

SCHEMAS = {subject: runtime_schema(avro_schema(model)) for subject, model in troupe().models().items()}
ALL_TYPES = {
    "type": "record", "name": "All", "fields": [
        {"name": "i", "type": "int"}, {"name": "l", "type": "long"}, {"name": "d", "type": "double"},
        {"name": "f", "type": "float"}, {"name": "b", "type": "boolean"}, {"name": "s", "type": "string"},
        {"name": "y", "type": "bytes"}, {"name": "a", "type": {"type": "array", "items": "long"}},
        {"name": "m", "type": {"type": "map", "values": ["null", "string"]}},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["one", "unknown"]}},
        {"name": "again", "type": ["null", "E"]},
        {"name": "r", "type": {"type": "array", "items": {
            "type": "record", "name": "Inner", "fields": [{"name": "x", "type": ["null", "double"]}]}}},
        {"name": "one", "type": ["null", "Inner"]},
    ],
}  # fmt: skip
SCHEMAS["all types"] = ALL_TYPES
READERS = {subject: compile_reader(schema) for subject, schema in SCHEMAS.items()}
WRITERS = {subject: compile_writer(schema) for subject, schema in SCHEMAS.items()}
PARSED = {subject: parse_schema(schema) for subject, schema in SCHEMAS.items()}

INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-5000, 5000))
PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "int": INTS, "long": LONGS, "boolean": st.booleans(), "bytes": st.binary(max_size=200),
    "double": st.floats(allow_nan=False), "float": st.floats(allow_nan=False, width=32),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
}  # fmt: skip


def values(schema: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a schema."""
    if isinstance(schema, list):
        return st.none() | values(schema[1], named)
    if isinstance(schema, str):
        return PRIMITIVES[schema] if schema in PRIMITIVES else values(named[schema], named)
    if "name" in schema:
        named[f"{schema['namespace']}.{schema['name']}" if "namespace" in schema else schema["name"]] = schema
    match schema["type"]:
        case "record":
            return st.fixed_dictionaries({each["name"]: values(each["type"], named) for each in schema["fields"]})
        case "enum":
            return st.sampled_from(schema["symbols"])
        case "array":
            return st.lists(values(schema["items"], named), max_size=3)
        case "map":
            return st.dictionaries(PRIMITIVES["string"], values(schema["values"], named), max_size=3)
    return values(schema["type"], named)


VALUES = {subject: values(schema, {}) for subject, schema in SCHEMAS.items()}


def written(subject: str, value: Any) -> bytes:
    out = bytearray()
    WRITERS[subject](out, value)
    return bytes(out)


def by_fastavro(subject: str, value: Any) -> bytes:
    out = BytesIO()
    schemaless_writer(out, PARSED[subject], value)
    return out.getvalue()


@pytest.mark.parametrize("subject", list(SCHEMAS))
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_the_bytes_are_those_of_fastavro_and_read_back_the_same(subject: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[subject])
    encoded = written(subject, value)
    assert encoded == by_fastavro(subject, value)
    read = READERS[subject](b"frame" + encoded, 5)
    assert read == schemaless_reader(BytesIO(encoded), PARSED[subject], None)


@pytest.mark.parametrize("subject", list(SCHEMAS))
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_damage_is_told_or_read_as_fastavro_reads_it(subject: str, data: st.DataObject) -> None:
    encoded = bytearray(written(subject, data.draw(VALUES[subject])))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(encoded[: data.draw(st.integers(0, len(encoded)))])
    try:
        read = READERS[subject](damaged, 0)
    except DAMAGES:
        return
    body = BytesIO(damaged)
    assert repr(read) == repr(schemaless_reader(body, PARSED[subject], None))  # by text, as nan is not nan
    assert body.tell() == len(damaged)


@given(junk=st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_told_or_read(junk: bytes) -> None:
    for read in READERS.values():
        with suppress(DAMAGES):
            read(junk, 0)


def test_arrays_in_blocks_with_sizes_as_other_writers_make_them_are_read() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": "long"}}]}
    blocks = bytes([3, 4, 2, 4, 2, 6, 0])  # two items in two bytes, then one item, then the end
    assert compile_reader(schema)(blocks, 0) == {"a": [1, 2, 3]}


@pytest.mark.parametrize(
    "body",
    [b"\xff" * 9 + b"\x02", b"\xff" * 300 + b"\x01", b"\x80" * 200, b"", b"\x02\x00"],
    ids=lambda body: len(body),
)
def test_numbers_that_are_none(body: bytes) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}]}
    with pytest.raises(DAMAGES):
        compile_reader(schema)(body, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("i", 2**31), ("l", 2**63), ("l", 5000.0), ("i", "5"), ("s", 5), ("s", None), ("s", b"x"), ("y", "x"),
        ("e", "two"), ("d", "x"), ("b", "yes"), ("a", None), ("a", ["x"]), ("m", {1: "x"}), ("r", [3]), ("s", "\ud800"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(name: str, value: Any) -> None:
    fits = {
        "i": 1, "l": 5000, "d": 1.5, "f": 1.5, "b": True, "s": "x", "y": b"x", "a": [1], "m": {"k": None}, "e": "one",
        "again": None, "r": [{"x": 1.0}], "one": None,
    }  # fmt: skip
    assert written("all types", fits)
    with pytest.raises(MISFITS):
        written("all types", fits | {name: value})


@pytest.mark.parametrize(
    "kind", [["string", "null"], ["null", "int", "string"], {"type": "fixed", "name": "F", "size": 4}]
)
def test_types_that_our_models_do_not_give_are_refused(kind: Any) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "x", "type": kind}]}
    for make in (compile_writer, compile_reader):
        with pytest.raises(SchemaError):
            make(schema)
