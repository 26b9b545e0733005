"""JSON Schema: what is understood, what is refused with its place, and that maker and judge agree without knowing each
other.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.catalog.cases import trials
from actors.catalog.json_judge import violation
from actors.catalog.json_schema import shape_of
from schemas.errors import InvalidInput


def of(part: Any) -> dict[str, Any]:
    """An object with one required field `x`."""
    return {"type": "object", "properties": {"x": part}, "required": ["x"]}


@pytest.mark.parametrize(
    ("part", "fits", "not_"),
    [
        ({"type": "integer"}, [0, -5, 2.0, 10**400], [0.5, "1", True, None, []]),
        ({"type": "number", "minimum": 1, "exclusiveMaximum": 2}, [1, 1.5], [0.9, 2, True]),
        ({"type": "number", "multipleOf": 0.1}, [0.3, 1, 1.1], [0.35]),
        ({"type": "string", "minLength": 1, "maxLength": 2}, ["a", "é😀"], ["", "abc", 1]),
        ({"type": "string", "pattern": "a+"}, ["xay"], ["b"]),
        ({"type": "string", "format": "date"}, ["2024-02-29"], ["2023-02-29", "x"]),
        ({"type": "string", "format": "date-time"}, ["2020-01-01T00:00:00Z"], ["2020-01-01", "2020-13-01T00:00:00Z"]),
        ({"type": "string", "format": "time"}, ["10:00:00Z"], ["25:00:00"]),
        ({"type": "string", "format": "email"}, ["a@b.c"], ["a@b", "@", "a b@c.d"]),
        ({"type": "string", "format": "uuid"}, ["c9bf9e57-1685-4c89-bafb-ff5af830be8a"], ["c9bf"]),
        ({"type": "string", "format": "uri"}, ["urn:x"], ["x"]),
        ({"type": "string", "format": "ipv4"}, ["127.0.0.1"], ["127.0.0.256"]),
        ({"type": ["string", "null"]}, ["", None], [1]),
        ({"enum": [1, "a", None, [1]]}, [1, 1.0, "a", None, [1]], [True, 2, "A", [True], []]),
        ({"const": {"a": 1}}, [{"a": 1.0}], [{"a": 1, "b": 2}, {"a": True}]),
        (
            {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
            [[1], [1, 2]],
            [[], [1, 2, 3], ["a"], {}],
        ),
        ({"type": "array", "uniqueItems": True}, [[], [1, True], [[1], [2]]], [[1, 1.0], [{}, {}]]),
        ({"additionalProperties": {"type": "integer"}}, [{}, {"a": 1}], [{"a": "b"}]),
        ({"properties": {"a": {}}, "additionalProperties": False}, [{}, {"a": None}], [{"b": 1}]),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, [1, "a"], [1.5, None]),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, [1.5], [1, "a"]),
        ({"allOf": [{"type": "integer"}]}, [1], ["a"]),
        (True, [None, 1, {}], []),
        ({"title": "Anything", "default": 1, "x-own": 2}, [None, 1, {}], []),
    ],
)
def test_the_judge(part: Any, fits: list[Any], not_: list[Any]) -> None:
    shape_of(of(part))
    assert [value for value in fits if violation(of(part), {"x": value}) is not None] == []
    assert [value for value in not_ if violation(of(part), {"x": value}) is None] == []
    assert violation(of(part), {}) == "x is missing"
    assert violation(of(part), 7) == "the row is 7, not object"


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"not": {}}, "#/properties/x of the schema has 'not', from which no rows can be made yet"),
        ({"type": "array", "prefixItems": []}, "has 'prefixItems'"),
        ({"allOf": [{}, {}]}, "allOf of several schemas"),
        ({"type": "object", "patternProperties": {}}, "has 'patternProperties'"),
        ({"properties": {"a": {}}, "additionalProperties": {}}, "additionalProperties beside properties"),
        ({"type": "string", "pattern": "(a|b)+"}, "pattern .*'\\(' at 0 is not understood"),
        ({"type": "string", "pattern": "a{1,300}b{1,300}"}, "fits too much"),
        ({"type": "string", "pattern": "a*a*a*a*"}, "fits too much"),
        ({"type": "string", "pattern": "\u2603"}, "fits nothing"),
        ({"$ref": "http://elsewhere/schema"}, "only references within the schema"),
        ({"$ref": "#/$defs/none"}, "The schema has no #/\\$defs/none"),
        ({"$ref": "#/$defs/loop"}, "refers to itself without an end"),
        ({"$ref": "#/$defs/b0"}, "more than 5000 parts"),
        ({"type": "money"}, "is money, which is no type"),
        ({"type": [7]}, "is 7, which is no type"),
        ({"type": "string", "minLength": -1}, "is -1 and not a count"),
        ({"type": "string", "minLength": 10**9}, "rows are made up to 100000"),
        ({"type": "integer", "minimum": "0"}, "is 0 and not a number"),
        ({"type": "number", "multipleOf": 0}, "multipleOf that is not from"),
        ({"type": "number", "multipleOf": 1e-12}, "multipleOf that is not from"),
        ({"type": "string", "minimum": 0}, "has 'minimum'"),
        ({"minLength": 0}, "has 'minLength'"),
        ({"enum": []}, "must be a list of values"),
        ({"anyOf": {}}, "must be a list"),
        ({"type": "object", "required": "a"}, "'required' a list"),
        (False, "is false and not an object"),
    ],
)
def test_what_is_refused(part: Any, text: str) -> None:
    bombs = {f"b{n}": {"anyOf": [{"$ref": f"#/$defs/b{n + 1}"}, {"$ref": f"#/$defs/b{n + 1}"}]} for n in range(30)}
    schema = of(part) | {"$defs": {"loop": {"$ref": "#/$defs/loop"}, **bombs, "b30": {"type": "null"}}}
    with pytest.raises(InvalidInput, match=text):
        shape_of(schema)


def test_a_tree_is_made_a_few_levels_deep() -> None:
    node = {"$ref": "#/$defs/node"}
    schema = of(node) | {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "left": {"$ref": "#/$defs/node"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["next"],
            }
        }
    }
    tries = {trial.tries for trial in trials(shape_of(schema), 200, seed=1)}
    assert "x.left.next: missing" in tries
    assert not any("left.left.left" in each for each in tries)


NUMBERS = st.integers(-20, 20)
FORMATS = ["date", "date-time", "time", "email", "uuid", "uri", "ipv4"]
PATTERNS = ["^[A-Z]{2}\\d*$", "x.y", "\\w+@\\w{2,5}"]
VALUES = st.none() | st.booleans() | NUMBERS | st.text(max_size=3)


def typed(word: str, **keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of one type, with these keywords or without."""
    return st.fixed_dictionaries({"type": st.just(word)}, optional=keywords)


LEAVES = st.one_of(
    typed("integer", minimum=NUMBERS, multipleOf=st.integers(1, 3)),
    typed("integer", exclusiveMinimum=NUMBERS, exclusiveMaximum=st.integers(22, 40)),
    typed("number", minimum=NUMBERS, exclusiveMaximum=st.integers(21, 40)),
    typed("number", exclusiveMinimum=NUMBERS, multipleOf=st.sampled_from([0.5, 0.1])),
    typed("string", minLength=st.integers(0, 3), maxLength=st.integers(3, 9)),
    typed("string", format=st.sampled_from(FORMATS)),
    typed("string", pattern=st.sampled_from(PATTERNS)),
    st.fixed_dictionaries({"enum": st.lists(VALUES, min_size=1, max_size=4)}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {}, True, {"type": ["integer", "null"]}]),
)


def objects(below: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of objects with some of their fields required, open and closed."""
    return st.builds(
        lambda fields, keep, closed: {
            "type": "object",
            "properties": fields,
            "required": sorted(fields)[:keep],
            "additionalProperties": not closed,
        },
        st.dictionaries(st.sampled_from("abcd"), below, max_size=4),
        st.integers(0, 4),
        st.booleans(),
    )


def nested(below: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas with schemas in them."""
    return st.one_of(
        typed("array", minItems=st.integers(0, 2), maxItems=st.integers(2, 4), items=below),
        typed("object", additionalProperties=below),
        st.tuples(below, st.just({"type": "null"})).map(lambda both: {"anyOf": list(both)}),
        objects(below),
    )


@settings(max_examples=150, deadline=None)
@given(schema=objects(st.recursive(LEAVES, nested, max_leaves=6)), seed=st.integers(0, 2**32))
def test_maker_and_judge_agree(schema: dict[str, Any], seed: int) -> None:
    found = list(trials(shape_of(schema), 60, seed))
    assert found == list(trials(shape_of(schema), 60, seed))
    for trial in found:
        row = json.loads(json.dumps(trial.row, allow_nan=False))
        assert (violation(schema, row) is None) == (trial.kind != "invalid"), (trial, violation(schema, row))
