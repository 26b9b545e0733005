"""What the doctor says: one sentence of fact, how bad it is, and the command that mends it.

A finding without a remedy sends its reader to the source code, so everything but "ok" must name what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from schemas.errors import TroupeError


class Level(StrEnum):
    """ok: as it must be. warning: works, and somebody should look. error: does not work, or will not."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """check: what was looked at, in one word; what: the fact; remedy: what to do next, empty if nothing."""

    level: Level
    check: str
    what: str
    remedy: str = ""

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {"level": str(self.level), "check": self.check, "what": self.what, "remedy": self.remedy}


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, check, what)


def warning(check: str, what: str, remedy: str) -> Finding:
    """It works, and somebody should look."""
    return Finding(Level.WARNING, check, what, remedy)


def error(check: str, what: str, remedy: str) -> Finding:
    """It does not work, or will not."""
    return Finding(Level.ERROR, check, what, remedy)


def raised(check: str, cause: TroupeError) -> Finding:
    """What a check came upon that could not go on."""
    return error(
        check, str(cause), cause.hint or "read the logs (`troupe ps` says where) and run `troupe doctor` again"
    )


def counted(number: int, what: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def some(names: list[str], most: int = 5) -> str:
    """The first few of some names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
