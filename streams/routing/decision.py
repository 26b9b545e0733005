"""A decision that explains itself: who was considered, who was excluded and why, who was chosen (spec 6.9).

It is made for every task and read for few, so its text is put together from pieces that were encoded once per agent
instead of from a tree of records; a test holds it equal to what `RoutingDecision` itself writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring as quoted
from typing import NamedTuple

from streams.processor import Event
from streams.routing.directory import Agent
from streams.routing.eligibility import AT_CAPACITY, AVOIDED
from streams.routing.route import Ask, Route

LISTED = 50
"""Candidates listed one by one; of larger pools the excluded are counted by reason as well."""


class Survey(NamedTuple):
    """The candidates of a pool at one moment. free: may get the task, ordered by id; excluded: reason by position."""

    free: list[Agent]
    excluded: dict[int, str]
    listed: str


def survey(candidates: Sequence[Agent], load: Mapping[str, int], avoided: str | None) -> Survey:
    """Ask every candidate; `load` is the tasks in flight by agent, `avoided` the one that failed the attempt before."""
    free: list[Agent] = []
    excluded: dict[int, str] = {}
    for place, agent in enumerate(candidates):
        reason = agent.barred
        if reason is None and load.get(agent.agent_id, 0) >= agent.limit:
            reason = AT_CAPACITY
        if reason is None:
            free.append(agent)
        else:
            excluded[place] = reason
    if avoided is not None and len(free) > 1:
        for place, agent in enumerate(candidates):
            if agent.agent_id == avoided and place not in excluded:
                free.remove(agent)
                excluded[place] = AVOIDED
    listed = ",".join(
        [
            agent.fragments[excluded.get(place)] + str(load.get(agent.agent_id, 0)) + agent.tail
            for place, agent in enumerate(candidates[:LISTED])
        ]
    )
    return Survey(free, excluded, listed)


class Asked(NamedTuple):
    """What a decision says of the task itself. level: its priority; queued_at: microseconds, 0 if it did not wait."""

    ask: Ask
    attempt: int
    level: int
    queued_at: int


def decision_json(
    event: Event, asked: Asked, route: Route | None, seen: Survey | None, chosen: str | None, reason: str, version: str
) -> str:
    """The text of a RoutingDecision.

    `route_ms` is the time from the record's append to the decision, so it holds the wait for the coordinator too;
    rules read no clock, and both moments are known from the event.
    """
    ask, stamp = asked.ask, event.stamp
    rule = quoted(route.rule.pattern) if route is not None and route.rule is not None else "null"
    target = quoted(route.target) if route is not None else "null"
    counts = _counts(seen) if route is not None and seen is not None and len(route.candidates) > LISTED else ""
    waited = max(0, event.now - asked.queued_at) // 1000 if asked.queued_at else 0
    took = max(0, stamp.time - event.now) / 1000
    words = ",".join([quoted(word) for word in ask.capabilities])
    return (
        f'{{"decision_id":{quoted(event.id(0))},"task_id":{quoted(ask.task_id)},"attempt":{asked.attempt},'
        f'"at":{event.now},"input":{{"pattern":{_text(ask.pattern)},"type":{quoted(ask.type)},'
        f'"required_capabilities":[{words}],"agent_id":{_text(ask.agent_id)}}},'
        f'"rule":{rule},"target":{target},"strategy":{quoted(route.strategy) if route is not None else _DEFAULT},'
        f'"candidates":[{seen.listed if seen is not None else ""}],"excluded_counts":{{{counts}}},'
        f'"chosen":{_text(chosen)},"reason":{quoted(reason)},"queue_level":{asked.level},"queue_wait_ms":{waited},'
        f'"route_ms":{took},"coordinator":{{"instance":{quoted(stamp.instance)},"version":{quoted(version)}}}}}'
    )


_DEFAULT = '"round_robin"'


def _text(value: str | None) -> str:
    return "null" if value is None else quoted(value)


def _counts(seen: Survey) -> str:
    counts: dict[str, int] = {}
    for reason in seen.excluded.values():
        counts[reason] = counts.get(reason, 0) + 1
    return ",".join([f'"{reason}":{counts[reason]}' for reason in sorted(counts)])


# --- the sentence


def reason_chosen(route: Route, seen: Survey, chosen: Agent, load: int) -> str:
    """Why this agent, in one sentence."""
    slots = f"{load} of {chosen.limit} slots in use"
    total = len(route.candidates)
    if total == 1:
        return f"Chose {chosen.agent_id}: {route.why}, and it is free with {slots}."
    free = len(seen.free)
    how = "the only one free" if free == 1 else f"next in turn among {free} free"
    return f"Chose {chosen.agent_id}: {route.why}, and it is {how} of {total} agents, with {slots}."


def reason_waiting(route: Route, seen: Survey, ahead: int) -> str:
    """Why nobody got it yet, in one sentence."""
    if ahead:
        return f"Waits: {route.why}, and {ahead} queued before it {'is' if ahead == 1 else 'are'} served first."
    if len(route.candidates) == 1:
        agent, why = route.candidates[0], seen.excluded[0]
        return f"Waits: {route.why}, which {_single(agent, why)}."
    counts: dict[str, int] = {}
    for reason in seen.excluded.values():
        counts[reason] = counts.get(reason, 0) + 1
    parts = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(counts.items()))
    return f"Waits: {route.why}, and none of {len(route.candidates)} agents is free ({parts})."


def _single(agent: Agent, why: str) -> str:
    if why == AT_CAPACITY:
        return f"has {agent.limit} of {agent.limit} slots in use"
    return f"is excluded as {why.replace('_', ' ')}" if why in ("breaker_open", "not_started") else f"is {why}"
