"""Who of a pool is free at this moment, whose turn it is, and why the others are not.

A pool of a few is asked one by one and listed whole. A large one must not cost more for being large: what bars an agent
for longer was counted when its record changed, who is full is kept as a set while tasks come and go, so only the turn has
to be found. Listed are then the chosen one and the first of the excluded; the others were free, and that is all there is
to say of them.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from heapq import nsmallest
from typing import NamedTuple

from streams.routing.balance import Turns
from streams.routing.directory import Agent, Pool
from streams.routing.eligibility import AT_CAPACITY, AVOIDED

LISTED = 50
"""Most candidates that a decision lists; of larger pools the excluded are counted by reason as well."""

_NONE: Mapping[str, int] = {}


class Survey(NamedTuple):
    """turn: who would get the task; free: how many could; excluded: how many not, by reason; listed: entries as JSON."""

    turn: Agent | None
    free: int
    excluded: Mapping[str, int]
    listed: str


def survey(
    name: str, pool: Pool, load: Mapping[str, int], full: Set[str], turns: Turns, avoided: str | None
) -> Survey:
    """Look at a pool. load: tasks in flight by agent; full: agents at their limit; avoided: who failed the last time."""
    if len(pool.agents) > LISTED:
        return _survey_many(name, pool, load, full, turns, avoided)
    free: list[Agent] = []
    excluded: dict[str, str] = {}
    for agent in pool.agents:
        if agent.barred is not None:
            excluded[agent.agent_id] = agent.barred
        elif load.get(agent.agent_id, 0) >= agent.limit:
            excluded[agent.agent_id] = AT_CAPACITY
        else:
            free.append(agent)
    if avoided is not None and len(free) > 1:
        others = [agent for agent in free if agent.agent_id != avoided]
        if len(others) < len(free):
            free, excluded[avoided] = others, AVOIDED
    turn = turns.next(name, free) if free else None
    counts = Counter(excluded.values()) if excluded else _NONE
    return Survey(turn, len(free), counts, _listed(pool.agents, excluded, load))


def _survey_many(
    name: str, pool: Pool, load: Mapping[str, int], full: Set[str], turns: Turns, avoided: str | None
) -> Survey:
    busy = full & pool.open.keys()
    excluded = dict.fromkeys(busy, AT_CAPACITY)
    counts = dict(pool.barred_counts)
    if busy:
        counts[AT_CAPACITY] = len(busy)
    free = len(pool.ids) - len(busy)
    if avoided in pool.open and avoided not in busy and free > 1:
        excluded[avoided] = AVOIDED
        counts[AVOIDED] = 1
        free -= 1
    shown = {agent.agent_id: agent for agent in pool.barred[: LISTED - 1]}
    shown |= {agent_id: pool.open[agent_id] for agent_id in nsmallest(LISTED - 1, excluded)}
    listed = [shown[agent_id] for agent_id in sorted(shown)[: LISTED - 1]]
    turn: Agent | None = None
    if free:
        place, total = turns.place(name, pool.ids), len(pool.ids)
        turn = next(
            pool.open[agent_id] for n in range(total) if (agent_id := pool.ids[(place + n) % total]) not in excluded
        )
        insort(listed, turn, key=lambda agent: agent.agent_id)
    return Survey(turn, free, counts, _listed(listed, excluded, load))


def _listed(agents: Sequence[Agent], excluded: Mapping[str, str], load: Mapping[str, int]) -> str:
    """The entries of agents, put together from what does not change and their load."""
    return ",".join(
        [
            agent.fragments[agent.barred or excluded.get(agent.agent_id)] + str(load.get(agent.agent_id, 0)) + agent.tail
            for agent in agents
        ]
    )
