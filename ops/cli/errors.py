"""How an error looks at the command line: one line for the cause, one for what to do next, and an exit code."""

from __future__ import annotations

import sys

from schemas.errors import OperatorError, TroupeError


class WrongUse(OperatorError):
    """The call itself is wrong; the exit code is 2."""


HINTS = {
    "payload_too_large": "put the data into a file that the agent can read and send its place, "
    "or raise limits.max_record_bytes with the topic's max.message.bytes",
    "invalid_request": "see `troupe submit --help`",
}
"""What to do next for errors of rules that know nothing of a command line, by code."""


def report(error: TroupeError) -> int:
    """Print cause and hint on stderr and return the exit code."""
    print(f"Error: {error}", file=sys.stderr)
    hint = error.hint or HINTS.get(error.code, "")
    if hint:
        print(f"Hint: {hint}", file=sys.stderr)
    return 2 if isinstance(error, WrongUse) else 1
