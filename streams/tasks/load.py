"""Which tasks are in whose hands, counted from the rows and from nothing else."""

from __future__ import annotations


class Load:
    """Tasks in flight, and tasks pinned, by agent; those of this process."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        """Tasks in flight by agent."""
        self.held: dict[str, dict[str, None]] = {}
        """Their keys, those first that were given first."""
        self.full: set[str] = set()
        """Agents that have as much as they may have."""
        self.pinned: dict[str, dict[str, None]] = {}
        """Keys of open tasks by the agent that they name and that was known when they did."""

    def give(self, agent_id: str, key: str, limit: int) -> None:
        """A task was assigned to an agent that may have `limit`."""
        keys = self.held.get(agent_id)
        if keys is None:
            keys = self.held[agent_id] = {}
        keys[key] = None
        self.counts[agent_id] = len(keys)
        self.limited(agent_id, limit)

    def take(self, agent_id: str, key: str, limit: int) -> None:
        """A task came back or ended."""
        keys = self.held[agent_id]
        keys.pop(key, None)
        if keys:
            self.counts[agent_id] = len(keys)
        else:
            del self.held[agent_id], self.counts[agent_id]
        self.limited(agent_id, limit)

    def limited(self, agent_id: str, limit: int) -> None:
        """An agent's limit, or its load, is another."""
        if self.counts.get(agent_id, 0) >= limit:
            self.full.add(agent_id)
        else:
            self.full.discard(agent_id)

    def pin(self, agent_id: str, key: str) -> None:
        """An open task names an agent."""
        self.pinned.setdefault(agent_id, {})[key] = None

    def unpin(self, agent_id: str, key: str) -> None:
        """It names it no more, or ended."""
        keys = self.pinned[agent_id]
        keys.pop(key, None)
        if not keys:
            del self.pinned[agent_id]
