"""A decision that explains itself: who was considered, who was excluded and why, who was chosen.

It is made for every task and read for few, and stands in a row and an event of each: so fields at their default are left
out, and the text is put together from pieces that were encoded once per agent instead of from a tree of records. A test
holds it equal to what `RoutingDecision` itself writes.
"""

from __future__ import annotations

from functools import lru_cache
from json.encoder import encode_basestring as quoted
from typing import NamedTuple

from schemas.tasks import RoutingDecision
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
    asked_for = _input(ask.pattern, ask.type, ask.capabilities, ask.agent_id)
    took = max(0, stamp.time - event.now) / 1000
    chosen_text = "" if chosen is None else f'"chosen":{quoted(chosen)},'
    level = "" if asked.level == _LEVEL else f'"queue_level":{asked.level},'
    waited = max(0, event.now - asked.queued_at) // 1000 if asked.queued_at else 0
    wait = f'"queue_wait_ms":{waited},' if waited else ""
    ms = f'"route_ms":{took},' if took else ""
    return (
        f'{{"decision_id":{quoted(event.id(0))},"task_id":{quoted(ask.task_id)},"attempt":{asked.attempt},'
        f'"at":{event.now},"input":{asked_for},{_route(route, seen)}{chosen_text}"reason":{quoted(reason)},'
        f'{level}{wait}{ms}"coordinator":{{"instance":{quoted(stamp.instance)},"version":{quoted(version)}}}}}'
    )


@lru_cache(1024)
def _input(pattern: str | None, kind: str, capabilities: tuple[str, ...], agent_id: str | None) -> str:
    parts = []
    if pattern is not None:
        parts.append(f'"pattern":{quoted(pattern)}')
    if kind:
        parts.append(f'"type":{quoted(kind)}')
    if capabilities:
        parts.append(f'"required_capabilities":[{",".join([quoted(word) for word in capabilities])}]')
    if agent_id is not None:
        parts.append(f'"agent_id":{quoted(agent_id)}')
    return f"{{{','.join(parts)}}}"


def _route(route: Route | None, seen: Survey | None) -> str:
    """From the rule to the counts, a comma behind each."""
    if route is None:
        return f'"strategy":{_STRATEGY},'
    rule = f'"rule":{quoted(route.rule.pattern)},' if route.rule is not None else ""
    text = f'{rule}"target":{quoted(route.target)},"strategy":{quoted(route.strategy)},'
    if seen is None:
        return text
    if seen.listed:
        text += f'"candidates":[{seen.listed}],'
    if seen.excluded and len(route.candidates.agents) > LISTED:
        counts = ",".join([f'"{why}":{count}' for why, count in sorted(seen.excluded.items())])
        text += f'"excluded_counts":{{{counts}}},'
    return text


_STRATEGY = '"round_robin"'
_LEVEL: int = RoutingDecision.model_fields["queue_level"].default


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
