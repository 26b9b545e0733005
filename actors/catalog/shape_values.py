"""Ordinary values for a shape: as good as any that fits, small and readable where nothing asks for more."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any
from uuid import UUID

from actors.catalog.datasets import iso
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
)
from schemas.errors import InvalidInput

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SPREAD = 1_000
_TRIES = 50
_YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)
_SPENT_MAX = 2_000_000
_WIDE = 1e6  # a span around zero from which an ordinary value is a small one


class Dice(random.Random):
    """Chance from a seed, with a bound on what is made of it: characters and values."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._left = _SPENT_MAX

    def spend(self, much: int) -> None:
        """Raises InvalidInput when all was spent."""
        self._left -= much
        if self._left < 0:
            raise InvalidInput(
                "The rows of this schema are too large for so many tests; ask for fewer, or for shorter values"
            )


def draw(shape: Shape, dice: Dice, *, full: bool = False) -> Any:
    """A value that fits; `full`: with every optional field."""
    dice.spend(1)
    match shape:
        case Text():
            return _text(shape, dice)
        case Number():
            return _number(shape, dice)
        case Truth():
            return dice.random() < 0.5
        case Null():
            return None
        case Choice(values):
            return values[dice.randrange(len(values))]
        case Anything():
            return word_drawn(dice, 5)
        case Items(of, fewest, most, unique):
            wanted = dice.randint(fewest, max(fewest, min(fewest + 3, fewest + 3 if most is None else most)))
            return items_drawn(of, wanted, dice, unique=unique, full=full)
        case Table(of):
            return {word_drawn(dice, 4): draw(of, dice, full=full) for _ in range(dice.randint(1, 3))}
        case Record(fields):
            kept = [field for field in fields if field.required or full or dice.random() < 0.7]
            return {field.name: draw(field.shape, dice, full=full) for field in kept}
        case Either(options):
            return draw(options[dice.randrange(len(options))], dice, full=full)


def items_drawn(of: Shape, count: int, dice: Dice, *, unique: bool, full: bool = False) -> list[Any]:
    """So many values of a shape; `unique`: all different, if enough different ones turn up."""
    dice.spend(count)
    found: list[Any] = []
    for _ in range(count):
        value = draw(of, dice, full=full)
        for _ in range(_TRIES if unique else 0):
            if value not in found:
                break
            value = draw(of, dice, full=full)
        found.append(value)
    return found


def word_drawn(dice: Dice, chars: int) -> str:
    """So many small letters."""
    dice.spend(chars)
    return "".join(dice.choice(_LETTERS) for _ in range(chars))


def has_length(shape: Text, text: str) -> bool:
    """Whether a text is neither too short nor too long."""
    return shape.shortest <= len(text) <= (len(text) if shape.longest is None else shape.longest)


def _text(shape: Text, dice: Dice) -> str:
    if shape.format or shape.pattern is not None:
        tries = (_formed(shape, dice) for _ in range(_TRIES))
        return next((text for text in tries if _fits(shape, text)), _formed(shape, dice))
    most = shape.shortest + 12 if shape.longest is None else min(shape.longest, shape.shortest + 12)
    return word_drawn(dice, dice.randint(min(max(shape.shortest, 1), most), max(shape.shortest, most)))


def _formed(shape: Text, dice: Dice) -> str:
    text = _FORMATTED[shape.format](shape, dice) if shape.format or shape.pattern is None else shape.pattern.draw(dice)
    dice.spend(len(text))
    return text


def _fits(shape: Text, text: str) -> bool:
    return has_length(shape, text) and (shape.pattern is None or shape.pattern.fits(text))


def _number(shape: Number, dice: Dice) -> float:
    low, high = least(shape), greatest(shape)
    low = low if low is not None else -_SPREAD if high is None else high - _SPREAD
    high = high if high is not None else max(low, 0) + _SPREAD
    if shape.step is not None:
        low = _at_step(Decimal(repr(low)), shape, ROUND_CEILING)
    elif high - low > _WIDE and low <= 0 <= high:
        low, high = max(low, -_SPREAD), min(high, _SPREAD)
    if shape.step is not None:
        steps = int((Decimal(repr(high)) - Decimal(repr(low))) / Decimal(repr(shape.step)))
        return _plain(Decimal(repr(low)) + Decimal(repr(shape.step)) * dice.randint(0, max(0, steps)), shape)
    if shape.whole:
        return dice.randint(math.ceil(low), max(math.ceil(low), math.floor(high)))
    between = low + (high - low) * dice.random()
    return rounded if low <= (rounded := round(between, 2)) <= high else between


def least(shape: Number) -> float | None:
    """The smallest value that fits, None if there is no bound."""
    if shape.low is None:
        return None
    if shape.whole:
        low: float = math.floor(shape.low) + 1 if shape.low_open else math.ceil(shape.low)
    else:
        low = math.nextafter(shape.low, math.inf) if shape.low_open else shape.low
    if shape.step is None:
        return low
    found = _at_step(Decimal(repr(shape.low)), shape, ROUND_CEILING)
    return found + shape.step if shape.low_open and found == shape.low else found


def greatest(shape: Number) -> float | None:
    """The largest value that fits, None if there is no bound."""
    if shape.high is None:
        return None
    if shape.whole:
        high: float = math.ceil(shape.high) - 1 if shape.high_open else math.floor(shape.high)
    else:
        high = math.nextafter(shape.high, -math.inf) if shape.high_open else shape.high
    if shape.step is None:
        return high
    found = _at_step(Decimal(repr(shape.high)), shape, ROUND_FLOOR)
    return found - shape.step if shape.high_open and found == shape.high else found


def _at_step(value: Decimal, shape: Number, rounding: str) -> float:
    step = Decimal(repr(shape.step))
    return _plain((value / step).to_integral_value(rounding) * step, shape)


def _plain(value: Decimal, shape: Number) -> float:
    return int(value) if shape.whole else float(value)


def _moment(shape: Text, dice: Dice) -> str:
    if shape.earliest is not None and shape.latest is not None:
        return iso(dice.randint(shape.earliest, shape.latest))
    return (_YEAR_2000 + timedelta(seconds=dice.randrange(10**9))).replace(tzinfo=None).isoformat() + "Z"


_FORMATTED: dict[str, Callable[[Text, Dice], str]] = {
    "date": lambda _, dice: (_YEAR_2000 + timedelta(days=dice.randrange(10_000))).date().isoformat(),
    "date-time": _moment,
    "time": lambda _, dice: f"{dice.randrange(24):02}:{dice.randrange(60):02}:{dice.randrange(60):02}Z",
    "email": lambda _, dice: f"{word_drawn(dice, 6)}@{word_drawn(dice, 6)}.example",
    "uuid": lambda _, dice: str(UUID(int=dice.getrandbits(128), version=4)),
    "uri": lambda _, dice: f"https://{word_drawn(dice, 6)}.example/{word_drawn(dice, 4)}",
    "ipv4": lambda _, dice: f"192.0.2.{dice.randrange(1, 255)}",
}
