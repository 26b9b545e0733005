"""Turns of the loop: who works for long lets the others have theirs.

Heartbeats of the group, acks and commits go out from the loop in which records are decoded and decided. A batch of large
requests takes seconds, and a coordinator that is silent for longer than its session is removed, starts again, and finds the
same batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Turns:
    """Says when it is time for the others, at most every `seconds`."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._until = clock() + seconds

    def over(self) -> Awaitable[None] | None:
        """What to await if our turn is over; the next one begins then."""
        return self._yield() if self._clock() >= self._until else None

    async def _yield(self) -> None:
        await asyncio.sleep(0)
        self._until = self._clock() + self._seconds
