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


_EACH_ATTEMPT = "`troupe explain {task}` shows each attempt"
_WHO_OFFERS = "`troupe agents` shows who offers what; `troupe run FILE` hosts an agent of yours"
TASK_HINTS = {
    "invalid_request": HINTS["invalid_request"],
    "unknown_pattern": _WHO_OFFERS,
    "no_capable_agent": _WHO_OFFERS,
    "agent_not_found": "`troupe agents` lists those that are there; is its host running?",
    "capability_missing": "`troupe agents` shows who offers what",
    "task_conflict": "take another --task-id for other work; `troupe explain {task}` shows what this one came to",
    "queue_full": "`troupe agents` shows how busy they are; submit it again later",
    "expired": "`troupe explain {task}` shows what it waited for",
    "timeout": f"--timeout SECONDS allows an attempt more; {_EACH_ATTEMPT}",
    "agent_error": _EACH_ATTEMPT,
    "agent_lost": _EACH_ATTEMPT,
}
"""What to do next about a task that ended otherwise than completed, by the code of its error."""


def report(error: TroupeError) -> int:
    """Print cause and hint on stderr and return the exit code."""
    print(f"Error: {error}", file=sys.stderr)
    hint = error.hint or HINTS.get(error.code, "")
    if hint:
        print(f"Hint: {hint}", file=sys.stderr)
    return 2 if isinstance(error, WrongUse) else 1
