"""May this agent take a task now, and if not, why not: one word, the first that applies.

What changes only with the agent's own records is found out once for each of them (`barred`); what changes with every
assignment, its load, is asked at each decision.
"""

from __future__ import annotations

from schemas.agents import AgentHealth, AgentRecord, AgentState, BreakerState, Health

AT_CAPACITY = "at_capacity"
AVOIDED = "avoided"

_BY_STATE = {
    AgentState.REGISTERED: "not_started",
    AgentState.STOPPED: "stopped",
    AgentState.OFFLINE: "offline",
    AgentState.ABSENT: "offline",
    AgentState.UNKNOWN: "offline",
}


def barred(record: AgentRecord, health: AgentHealth | None) -> str | None:
    """Why the agent may get nothing at all, or None. Trials of a half-open breaker are not counted yet."""
    if record.state is not AgentState.UP:
        return _BY_STATE[record.state]
    if record.draining:
        return "draining"
    if health is not None and health.breaker is BreakerState.OPEN:
        return "breaker_open"
    if health is not None and health.health is Health.UNHEALTHY:
        return "unhealthy"
    return None
