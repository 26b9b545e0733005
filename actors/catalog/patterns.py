"""Regular expressions of a stranger, as far as they are safe to run and can be turned round into text.

A pattern with groups can take a processor for years, and Python's engine cannot be interrupted. What schemas really
use is mostly a row of characters and classes with counts, as `^[A-Z]{3}-\\d{2,4}$`. That much is read here: it has a
bounded cost, and text that fits it can be made. Anything else is refused by name.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

CHARS_MAX = 300
"""Longest text that a pattern may ask for: the engine's work grows with a power of it."""

FORMS_MAX = 40_000
"""Ways in which a pattern may share a text among its parts; the engine may try them all."""

_MORE = 3  # repeats beyond the fewest, where nothing bounds them
_ENDLESS = 32  # ways that such a part counts for

_ATOM = re.compile(r"\\([dDwWsStnrf\\/.^$*+?()\[\]{}|-])|(\[\^?\]?(?:\\.|[^\]\\])*\])|([^\\\[\](){}*+?|^$])")
_COUNT = re.compile(r"\{(\d{1,3})(?:(,)(\d{1,3})?)?\}|([*+?])")
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F))


@dataclass(frozen=True, slots=True)
class _Part:
    """One of `letters`, from `fewest` to `most` times."""

    letters: str
    fewest: int
    most: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was read; make it with `read`."""

    text: str
    parts: tuple[_Part, ...]

    def fits(self, text: str) -> bool:
        """Whether the pattern occurs in the text, as Python's engine sees it."""
        return re.search(self.text, text) is not None

    def draw(self, dice: random.Random, *, longest: bool | None = None) -> str:
        """Text that fits: of any length, or with each part as long (or as short) as it may be."""
        found = []
        for part in self.parts:
            count = dice.randint(part.fewest, part.most) if longest is None else part.most if longest else part.fewest
            found.append("".join(dice.choice(part.letters) for _ in range(count)))
        return "".join(found)


def read(text: str) -> Pattern:
    """Raises ValueError, saying what is not read, for a pattern with anything but characters, classes and counts."""
    at, end = text.startswith("^"), len(text)
    place = int(at)
    if text.endswith("$") and not text.endswith("\\$"):
        end -= 1
    parts: list[_Part] = []
    forms, chars = 1, 0
    while place < end:
        atom = _ATOM.match(text, place, end)
        if atom is None and text[place] != ".":
            raise ValueError(f"'{text[place]}' at {place} is not understood; only characters, classes and counts are")
        letters = _letters(text[place] if atom is None else atom[0])
        place = place + 1 if atom is None else atom.end()
        count = _COUNT.match(text, place, end)
        fewest, most, endless = _times(count)
        forms *= _ENDLESS if endless else max(1, most - fewest + 1)
        chars += most
        if not letters or most < fewest or chars > CHARS_MAX or forms > FORMS_MAX:
            raise ValueError(f"the part before {place} fits nothing, or the pattern fits too much")
        parts.append(_Part(letters, fewest, most))
        place = count.end() if count else place
    return Pattern(text, tuple(parts))


def _times(count: re.Match[str] | None) -> tuple[int, int, bool]:
    if count is None:
        return 1, 1, False
    if count[4]:
        fewest = int(count[4] == "+")
        return fewest, 1 if count[4] == "?" else fewest + _MORE, count[4] != "?"
    fewest = int(count[1])
    if count[2] is None:
        return fewest, fewest, False
    return fewest, int(count[3]) if count[3] else fewest + _MORE, count[3] is None


def _letters(atom: str) -> str:
    try:
        one = re.compile(atom)
    except re.error as error:
        raise ValueError(f"'{atom}': {error}") from None
    return "".join(letter for letter in _PRINTABLE if one.fullmatch(letter))
