"""Text is not data until it has a type, and a wrong guess loses rows. These are the guesses, kept apart so that they
can be read.

A file rarely says what its columns are. One odd cell must not turn a column of numbers into text, and a column of
text must not lose its rows because some of it looks like numbers: so the type that fits two thirds of a column's
values is taken, the rest are errors of their rows, and the result says that a guess was made. What only looks like a
number, as `007` (an identifier) or a whole number beyond 64 bits, keeps its whole column text, since reading it would
change it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from actors.catalog.datasets import iso, micros, shown
from actors.catalog.rows import Cell

Kind = Literal["int", "float", "str", "bool", "timestamp"]
Value = int | float | str | bool | None

_INT = re.compile(r"[+-]?[0-9]{1,19}")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_CODE = re.compile(r"[+-]?0[0-9]+|[+-]?[0-9]{19,}")
_INT64 = range(-(2**63), 2**63)
_BOOLS = {"true": True, "false": False}
_TRUE_OR_FALSE = _BOOLS | {
    "yes": True,
    "no": False,
    "1": True,
    "0": False,
    "t": True,
    "f": False,
    "y": True,
    "n": False,
}


def typed(text: str, kind: Kind) -> Value:
    """The cell as a value of that kind; timestamps as ISO 8601 text in UTC. Raises ValueError with the reason."""
    if kind == "str":
        return text
    cell = text.strip()
    if kind == "int":
        if _INT.fullmatch(cell) and (number := int(cell)) in _INT64:
            return number
        raise ValueError("is not a whole number of 64 bits")
    if kind == "float":
        if _FLOAT.fullmatch(cell) and math.isfinite(real := float(cell)):
            return real
        raise ValueError("is not a finite number")
    if kind == "bool":
        if cell.lower() in _TRUE_OR_FALSE:
            return _TRUE_OR_FALSE[cell.lower()]
        raise ValueError("is neither true nor false")
    try:
        return iso(micros(cell))
    except ValueError:
        raise ValueError("is not an ISO 8601 time") from None


class Guess:
    """What the cells of one column look like; `see` each of them, then ask for the `kind`."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def see(self, text: str) -> None:
        self._seen[_look(text.strip())] += 1

    @property
    def kind(self) -> Kind:
        seen, total = self._seen, self._seen.total()
        if not total or seen["code"]:
            return "str"
        numbers = seen["int"] + seen["float"]
        best: Kind = "float" if seen["float"] else "int"
        fitting = numbers
        for other in ("bool", "timestamp"):
            if seen[other] > fitting:
                best, fitting = other, seen[other]
        return best if fitting * 3 >= total * 2 else "str"


class Guesses:
    """One guess for each column of `header`, which may grow, but those in `declared`; values in `nulls` say nothing."""

    def __init__(self, header: Sequence[str], declared: Collection[str], nulls: Collection[str]) -> None:
        self._header, self._declared, self._nulls = header, declared, nulls
        self._guesses: list[Guess | None] = []

    def see(self, cells: Sequence[Cell]) -> None:
        """Look at the cells of one row, which are of the first columns."""
        guesses = self._guesses
        while len(guesses) < len(cells):
            guesses.append(None if self._header[len(guesses)] in self._declared else Guess())
        for guess, cell in zip(guesses, cells, strict=False):
            if guess is not None and cell is not None and cell not in self._nulls:
                guess.see(cell)

    def kind(self, place: int) -> Kind:
        """The kind of a column; text if no value was seen."""
        guess = self._guesses[place] if place < len(self._guesses) else None
        return "str" if guess is None else guess.kind


@dataclass(slots=True)
class Columns:
    """How the cells of a row become fields: names after renaming, their kinds, which kinds are guesses."""

    names: list[str]
    kinds: list[Kind]
    guessed: list[bool]
    required: frozenset[str]
    nulls: frozenset[str]
    failed: dict[str, int] = field(default_factory=dict)

    def record(self, cells: Sequence[Cell]) -> dict[str, Value] | tuple[str, str, str]:
        """The record, or field, value and reason of the first cell that is wrong."""
        record: dict[str, Value] = {}
        for name, kind, text in zip(self.names, self.kinds, cells, strict=True):
            if text is None or text in self.nulls:
                if name in self.required:
                    return name, shown(text or ""), "is a key field and has no value"
                record[name] = None
                continue
            try:
                record[name] = typed(text, kind)
            except ValueError as error:
                self.failed[name] = self.failed.get(name, 0) + 1
                return name, shown(text), str(error)
        return record

    def doubts(self) -> Iterator[str]:
        """A note on each guessed type that cost rows."""
        for name, kind, guess in zip(self.names, self.kinds, self.guessed, strict=True):
            if guess and name in self.failed:
                yield (
                    f"Column '{shown(name)}' was read as {kind} since most of its values are; {self.failed[name]} rows "
                    f"were rejected for it. Name its type in 'types' if that is wrong"
                )


def _look(cell: str) -> str:
    """The narrowest kind of one cell; `code` for digits that a number would not keep."""
    if cell[:1] in "+-.0123456789":
        if _CODE.fullmatch(cell):
            return "code"
        if _INT.fullmatch(cell):
            return "int"
        if _FLOAT.fullmatch(cell) and math.isfinite(float(cell)):
            return "float"
        try:
            return "timestamp" if micros(cell) is not None else "str"
        except ValueError:
            return "str"
    return "bool" if cell.lower() in _BOOLS else "str"
