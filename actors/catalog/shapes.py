"""What a schema allows, said once for all languages in which schemas come.

JSON Schema, Avro and lists of columns say the same things in different words: text of some length, a number within
bounds, one of several. A shape is that meaning and nothing of the language, so that rows are made from it in one place.
Whether a row is right is never asked of a shape: that is judged by the schema itself, as it was given, so that a mistake
in the translation shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from actors.catalog.patterns import Pattern


@dataclass(frozen=True, slots=True)
class Text:
    """Text of so many characters. format: `date`, `date-time`, `time`, `email`, `uuid`, `uri`, `ipv4`, or empty.

    earliest, latest: microseconds, of a `date-time`. latin: of U+0000 to U+00FF only, as bytes are written in JSON.
    """

    shortest: int = 0
    longest: int | None = None
    format: str = ""
    pattern: Pattern | None = None
    earliest: int | None = None
    latest: int | None = None
    latin: bool = False


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `low` to `high`, themselves excluded if open; `step` is what it is a multiple of."""

    whole: bool = False
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    step: float | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """true or false."""


@dataclass(frozen=True, slots=True)
class Null:
    """null and nothing else."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these JSON values."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Anything:
    """Any JSON value."""


@dataclass(frozen=True, slots=True)
class Items:
    """A list of so many items."""

    of: Shape
    fewest: int = 0
    most: int | None = None
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """An object with names of the caller's choice, and values of one shape."""

    of: Shape


@dataclass(frozen=True, slots=True)
class Field:
    """A named part of a record."""

    name: str
    shape: Shape
    required: bool = True


@dataclass(frozen=True, slots=True)
class Record:
    """An object with these fields; `closed`: and no others."""

    fields: tuple[Field, ...]
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Either:
    """What fits one of several shapes."""

    options: tuple[Shape, ...]


Shape = Text | Number | Truth | Null | Choice | Anything | Items | Table | Record | Either


def options_of(shape: Shape) -> Iterator[Shape]:
    """The shape itself, or all that it may be one of."""
    if isinstance(shape, Either):
        for option in shape.options:
            yield from options_of(option)
    else:
        yield shape


def words_of(shape: Shape) -> set[str]:
    """The JSON types that fit: string, number, boolean, null, array, object."""
    found: set[str] = set()
    for option in options_of(shape):
        match option:
            case Choice(values):
                found |= {word_of(value) for value in values}
            case Anything():
                found |= {"string", "number", "boolean", "null", "array", "object"}
            case _:
                found.add(_WORDS[type(option)])
    return found


def word_of(value: Any) -> str:
    """The JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    for kind, word in ((str, "string"), (int | float, "number"), (list, "array")):
        if isinstance(value, kind):
            return word
    return "object"


_WORDS: dict[type, str] = {
    Text: "string", Number: "number", Truth: "boolean", Null: "null", Items: "array", Table: "object", Record: "object",
}  # fmt: skip
