"""A decision that explains itself: who was considered, who was excluded and why, who was chosen.

It is made for every task and read for few, so its text is put together from pieces that were encoded once per agent
instead of from a tree of records; a test holds it equal to what `RoutingDecision` itself writes.
"""

from __future__ import annotations

from json.encoder import encode_basestring as quoted
from typing import NamedTuple

from streams.processor import Event
from streams.routing.directory import Agent
from streams.routing.eligibility import AT_CAPACITY
from streams.routing.route import Ask, Route
from streams.routing.survey import LISTED, Survey


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
    counts = ""
    if route is not None and seen is not None and len(route.candidates.agents) > LISTED:
        counts = ",".join([f'"{why}":{count}' for why, count in sorted(seen.excluded.items())])
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


# --- the sentence


def reason_chosen(route: Route, seen: Survey, chosen: Agent, load: int) -> str:
    """Why this agent, in one sentence."""
    slots = f"{load} of {chosen.limit} slots in use"
    total = len(route.candidates.agents)
    if total == 1:
        return f"Chose {chosen.agent_id}: {route.why}, and it is free with {slots}."
    how = "the only one free" if seen.free == 1 else f"next in turn among {seen.free} free"
    return f"Chose {chosen.agent_id}: {route.why}, and it is {how} of {total} agents, with {slots}."


def reason_waiting(route: Route, seen: Survey, ahead: int) -> str:
    """Why nobody got it yet, in one sentence."""
    if ahead:
        return f"Waits: {route.why}, and {ahead} queued before it {'is' if ahead == 1 else 'are'} served first."
    agents = route.candidates.agents
    if len(agents) == 1:
        (why,) = seen.excluded
        return f"Waits: {route.why}, which {_single(agents[0], why)}."
    parts = ", ".join(f"{count} {why.replace('_', ' ')}" for why, count in sorted(seen.excluded.items()))
    return f"Waits: {route.why}, and none of {len(agents)} agents is free ({parts})."


def _single(agent: Agent, why: str) -> str:
    if why == AT_CAPACITY:
        return f"has {agent.limit} of {agent.limit} slots in use"
    return f"is excluded as {why.replace('_', ' ')}" if why in ("breaker_open", "not_started") else f"is {why}"
