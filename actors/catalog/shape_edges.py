"""Values at the edges of a shape, and those just beyond.

Edges are where handlers break: the shortest text, the last allowed number, a field that may be left out. Faults are what
a handler must refuse: one step beyond an edge, a name too many, another type. Each comes with words for what it tries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from actors.catalog.datasets import iso
from actors.catalog.shape_values import Dice, draw, greatest, has_length, items_drawn, least, word_drawn
from actors.catalog.shapes import (
    Anything,
    Choice,
    Either,
    Items,
    Null,
    Number,
    Record,
    Shape,
    Table,
    Text,
    Truth,
    options_of,
    word_of,
    words_of,
)

LONG = 200
"""Characters or items of an edge where nothing bounds them."""

_FAR = 2**53 - 1  # the largest whole number that every JSON reader keeps
_OTHER_TYPES: tuple[Any, ...] = ("not of this type", 12.5, [], True, {})


def edges(shape: Shape, dice: Dice) -> Iterator[tuple[str, Any]]:
    """Values that only just fit, and what each tries; nothing of the fields within a record."""
    match shape:
        case Text():
            yield from _text_edges(shape, dice)
        case Number():
            yield from _number_edges(shape)
        case Truth():
            yield from (("true", True), ("false", False))
        case Null():
            yield "null", None
        case Choice(values):
            yield "first value", values[0]
            if len(values) > 1:
                yield "last value", values[-1]
        case Anything():
            yield from (("null", None), ("empty text", ""), ("empty object", {}))
        case Items(of, fewest, most, unique):
            yield ("fewest items" if fewest else "no items"), items_drawn(of, fewest, dice, unique=unique)
            count = LONG if most is None else most
            if fewest < count <= LONG:
                yield ("many items" if most is None else "most items"), items_drawn(of, count, dice, unique=unique)
        case Table(of):
            yield "empty object", {}
            yield "one name", {"x": draw(of, dice)}
        case Record(fields):
            if optional := [field for field in fields if not field.required]:
                yield "required fields only", {f.name: draw(f.shape, dice) for f in fields if f not in optional}
                yield "all fields", draw(shape, dice, full=True)
        case Either(options):
            for option in options:
                yield from edges(option, dice)


def faults(shape: Shape, dice: Dice) -> Iterator[tuple[str, Any]]:
    """Values that do not fit, and what each tries; nothing of the fields within a record."""
    words, only = words_of(shape), list(options_of(shape))
    if len(words) == sum(len(words_of(option)) for option in only):
        for option in only:  # what is beyond one option fits no other, as those are of other types
            yield from _beyond(option, dice)
    strange = [value for value in _OTHER_TYPES if word_of(value) not in words]
    if strange:
        yield "another type", strange[0]
    if "null" not in words:
        yield "null", None


def _beyond(shape: Shape, dice: Dice) -> Iterator[tuple[str, Any]]:
    match shape:
        case Text():
            yield from _text_faults(shape, dice)
        case Number():
            yield from _number_faults(shape)
        case Choice(values):
            strange = {"string": "none of the values", "number": _FAR}
            for word in sorted({word_of(value) for value in values} & strange.keys()):
                yield "none of the values", strange[word]
        case Items(of, fewest, most, unique):
            if fewest:
                yield "too few items", items_drawn(of, fewest - 1, dice, unique=unique)
            if most is not None and most < LONG:
                yield "too many items", items_drawn(of, most + 1, dice, unique=unique)
            if unique and (most is None or most > 1):
                yield "an item twice", [draw(of, dice)] * max(2, fewest)
        case Record(closed=closed):
            if closed:
                yield "a field too many", draw(shape, dice, full=True) | {"no_such_field": 1}
        case _:
            return


def _text_edges(shape: Text, dice: Dice) -> Iterator[tuple[str, Any]]:
    if shape.format:
        if shape.format == "date-time" and shape.earliest is not None and shape.latest is not None:
            yield from (("earliest", iso(shape.earliest)), ("latest", iso(shape.latest)))
        else:
            yield from _FORMAT_EDGES[shape.format]
        return
    if shape.pattern is not None:
        for label, longest in (("shortest that fits", False), ("longest that fits", True)):
            if has_length(shape, text := shape.pattern.draw(dice, longest=longest)):
                yield label, text
        return
    yield ("shortest text" if shape.shortest else "empty text"), word_drawn(dice, shape.shortest)
    if shape.longest is None:
        yield "long text", word_drawn(dice, max(LONG, shape.shortest))
    elif shape.shortest < shape.longest <= 100 * LONG:
        yield "longest text", word_drawn(dice, shape.longest)
    strange = "é" if shape.latin else "\N{GRINNING FACE}"
    if shape.longest is None or shape.longest > 0:
        yield "text beyond ASCII", strange * max(1, shape.shortest)


def _text_faults(shape: Text, dice: Dice) -> Iterator[tuple[str, Any]]:
    if shape.format:
        yield f"no {shape.format}", f"no {shape.format}"
        return
    if shape.pattern is not None:
        tries = ("", "!", "a", "1", " ", "\u2603")
        if (misfit := next((text for text in tries if not shape.pattern.fits(text)), None)) is not None:
            yield "text that does not fit the pattern", misfit
        return
    if shape.shortest:
        yield "too short", word_drawn(dice, shape.shortest - 1)
    if shape.longest is not None and shape.longest <= 100 * LONG:
        yield "too long", word_drawn(dice, shape.longest + 1)


def _number_edges(shape: Number) -> Iterator[tuple[str, Any]]:
    low, high = least(shape), greatest(shape)
    if low is not None:
        yield "least", low
    if high is not None:
        yield "greatest", high
    if shape.step is not None:
        return
    if (low is None or low <= 0) and (high is None or high >= 0):
        yield "zero", 0
    far = _FAR if shape.whole else 1e15
    if low is None and (high is None or high > -far):
        yield "far below zero", -far
    if high is None and (low is None or low < far):
        yield "far above zero", far


def _number_faults(shape: Number) -> Iterator[tuple[str, Any]]:
    step = shape.step or 1
    if shape.low is not None:
        yield "too small", shape.low if shape.low_open else _away(shape.low, -step)
    if shape.high is not None:
        yield "too large", shape.high if shape.high_open else _away(shape.high, step)
    if shape.whole:
        base = least(shape)
        yield "a fraction", (0 if base is None else base) + 0.5
    elif shape.step is not None:
        base = least(shape)
        yield "no multiple", (0 if base is None else base) + shape.step / 2


def _away(value: float, by: float) -> float:
    moved = value + by
    return moved if moved != value else math.nextafter(value, math.copysign(math.inf, by))


_FORMAT_EDGES: dict[str, tuple[tuple[str, str], ...]] = {
    "date": (("a leap day", "2024-02-29"), ("an early date", "0001-01-01"), ("a late date", "9999-12-31")),
    "date-time": (("a leap day", "2024-02-29T23:59:59.999999Z"), ("an offset", "2020-01-01T00:00:00+14:00")),
    "time": (("midnight", "00:00:00Z"), ("the last second", "23:59:59Z")),
    "email": (("a tag", "a+b@c.example"),),
    "uuid": (("all zero", "00000000-0000-0000-0000-000000000000"),),
    "uri": (("no path", "https://a.example"),),
    "ipv4": (("lowest", "0.0.0.0"), ("highest", "255.255.255.255")),
}
