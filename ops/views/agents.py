"""The agents as an operator sees them, folded from what the coordinator says of agents and of tasks.

The registry knows whether an agent is up; what it is doing only the task events tell. Until a service keeps this view,
it is made anew for each question, by reading the three topics from their beginnings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ops.views.tasks import NOTES
from schemas.agents import AgentHealth, AgentRecord, AgentState, BreakerState
from schemas.tasks import IN_FLIGHT, TERMINAL, TaskEvent, TaskState
from streams.routing.rules import Rule


@dataclass(frozen=True, slots=True)
class AgentView:
    """One agent. state: what the registry says of it; last_outcome: how its last task ended, None if none has.

    status is both in one word, one of idle, running, retrying, completed or failed: a last task with bad input makes it
    `failed`, and so does an agent that is gone; who must tell the two apart looks at the others.
    """

    agent_id: str
    status: str
    state: str
    last_outcome: str | None
    breaker: str
    in_flight: int
    capabilities: tuple[str, ...]
    patterns: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "agent_id": self.agent_id,
            "status": self.status,
            "state": self.state,
            "last_outcome": self.last_outcome,
            "breaker": self.breaker,
            "in_flight": self.in_flight,
            "capabilities": list(self.capabilities),
            "patterns": list(self.patterns),
        }


@dataclass(slots=True)
class AgentsFold:
    """Collects registry, health and task records; a tombstone takes its agent away."""

    records: dict[str, AgentRecord] = field(default_factory=dict)
    health: dict[str, AgentHealth] = field(default_factory=dict)
    _tasks: dict[str, tuple[int, TaskState, str | None]] = field(default_factory=dict)
    _outcomes: dict[str, tuple[int, TaskState]] = field(default_factory=dict)

    def add_record(self, agent_id: str, record: AgentRecord | None) -> None:
        """Take a registry record in; of two versions the higher one counts."""
        known = self.records.get(agent_id)
        if record is None:
            self.records.pop(agent_id, None)
        elif known is None or record.version >= known.version or record.registered_at > known.registered_at:
            self.records[agent_id] = record

    def add_health(self, agent_id: str, health: AgentHealth | None) -> None:
        """Take a health record in."""
        known = self.health.get(agent_id)
        if health is None:
            self.health.pop(agent_id, None)
        elif known is None or health.version >= known.version or health.occurred_at > known.occurred_at:
            self.health[agent_id] = health

    def add_event(self, event: TaskEvent) -> None:
        """Take a task event in."""
        if event.kind in NOTES:
            return
        version, state, _agent = self._tasks.get(event.task_id, (0, TaskState.UNKNOWN, None))
        again = event.version == 1 and state in TERMINAL
        if event.version <= version and not again:
            return
        self._tasks[event.task_id] = (event.version, event.to_state, event.agent_id)
        if event.to_state in TERMINAL and event.agent_id is not None:
            at, _state = self._outcomes.get(event.agent_id, (0, event.to_state))
            if event.decided_at >= at:
                self._outcomes[event.agent_id] = (event.decided_at, event.to_state)

    def views(self, rules: Iterable[Rule]) -> list[AgentView]:
        """All agents by id."""
        in_flight, retrying = self._counts()
        patterns = _patterns(rules)
        return [
            AgentView(
                agent_id=agent_id,
                status=self._status(record, in_flight.get(agent_id, 0), agent_id in retrying),
                state=str(record.state),
                last_outcome=str(self._outcomes[agent_id][1]) if agent_id in self._outcomes else None,
                breaker=str(self._breaker(agent_id)),
                in_flight=in_flight.get(agent_id, 0),
                capabilities=tuple(record.definition.capabilities),
                patterns=patterns.get(agent_id, ()),
            )
            for agent_id, record in sorted(self.records.items())
        ]

    def _breaker(self, agent_id: str) -> BreakerState:
        known = self.health.get(agent_id)
        return known.breaker if known else BreakerState.CLOSED

    def _counts(self) -> tuple[Mapping[str, int], set[str]]:
        counts: dict[str, int] = {}
        retrying: set[str] = set()
        for _version, state, agent in self._tasks.values():
            if agent is not None and state in IN_FLIGHT:
                counts[agent] = counts.get(agent, 0) + 1
            elif agent is not None and state is TaskState.RETRYING:
                retrying.add(agent)
        return counts, retrying

    def _status(self, record: AgentRecord, in_flight: int, retrying: bool) -> str:
        if record.state is AgentState.OFFLINE:
            return "failed"
        if record.state is not AgentState.UP:
            return "idle"
        if in_flight:
            return "running"
        if retrying:
            return "retrying"
        _at, outcome = self._outcomes.get(record.agent_id, (0, None))
        if outcome is TaskState.COMPLETED:
            return "completed"
        return "failed" if outcome in (TaskState.FAILED, TaskState.DEAD_LETTERED) else "idle"


def _patterns(rules: Iterable[Rule]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for rule in rules:
        found[rule.target] = (*found.get(rule.target, ()), rule.pattern)
    return found
