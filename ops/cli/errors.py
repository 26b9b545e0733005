"""How an error looks at the command line: one line for the cause, one for what to do next, and an exit code."""

from __future__ import annotations

import sys

from schemas.errors import OperatorError, TroupeError


class WrongUse(OperatorError):
    """The call itself is wrong; the exit code is 2."""


def report(error: TroupeError) -> int:
    """Print cause and hint on stderr and return the exit code."""
    print(f"Error: {error}", file=sys.stderr)
    if error.hint:
        print(f"Hint: {error.hint}", file=sys.stderr)
    return 2 if isinstance(error, WrongUse) else 1
