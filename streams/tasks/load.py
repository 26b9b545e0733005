"""Which tasks are in whose hands, counted from the rows and from nothing else (spec 6.2)."""

from __future__ import annotations


class Load:
    """Tasks in flight, and tasks pinned, by agent; those of this process."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        """Tasks in flight by agent."""
        self.held: dict[str, set[str]] = {}
        """Their keys."""
        self.pinned: dict[str, set[str]] = {}
        """Keys of open tasks by the agent that they name and that was known when they did."""

    def give(self, agent_id: str, key: str) -> None:
        """A task was assigned."""
        self.held.setdefault(agent_id, set()).add(key)
        self.counts[agent_id] = len(self.held[agent_id])

    def take(self, agent_id: str, key: str) -> None:
        """A task came back or ended."""
        keys = self.held[agent_id]
        keys.discard(key)
        if keys:
            self.counts[agent_id] = len(keys)
        else:
            del self.held[agent_id], self.counts[agent_id]

    def pin(self, agent_id: str, key: str) -> None:
        """An open task names an agent."""
        self.pinned.setdefault(agent_id, set()).add(key)

    def unpin(self, agent_id: str, key: str) -> None:
        """It names it no more, or ended."""
        keys = self.pinned[agent_id]
        keys.discard(key)
        if not keys:
            del self.pinned[agent_id]
