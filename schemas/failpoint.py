"""Places where a process kills or stops itself on request, so that every crash window can have a test that hits it.

A test that kills from outside hits a window of a millisecond by luck. Here the process does it itself, by signal, at
the nth pass of a named point: what follows is what an out-of-memory kill would leave behind.
"""

from __future__ import annotations

import os
import signal

from schemas.errors import OperatorError

VARIABLE = "TROUPE_FAILPOINT"
"""Environment variable that holds the spec."""

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class Failpoints:
    """One armed point, or none; `hit` costs a comparison when it is another's name."""

    __slots__ = ("_left", "_name", "_signal")

    def __init__(self, spec: str = "") -> None:
        """`spec` is `<point>:<nth>:<kill|stop>`, nth from 1, or empty. Raises OperatorError for anything else."""
        name, _, rest = spec.partition(":")
        nth, _, action = rest.partition(":")
        if spec and (not name or not nth.isdecimal() or int(nth) < 1 or action not in _SIGNALS):
            raise OperatorError(f"'{spec}' is no failpoint", hint=f"{VARIABLE}=<point>:<nth>:<kill|stop>")
        self._name = name
        self._left = int(nth or 0)
        self._signal = _SIGNALS.get(action, signal.SIGKILL)

    def armed(self, name: str) -> bool:
        """Whether the point `name` is the one to end at."""
        return name == self._name

    def hit(self, name: str) -> None:
        """Pass the point `name`; the armed one ends (or suspends) the process at its nth pass."""
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), self._signal)
