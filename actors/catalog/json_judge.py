"""Whether a JSON value fits a JSON Schema: the judge of generated rows, who knows nothing of how they were made.

It reads the schema as it was given, keyword by keyword, by the words of draft 2020-12. It need not know more keywords
than the translation takes: a schema with others was refused before any row came here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, time
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from actors.catalog import patterns
from actors.catalog.datasets import micros, shown
from actors.catalog.json_schema import target_of

DEPTH_MAX = 200
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")


def violation(root: dict[str, Any], value: Any) -> str | None:
    """The first thing in `value` that the schema does not allow, with its path; None if it fits."""
    return next(_Judge(root).faults(root, value, "", 0), None)


class _Judge:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def faults(self, schema: Any, value: Any, path: str, depth: int) -> Iterator[str]:
        at = path or "the row"
        if schema is True:
            return
        if depth > DEPTH_MAX:
            yield f"{at} is nested deeper than {DEPTH_MAX}"
            return
        if "$ref" in schema:
            yield from self.faults(target_of(self._root, schema["$ref"], at), value, path, depth + 1)
            return
        words = schema.get("type")
        listed = words if isinstance(words, list) else [words]
        if words is not None and not any(_is(word, value) for word in listed):
            yield f"{at} is {shown(value, 40)}, not {' or '.join(listed)}"
            return
        if "const" in schema and not _same(schema["const"], value):
            yield f"{at} is {shown(value, 40)}, not {shown(schema['const'], 40)}"
        if "enum" in schema and not any(_same(each, value) for each in schema["enum"]):
            yield f"{at} is {shown(value, 40)}, which is none of the values"
        for word, fitting in (("anyOf", 1), ("oneOf", 1), ("allOf", None)):
            if word in schema:
                yield from self._combined(schema[word], value, path, depth, word, fitting)
        if isinstance(value, str):
            yield from _text_faults(schema, value, at)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield from _number_faults(schema, value, at)
        elif isinstance(value, list):
            yield from self._item_faults(schema, value, path, depth)
        elif isinstance(value, dict):
            yield from self._field_faults(schema, value, path, depth)

    def _combined(
        self, parts: list[Any], value: Any, path: str, depth: int, word: str, fitting: int | None
    ) -> Iterator[str]:
        fits = sum(next(self.faults(part, value, path, depth + 1), None) is None for part in parts)
        if (
            (word == "oneOf" and fits != fitting)
            or (word == "anyOf" and not fits)
            or (word == "allOf" and fits < len(parts))
        ):
            yield f"{path or 'the row'} fits {fits} of the {len(parts)} schemas of {word}"

    def _item_faults(self, schema: dict[str, Any], value: list[Any], path: str, depth: int) -> Iterator[str]:
        at = path or "the row"
        if len(value) < schema.get("minItems", 0):
            yield f"{at} has {len(value)} items, fewer than {schema['minItems']}"
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{at} has {len(value)} items, more than {schema['maxItems']}"
        if schema.get("uniqueItems") is True and any(
            _same(each, other) for place, each in enumerate(value) for other in value[:place]
        ):
            yield f"{at} has an item twice"
        for place, each in enumerate(value):
            yield from self.faults(schema.get("items", True), each, f"{path}[{place}]", depth + 1)

    def _field_faults(self, schema: dict[str, Any], value: dict[str, Any], path: str, depth: int) -> Iterator[str]:
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{_below(path, name)} is missing"
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, each in value.items():
            if name in properties:
                yield from self.faults(properties[name], each, _below(path, name), depth + 1)
            elif more is False:
                yield f"{_below(path, name)} is not a field of the schema"
            else:
                yield from self.faults(more, each, _below(path, name), depth + 1)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is(word: str, value: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return word == ("null" if value is None else "boolean")
    if isinstance(value, int | float):
        return word == "number" or (word == "integer" and value == value // 1)
    return word == ("string" if isinstance(value, str) else "array" if isinstance(value, list) else "object")


def _same(one: Any, other: Any) -> bool:
    """JSON equality: true is not 1, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return bool(one == other)


def _number_faults(schema: dict[str, Any], value: float, at: str) -> Iterator[str]:
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{at} is {value}, below {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"{at} is {value}, above {schema['maximum']}"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        yield f"{at} is {value}, not above {schema['exclusiveMinimum']}"
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        yield f"{at} is {value}, not below {schema['exclusiveMaximum']}"
    if "multipleOf" in schema and Decimal(repr(value)) % Decimal(repr(schema["multipleOf"])):
        yield f"{at} is {value}, no multiple of {schema['multipleOf']}"


def _text_faults(schema: dict[str, Any], value: str, at: str) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield f"{at} has {len(value)} characters, fewer than {schema['minLength']}"
    if len(value) > schema.get("maxLength", len(value)):
        yield f"{at} has {len(value)} characters, more than {schema['maxLength']}"
    if "pattern" in schema and not patterns.read(schema["pattern"]).fits(value):
        yield f"{at} does not fit the pattern {schema['pattern']}"
    if (check := FORMAT_CHECKS.get(schema.get("format", ""))) and not _holds(check, value):
        yield f"{at} is no {schema['format']}"


def _holds(check: Callable[[str], object], value: str) -> bool:
    try:
        return check(value) is not None
    except ValueError:
        return False


FORMAT_CHECKS: dict[str, Callable[[str], object]] = {
    "date": date.fromisoformat,
    "date-time": lambda text: micros(text) if "T" in text else None,
    "time": time.fromisoformat,
    "email": _EMAIL.fullmatch,
    "uuid": UUID,
    "uri": lambda text: urlsplit(text).scheme or None,
    "ipv4": IPv4Address,
}
"""Per format: raises ValueError or gives None for text that does not have it."""
