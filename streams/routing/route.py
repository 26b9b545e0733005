"""Where a task may go at all: from what it names to a pool of agents, or to the reason why there is none.

Only the registry and the rules count here. Whether one of the pool is free comes after (`survey`), so the answer stays
the same until an agent changes and is kept for the next task that names the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from streams.faults import Fault, fault
from streams.routing.directory import Directory, Pool, pool_key
from streams.routing.rules import ROUND_ROBIN, Rule, RuleBook

_KEPT = 10_000
"""Answers kept; users may send any number of different patterns."""


class Ask(NamedTuple):
    """What a task names. capabilities: sorted, each once."""

    task_id: str
    pattern: str | None
    type: str
    agent_id: str | None
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """A pool and how it was found.

    target: how people call it. why: its half of the sentence that explains the decision.
    """

    pool: str
    target: str
    rule: Rule | None
    strategy: str
    why: str
    candidates: Pool


class Router:
    """Answers kept per generation of the directory."""

    def __init__(self, rules: RuleBook, directory: Directory) -> None:
        self.rules = rules
        self.directory = directory
        self._kept: dict[tuple[str | None, str, str | None, tuple[str, ...]], Route | Fault] = {}
        self._generation = -1

    def route(self, ask: Ask) -> Route | Fault:
        """The route of a task, or what is missing."""
        if self._generation != self.directory.generation or len(self._kept) > _KEPT:
            self._kept.clear()
            self._generation = self.directory.generation
        key = (ask.pattern, ask.type, ask.agent_id, ask.capabilities)
        found = self._kept.get(key)
        if found is None:
            found = analyse(ask, self.rules, self.directory)
            if isinstance(found, Fault) and found.code == "no_route":
                return found  # the one answer that names the task
            self._kept[key] = found
        return found


def rule_of(pattern: str | None, type_: str, agent_id: str | None, rules: RuleBook) -> Rule | None:
    """The rule that a task falls under; a pinned task falls under none."""
    if agent_id is not None:
        return None
    if pattern is not None:
        return rules.find(pattern)
    return rules.exact(type_) if type_ else None


def analyse(ask: Ask, rules: RuleBook, directory: Directory) -> Route | Fault:
    """The steps of route analysis, in their order."""
    if ask.agent_id is not None:
        if directory.get(ask.agent_id) is None:
            return fault("agent_not_found", ask.agent_id)
        return _route(ask, "agent", ask.agent_id, None, f"the task names '{ask.agent_id}'", directory)
    rule = rule_of(ask.pattern, ask.type, None, rules)
    if rule is not None:
        if not directory.pool(pool_key("target", rule.target, ())).agents:
            return fault("agent_not_found", rule.target)
        return _route(ask, "target", rule.target, rule, f"rule '{rule.pattern}' names '{rule.target}'", directory)
    if ask.pattern is not None:
        if not directory.known(ask.pattern):
            return fault("unknown_pattern", ask.pattern)
        return _route(ask, "offer", ask.pattern, None, f"the pattern asks for '{ask.pattern}'", directory)
    if ask.capabilities:
        words = ", ".join(ask.capabilities)
        return _route(ask, "offer", "", None, f"the task asks for {words}", directory)
    if ask.type and directory.known(ask.type):
        return _route(ask, "offer", ask.type, None, f"the type asks for '{ask.type}'", directory)
    return fault("no_route", ask.task_id)


def _route(ask: Ask, kind: str, name: str, rule: Rule | None, why: str, directory: Directory) -> Route | Fault:
    """The pool, kept only if somebody in it offers every capability of task and rule."""
    offered = (name,) if kind == "offer" and name else ()
    asked = (*ask.capabilities, *(rule.required_capabilities if rule else ()))
    needed = tuple(sorted({*offered, *asked}))
    # A pool of those who offer something is named by all they must offer, so that equal pools have equal names.
    pool = pool_key(kind, "" if kind == "offer" else name, needed)
    candidates = directory.pool(pool)
    if not candidates.agents:
        return fault("no_capable_agent", ", ".join(needed))
    target = name or ", ".join(needed)
    return Route(pool, target, rule, (rule.strategy if rule else None) or ROUND_ROBIN, why, candidates)
