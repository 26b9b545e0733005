"""Test cases for a shape: rows that must be taken and rows that must be refused, each with what it tries.

Valid, boundary and invalid take turns. A boundary or a fault is of one field at a time and the rest of its row is
ordinary, so that a case that fails says where to look. Every field gets its first turn before any gets its second. The
same shape and seed give the same cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, zip_longest
from typing import Any, Literal

from actors.catalog.shape_edges import edges, faults
from actors.catalog.shape_values import Dice, draw
from actors.catalog.shapes import Items, Record, Shape, options_of

Kind = Literal["valid", "boundary", "invalid"]
Path = tuple[str | int, ...]
Values = Callable[[Shape, Dice], Iterator[tuple[str, Any]]]

ABSENT = object()
_DEPTH_MAX = 8
_TRIED_MAX = 5_000


@dataclass(frozen=True, slots=True)
class Trial:
    """One row and what it tries; `tries` is `<path>: <what>`, or words for the row as a whole."""

    row: Any
    kind: Kind
    tries: str


@dataclass(frozen=True, slots=True)
class _Change:
    """A value to put at a path of an ordinary row."""

    path: Path
    what: str
    value: Any


def trials(shape: Shape, count: int, seed: int) -> Iterator[Trial]:
    """`count` trials; without a fault (a shape that refuses nothing) there are fewer, as their turns are left out."""
    dice = Dice(seed)
    by_kind: dict[Kind, list[_Change]] = {
        "boundary": _changes(shape, edges, dice, absent_is_fault=False),
        "invalid": _changes(shape, faults, dice, absent_is_fault=True),
    }
    turns = {kind: cycle(changes) for kind, changes in by_kind.items()}
    for number in range(count):
        kind: Kind = ("valid", "boundary", "invalid")[number % 3]
        if kind == "valid":
            yield Trial(draw(shape, dice), kind, "an ordinary row")
        elif by_kind[kind]:
            change = next(turns[kind])
            row = _put(shape, draw(shape, dice, full=True), change.path, change.value, dice)
            yield Trial(row, kind, f"{_shown(change.path)}: {change.what}" if change.path else change.what)


def _changes(shape: Shape, values: Values, dice: Dice, *, absent_is_fault: bool) -> list[_Change]:
    """All changes of one kind, those of different places in turn."""
    per_place: list[list[_Change]] = []
    for path, below, required in _places(shape, (), 0):
        found = [_Change(path, what, value) for what, value in values(below, dice)]
        if path and isinstance(path[-1], str) and required is absent_is_fault:
            found.insert(min(2, len(found)), _Change(path, "missing" if required else "left out", ABSENT))
        per_place.append(found)
    fields, whole = per_place[1:], per_place[:1]  # the row as a whole has its turn after its fields
    turns = zip_longest(*fields, *whole)
    return [change for turn in turns for change in turn if change is not None][:_TRIED_MAX]


def _places(shape: Shape, path: Path, depth: int, required: bool = True) -> Iterator[tuple[Path, Shape, bool]]:
    """The shape and every part of it that has a path of its own."""
    yield path, shape, required
    if depth == _DEPTH_MAX:
        return
    inner = next((each for each in options_of(shape) if isinstance(each, Record | Items)), None)
    if isinstance(inner, Record):
        for field in inner.fields:
            yield from _places(field.shape, (*path, field.name), depth + 1, field.required)
    elif isinstance(inner, Items) and inner.most != 0 and not inner.unique:
        yield from _places(inner.of, (*path, 0), depth + 1)


def _put(shape: Shape, row: Any, path: Path, value: Any, dice: Dice) -> Any:
    """The row with the value at the path; what the path leads through is made if it is not there."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    inner = next(each for each in options_of(shape) if isinstance(each, Record | Items))
    if isinstance(inner, Record):
        fields = {field.name: field.shape for field in inner.fields}
        found = dict(row) if isinstance(row, dict) and fields.keys() <= row.keys() else draw(inner, dice, full=True)
        if not rest and value is ABSENT:
            del found[step]
        else:
            found[step] = _put(fields[str(step)], found[step], rest, value, dice)
        return found
    items = (
        list(row)
        if isinstance(row, list) and row
        else [draw(inner.of, dice, full=True) for _ in range(inner.fewest or 1)]
    )
    items[0] = _put(inner.of, items[0], rest, value, dice)
    return items


def _shown(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
