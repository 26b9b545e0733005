"""Which of the free agents gets the task: the next one in the order of their ids after the last choice."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from streams.routing.directory import Agent


class Turns:
    """The last choice of each pool, in memory only: after a restart the round simply begins anew."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def took(self, pool: str, agent_id: str) -> None:
        """Remember a choice."""
        self._last[pool] = agent_id

    def next(self, pool: str, free: Sequence[Agent]) -> Agent:
        """The one whose turn it is; `free` is ordered by id and not empty."""
        return free[self.place(pool, [agent.agent_id for agent in free]) % len(free)]

    def place(self, pool: str, ids: Sequence[str]) -> int:
        """Where the round goes on among ordered ids; may be one beyond the last."""
        last = self._last.get(pool)
        return 0 if last is None else bisect_right(ids, last)
