"""JSON Schema, as far as rows can be made from it: translated to a shape, and judged by the schema as it was given.

The two walk the schema apart from each other on purpose. A keyword that only one of them knew would make a test that
cannot fail; so whatever is not understood is refused with its place instead of being passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from actors.catalog import patterns
from actors.catalog.datasets import named, shown
from actors.catalog.shapes import (
    Anything,
    Choice,
    Either,
    Field,
    Items,
    Null,
    Number,
    Record,
    Shape,
    Table,
    Text,
    Truth,
)
from schemas.errors import InvalidInput

NODES_MAX = 5_000
COUNT_MAX = 100_000
FORMATS = frozenset({"date", "date-time", "time", "email", "uuid", "uri", "ipv4"})

_REMARKS = frozenset(
    {
        "$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated",
        "readOnly", "writeOnly", "discriminator",
    }
)  # fmt: skip
_KEYWORDS: dict[str, frozenset[str]] = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format"}),
    "boolean": frozenset(),
    "null": frozenset(),
    "array": frozenset({"items", "minItems", "maxItems", "uniqueItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
}
_KEYWORDS["integer"] = _KEYWORDS["number"]


def shape_of(schema: dict[str, Any]) -> Shape:
    """The shape of a schema. Raises InvalidInput, naming the place, for what is no schema or is not understood."""
    translated = _Translation(schema).shape(schema, "#", ())
    if translated is None:
        raise InvalidInput("The schema refers to itself without an end")
    return translated


def target_of(root: dict[str, Any], reference: Any, where: str) -> Any:
    """What a `$ref` within the document means."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise _unknown(where, f"$ref {shown(reference)}: only references within the schema are followed")
    found: Any = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            raise InvalidInput(f"The schema has no {shown(reference)}, to which {where} refers")
        found = found[name]
    return found


class _Translation:
    """One walk over a schema; None instead of a shape is what lies too deep within itself."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._nodes = 0

    def shape(self, schema: Any, where: str, refs: tuple[str, ...]) -> Shape | None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise InvalidInput(f"The schema has more than {NODES_MAX} parts, counted where they are used")
        if schema is True:
            return Anything()
        if not isinstance(schema, dict):
            raise InvalidInput(f"{where} of the schema is {shown(schema)} and not an object")
        if "$ref" in schema:
            _only(schema, {"$ref"}, where)
            reference = schema["$ref"]
            below = target_of(self._root, reference, where)
            return None if refs.count(reference) == 2 else self.shape(below, str(reference), (*refs, reference))
        for word in ("anyOf", "oneOf", "allOf"):
            if word in schema:
                return self._combined(schema, word, where, refs)
        return self._plain(schema, where, refs)

    def _combined(self, schema: dict[str, Any], word: str, where: str, refs: tuple[str, ...]) -> Shape | None:
        _only(schema, {word, "type"} if schema.get("type") == "object" else {word}, where)
        parts = schema[word]
        if not isinstance(parts, list) or not parts:
            raise InvalidInput(f"{where}/{word} of the schema must be a list")
        if word == "allOf" and len(parts) > 1:
            raise _unknown(where, "allOf of several schemas; write them as one")
        options = [self.shape(part, f"{where}/{word}/{place}", refs) for place, part in enumerate(parts)]
        kept = tuple(option for option in options if option is not None)
        return Either(kept) if len(kept) > 1 else kept[0] if kept else None

    def _plain(self, schema: dict[str, Any], where: str, refs: tuple[str, ...]) -> Shape | None:
        if "const" in schema or "enum" in schema:
            values = [schema["const"]] if "const" in schema else schema["enum"]
            _only(schema, {"const", "enum", "type"}, where)
            if not isinstance(values, list) or not values:
                raise InvalidInput(f"{where}/enum of the schema must be a list of values")
            return Choice(tuple(values))
        words = schema.get("type", _implied(schema))
        listed: list[Any] = words if isinstance(words, list) else [words]
        if listed == [None]:
            _only(schema, set(), where)
            return Anything()
        if wrong := [word for word in listed if not isinstance(word, str) or word not in _KEYWORDS]:
            raise InvalidInput(f"{where}/type of the schema is {shown(wrong[0])}, which is no type")
        _only(schema, {"type"}.union(*(_KEYWORDS[word] for word in listed)), where)
        options = [self._typed(word, schema, where, refs) for word in listed]
        kept = tuple(option for option in options if option is not None)
        return Either(kept) if len(kept) > 1 else kept[0] if kept else None

    def _typed(self, word: str, schema: dict[str, Any], where: str, refs: tuple[str, ...]) -> Shape | None:
        make: dict[str, Callable[[], Shape | None]] = {
            "string": lambda: _text(schema, where),
            "integer": lambda: _number(schema, where, whole=True),
            "number": lambda: _number(schema, where, whole=False),
            "boolean": Truth,
            "null": Null,
            "array": lambda: self._items(schema, where, refs),
            "object": lambda: self._record(schema, where, refs),
        }
        return make[word]()

    def _items(self, schema: dict[str, Any], where: str, refs: tuple[str, ...]) -> Shape | None:
        of = self.shape(schema.get("items", True), f"{where}/items", refs)
        fewest, most = _count(schema, "minItems", where) or 0, _count(schema, "maxItems", where)
        if of is None:
            return None if fewest else Items(Null(), 0, 0)
        return Items(of, fewest, most, schema.get("uniqueItems") is True)

    def _record(self, schema: dict[str, Any], where: str, refs: tuple[str, ...]) -> Shape | None:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise InvalidInput(f"{where} of the schema: 'properties' must be an object and 'required' a list")
        more = schema.get("additionalProperties", True)
        if not properties and not required and isinstance(more, dict):
            of = self.shape(more, f"{where}/additionalProperties", refs)
            return None if of is None else Table(of)
        if isinstance(more, dict):
            raise _unknown(where, "a schema of additionalProperties beside properties")
        fields = []
        for name in [*properties, *(name for name in required if name not in properties)]:
            shape = self.shape(properties.get(name, True), f"{where}/properties/{name}", refs)
            if shape is None and name in required:
                return None
            if shape is not None:
                fields.append(Field(name, shape, name in required))
        return Record(tuple(fields), closed=more is False)


def _text(schema: dict[str, Any], where: str) -> Text:
    pattern = None
    if "pattern" in schema:
        try:
            pattern = patterns.read(str(schema["pattern"]))
        except ValueError as error:
            raise _unknown(where, f"pattern {shown(schema['pattern'])}: {error}") from None
    form = schema.get("format", "")
    return Text(
        _count(schema, "minLength", where) or 0,
        _count(schema, "maxLength", where),
        form if form in FORMATS else "",
        pattern,
    )


def _number(schema: dict[str, Any], where: str, *, whole: bool) -> Number:
    low, high, step = (_real(schema, word, where) for word in ("minimum", "maximum", "multipleOf"))
    above, below = _real(schema, "exclusiveMinimum", where), _real(schema, "exclusiveMaximum", where)
    low_open = above is not None and (low is None or above >= low)
    high_open = below is not None and (high is None or below <= high)
    if step is not None and not (
        1e-9 <= step <= 1e9 and all(abs(each or 0) <= 1e15 for each in (low, high, above, below))
    ):
        raise _unknown(where, "a multipleOf that is not from 1e-9 to 1e9, or has bounds beyond 1e15")
    return Number(whole, above if low_open else low, below if high_open else high, low_open, high_open, step)


def _real(schema: dict[str, Any], word: str, where: str) -> float | None:
    value = schema.get(word)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e300):
        raise InvalidInput(f"{where}/{word} of the schema is {shown(value)} and not a number within ±1e300")
    return value


def _count(schema: dict[str, Any], word: str, where: str) -> int | None:
    value = schema.get(word)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise InvalidInput(f"{where}/{word} of the schema is {shown(value)} and not a count")
    if value is not None and word in ("minLength", "minItems") and value > COUNT_MAX:
        raise InvalidInput(f"{where}/{word} of the schema is {value}; rows are made up to {COUNT_MAX}")
    return value


def _implied(schema: dict[str, Any]) -> str | None:
    return next((word for word in ("object", "array") if _KEYWORDS[word] & schema.keys()), None)


def _only(schema: dict[str, Any], known: set[str], where: str) -> None:
    if strange := sorted(name for name in schema if name not in known and name not in _REMARKS and name[:2] != "x-"):
        raise _unknown(where, named(strange))


def _unknown(where: str, what: str) -> InvalidInput:
    return InvalidInput(f"{where} of the schema has {what}, from which no rows can be made yet", code="unsupported")


def unchecked_formats(schema: Any) -> Iterator[str]:
    """Words of `format` that no row is held to."""
    if isinstance(schema, dict):
        form = schema.get("format")
        if isinstance(form, str) and form not in FORMATS:
            yield form
        for part in schema.values():
            yield from unchecked_formats(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from unchecked_formats(part)
