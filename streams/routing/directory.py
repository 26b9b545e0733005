"""The agents as routing sees them, indexed by what tasks ask for.

The registry and health views hold one record per agent. Scanning them for every task would make a thousand idle agents
slow down one busy one, so each record is turned into an `Agent` when it changes, with everything that stays the same
until its next change worked out, and is filed under its id, its name and its capabilities.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass

from schemas.agents import AgentHealth, AgentRecord, AgentState, BreakerState
from schemas.policies import RetryPolicy
from schemas.tasks import Candidate
from schemas.topics import AGENT_HEALTH, AGENT_REGISTRY
from streams.processor import Share, Views
from streams.routing.eligibility import AT_CAPACITY, AVOIDED, barred

_LOAD = '"in_flight":0'
_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Agent:
    """One registered agent.

    barred: why it may get nothing, or None. limit: tasks in flight that this process may give it. fragments: the text
    of its entry in a decision up to the load, by reason of exclusion; tail: the rest of it. updated_at: when it last became
    another, microseconds.
    """

    agent_id: str
    name: str
    capabilities: frozenset[str]
    state: AgentState
    barred: str | None
    limit: int
    retry: RetryPolicy | None
    timeout_seconds: int | None
    fragments: dict[str | None, str]
    tail: str
    updated_at: int


@dataclass(frozen=True, slots=True)
class Pool:
    """The agents that may be asked for a task, ordered by id, and what of them stays the same until one changes.

    open: those that are not barred, by id; ids: theirs. barred: the others, ordered; barred_counts: how many by reason.
    """

    agents: tuple[Agent, ...]
    open: dict[str, Agent]
    ids: tuple[str, ...]
    barred: tuple[Agent, ...]
    barred_counts: dict[str, int]

    @classmethod
    def of(cls, agents: tuple[Agent, ...]) -> Pool:
        """A pool of agents ordered by id."""
        free = {agent.agent_id: agent for agent in agents if agent.barred is None}
        barred = tuple(agent for agent in agents if agent.barred is not None)
        return cls(agents, free, tuple(free), barred, dict(Counter(agent.barred or "" for agent in barred)))


class Directory:
    """All agents, in step with the views once `refresh` was called."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._agents: dict[str, Agent] = {}
        self._by_name: dict[str, set[str]] = {}
        self._by_capability: dict[str, set[str]] = {}
        self._pools: dict[str, Pool] = {}
        self.dirty: set[str] = set()
        """Agents whose records changed since the last refresh."""
        self.generation = 0
        """Grows with every change; 0 while the views were never read."""

    def refresh(self, views: Views) -> Set[str]:
        """Catch up with the views, all of them the first time, later only what changed; return whom it concerns."""
        if self.generation and not self.dirty:
            return _NOBODY
        changed = self.dirty if self.generation else {*self.dirty, *views.items(AGENT_REGISTRY)}
        for agent_id in changed:
            self._forget(agent_id)
            record = views.get(AGENT_REGISTRY, agent_id)
            if record is not None:
                self._enter(record, views.get(AGENT_HEALTH, agent_id))
        self.dirty = set()
        self._pools.clear()
        self.generation += 1
        return changed

    def get(self, agent_id: str) -> Agent | None:
        """The agent of an id."""
        return self._agents.get(agent_id)

    def limit(self, agent_id: str) -> int:
        """Tasks that an agent may have from this process; 1 for one that is not known, which gets none anyway."""
        agent = self._agents.get(agent_id)
        return agent.limit if agent is not None else 1

    def known(self, capability: str) -> bool:
        """Whether some agent offers it."""
        return capability in self._by_capability

    def up(self, agent_id: str) -> bool:
        """Whether the agent still holds what it was given; one that is merely registered was down in between."""
        agent = self._agents.get(agent_id)
        return agent is not None and agent.state is AgentState.UP

    def pool(self, key: str) -> Pool:
        """The pool of a key (see `pool_key`); kept until an agent changes."""
        found = self._pools.get(key)
        if found is None:
            found = self._pools[key] = Pool.of(tuple(self._gather(key)))
        return found

    def _gather(self, key: str) -> Iterator[Agent]:
        kind, name, *capabilities = json.loads(key)
        needed = frozenset(capabilities)
        if kind == "agent":
            ids = {name} & self._agents.keys()
        elif kind == "target":
            ids = self._by_name.get(name, set()) | ({name} & self._agents.keys())
        else:
            offers = [self._by_capability.get(word, set()) for word in needed]
            ids = set.intersection(*offers) if offers else set()
        for agent_id in sorted(ids):
            agent = self._agents[agent_id]
            if needed <= agent.capabilities:
                yield agent

    def _enter(self, record: AgentRecord, health: AgentHealth | None) -> None:
        agent = _agent(record, health, self._share)
        self._agents[agent.agent_id] = agent
        self._by_name.setdefault(agent.name, set()).add(agent.agent_id)
        for word in agent.capabilities:
            self._by_capability.setdefault(word, set()).add(agent.agent_id)

    def _forget(self, agent_id: str) -> None:
        agent = self._agents.pop(agent_id, None)
        if agent is None:
            return
        _drop(self._by_name, agent.name, agent_id)
        for word in agent.capabilities:
            _drop(self._by_capability, word, agent_id)


def pool_key(kind: str, name: str, capabilities: tuple[str, ...]) -> str:
    """Name of a pool: of one `agent`, of a rule's `target`, or of those that `offer` capabilities."""
    return json.dumps([kind, name, *capabilities], separators=(",", ":"), ensure_ascii=False)


def _agent(record: AgentRecord, health: AgentHealth | None, share: Share) -> Agent:
    definition = record.definition
    reason = barred(record, health)
    limit = share.of(definition.max_in_flight)
    fragments: dict[str | None, str] = {}
    tail = ""
    for excluded_by in (reason,) if reason else (None, AT_CAPACITY, AVOIDED):
        text = Candidate(
            agent_id=record.agent_id,
            eligible=excluded_by is None,
            excluded_by=excluded_by,
            state=record.state,
            breaker=health.breaker if health is not None else BreakerState.CLOSED,
            in_flight=0,
            max_in_flight=limit,
            effective_weight=health.effective_weight if health is not None else definition.weight,
        ).model_dump_json(exclude_defaults=True)
        head, _, tail = text.partition(_LOAD)
        fragments[excluded_by] = head + _LOAD[:-1]
    return Agent(
        agent_id=record.agent_id,
        name=definition.name or record.agent_id,
        capabilities=frozenset(definition.capabilities),
        state=record.state,
        barred=reason,
        limit=limit,
        retry=definition.retry,
        timeout_seconds=definition.timeout_seconds,
        fragments=fragments,
        tail=tail,
        updated_at=record.updated_at,
    )


def _drop(index: dict[str, set[str]], word: str, agent_id: str) -> None:
    ids = index[word]
    ids.discard(agent_id)
    if not ids:
        del index[word]
