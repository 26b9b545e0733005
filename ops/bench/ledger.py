"""What was sent and what came back, kept outside of the system under test and judged at the end.

Times are microseconds of this machine's clock, 0 for what has not happened; submitter and agents run on one machine,
so they may be compared. Arrays and not objects, because a million tasks must not slow down the process that measures.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Iterable, Sequence

from schemas.tasks import TaskState


class Ledger:
    """One entry per task number: submitted, sent, acknowledged, its handler begun, its outcome seen.

    `submitted` is the moment that counts: in a closed loop that of sending, in an open one that of the plan.
    """

    def __init__(self, tasks: int) -> None:
        self.submitted, self.sent, self.acked, self.began, self.ended = (array("q", bytes(8 * tasks)) for _ in range(5))
        self.finished = 0
        self.duplicates = 0
        self.not_completed = 0
        self.first_failure = ""
        self._changed = asyncio.Event()

    def mark_acked(self, numbers: Iterable[int], at: int) -> None:
        """The broker confirmed these submits."""
        for number in numbers:
            self.acked[number] = at

    def mark_result(self, number: int, at: int, status: str, began: int, why: str) -> None:
        """The outcome of a task was read; a second one is counted and changes nothing."""
        if self.ended[number]:
            self.duplicates += 1
            return
        self.ended[number], self.began[number] = at, began
        self.finished += 1
        if status != TaskState.COMPLETED:
            self._failed(f"{status}: {why}")

    def mark_dead(self, number: int, at: int, why: str) -> None:
        """A dead letter of a task was read; its result, where there is one too, is not counted as a duplicate."""
        if not self.ended[number]:
            self.ended[number] = at
            self.finished += 1
            self._failed(f"dead letter: {why}")

    def announce(self) -> None:
        """Let whoever waits for a change look again; called once per batch of marks."""
        self._changed.set()

    async def changed(self, limit_s: float) -> bool:
        """Whether something was announced within the limit; one waiter at a time."""
        try:
            async with asyncio.timeout(limit_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def lost(self, numbers: range) -> int:
        """Tasks whose submit was confirmed and of which nothing came back."""
        return sum(1 for number in numbers if self.acked[number] and not self.ended[number])

    def accepted(self, numbers: range) -> int:
        """Tasks whose submit was confirmed."""
        return sum(1 for number in numbers if self.acked[number])

    def _failed(self, why: str) -> None:
        self.not_completed += 1
        self.first_failure = self.first_failure or why


def milliseconds(since: Sequence[int], until: Sequence[int], numbers: range) -> list[float]:
    """Sorted times between two marks of those tasks that have both, in ms."""
    return sorted((until[n] - since[n]) / 1000 for n in numbers if since[n] and until[n])


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of them does not exceed (nearest rank); None of nothing."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
