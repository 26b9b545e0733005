"""Avro schemas: translated to a shape, and judged by the library that the product's records are written with.

A row is JSON: bytes are text of U+0000 to U+00FF as in Avro's own defaults, a union is the bare value, and a logical type
is the value of the type below it. A field with a default may be left out.
"""

from __future__ import annotations

from typing import Any

from fastavro import parse_schema
from fastavro.validation import ValidationError, validate

from actors.catalog.datasets import shown
from actors.catalog.shapes import (
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
FIXED_MAX = 100_000

_PRIMITIVE: dict[str, Shape] = {
    "null": Null(),
    "boolean": Truth(),
    "int": Number(whole=True, low=-(2**31), high=2**31 - 1),
    "long": Number(whole=True, low=-(2**63), high=2**63 - 1),
    "float": Number(),  # the library takes any number for one, so nothing lies beyond
    "double": Number(),
    "string": Text(),
    "bytes": Text(latin=True),
}


class AvroSchema:
    """A schema of a record. Raises InvalidInput for what is none."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._named: dict[str, Any] = {}
        try:
            self._schema: Any = parse_schema(given, self._named)
        except RecursionError:
            raise InvalidInput("The Avro schema is nested too deeply") from None
        except Exception as error:  # whatever the library stumbles over in a stranger's schema
            raise InvalidInput(f"The Avro schema cannot be read: {shown(str(error), 200)}") from None
        self._nodes = 0

    def shape(self) -> Shape:
        """What the schema allows."""
        found = self._shape(self._schema, ())
        if found is None:
            raise InvalidInput("The Avro schema refers to itself without an end")
        return found

    def violation(self, row: Any) -> str | None:
        """What the schema does not allow in a row; None if it fits."""
        try:
            validate(self._datum(row, self._schema), self._schema, strict=True)
        except ValidationError as error:
            first = error.errors[0] if error.errors else None
            return (
                "does not fit"
                if first is None
                else f"{first.field or 'the row'}: {shown(first.datum, 40)} does not fit"
            )
        except (
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
        ) as error:  # a logical type that cannot be prepared
            return shown(str(error))
        return None

    def _shape(self, schema: Any, names: tuple[str, ...]) -> Shape | None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise InvalidInput(f"The Avro schema has more than {NODES_MAX} parts, counted where they are used")
        if isinstance(schema, list):
            options = [self._shape(option, names) for option in schema]
            kept = tuple(option for option in options if option is not None)
            return Either(kept) if len(kept) > 1 else kept[0] if kept else None
        kind = schema if isinstance(schema, str) else schema["type"]
        if isinstance(kind, str) and kind in _PRIMITIVE:
            return _PRIMITIVE[kind]
        match kind:
            case "record" | "error":
                return self._record(schema, (*names, schema["name"]))
            case "enum":
                return Choice(tuple(schema["symbols"]))
            case "fixed":
                if schema["size"] > FIXED_MAX:
                    raise InvalidInput(f"A fixed of {schema['size']} bytes; rows are made up to {FIXED_MAX}")
                return Text(schema["size"], schema["size"], latin=True)
            case "array":
                of = self._shape(schema["items"], names)
                return Items(Null(), 0, 0) if of is None else Items(of)
            case "map":
                of = self._shape(schema["values"], names)
                return Table(Null()) if of is None else Table(of)
            case str():
                return None if names.count(kind) == 2 else self._shape(self._named[kind], names)
        return self._shape(kind, names)

    def _record(self, schema: dict[str, Any], names: tuple[str, ...]) -> Shape | None:
        fields = []
        for each in schema["fields"]:
            shape, required = self._shape(each["type"], names), "default" not in each
            if shape is None and required:
                return None
            if shape is not None:
                fields.append(Field(each["name"], shape, required))
        return Record(tuple(fields))

    def _datum(self, value: Any, schema: Any) -> Any:
        """The row as the library wants it: text becomes bytes where bytes are due."""
        if isinstance(schema, str) and schema in self._named:
            schema = self._named[schema]
        if isinstance(schema, list):
            return self._datum(value, _branch(value, schema, self._named))
        kind = schema if isinstance(schema, str) else schema["type"]
        if isinstance(kind, dict | list):
            return self._datum(value, kind)
        if kind in ("bytes", "fixed") and isinstance(value, str):
            return value.encode("latin-1", "replace") if all(letter <= "\xff" for letter in value) else value
        if kind in ("record", "error") and isinstance(value, dict):
            types = {field["name"]: field["type"] for field in schema["fields"]}
            return {name: self._datum(each, types[name]) if name in types else each for name, each in value.items()}
        if kind == "array" and isinstance(value, list):
            return [self._datum(each, schema["items"]) for each in value]
        if kind == "map" and isinstance(value, dict):
            return {name: self._datum(each, schema["values"]) for name, each in value.items()}
        return value


def _branch(value: Any, union: list[Any], named: dict[str, Any]) -> Any:
    """The branch of a union that a JSON value belongs to, by its type."""
    kinds = [_kind(option, named) for option in union]
    if isinstance(value, str):
        wanted: tuple[str, ...] = () if "string" in kinds or "enum" in kinds else ("bytes", "fixed")
    else:
        wanted = (
            ("record", "error", "map") if isinstance(value, dict) else ("array",) if isinstance(value, list) else ()
        )
    return next((option for option, kind in zip(union, kinds, strict=True) if kind in wanted), "null")


def _kind(schema: Any, named: dict[str, Any]) -> str:
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    return schema if isinstance(schema, str) else str(schema["type"])
