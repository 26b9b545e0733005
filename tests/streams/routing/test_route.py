"""From what a task names to a pool of agents, step by step, and who of the pool may have it."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.agents import AgentHealth, AgentRecord, AgentState, BreakerState, Health
from schemas.topics import AGENT_HEALTH, AGENT_REGISTRY
from streams.faults import Fault
from streams.processor import Share
from streams.routing.balance import Turns
from streams.routing.directory import Directory
from streams.routing.eligibility import barred
from streams.routing.route import Ask, Route, Router, analyse
from streams.routing.rules import BUILTIN_RULES, Rule, RuleBook
from tests.streams.tasks.world import World

RULES = RuleBook(
    [
        Rule("dig", "digger"),
        Rule("report.*", "reporter"),
        Rule("report.daily.*", "daily"),
        Rule("report.?aily.*", "other"),
        Rule("strict", "digger", required_capabilities=("deep",)),
        Rule("off", "digger", enabled=False),
    ]
)


@pytest.fixture
def world() -> World:
    made = World()
    made.agent("digger", "hole")
    made.agent("digger-2", "hole", "deep", name="digger")
    made.agent("reporter", "deep")
    made.agent("daily")
    return made


def directory(world: World) -> Directory:
    made = Directory(Share(1, 1))
    made.refresh(world.views)
    return made


def route(world: World, **fields: Any) -> Route | Fault:
    ask = Ask(**({"task_id": "t", "pattern": None, "type": "", "agent_id": None, "capabilities": ()} | fields))
    found = directory(world)
    once = analyse(ask, RULES, found)
    router = Router(RULES, found)
    assert router.route(ask) == router.route(ask) == once
    return once


@pytest.mark.parametrize(
    ("fields", "agents"),
    [
        ({"agent_id": "digger", "pattern": "report.x"}, ["digger"]),
        ({"pattern": "dig"}, ["digger", "digger-2"]),
        ({"pattern": "dig", "capabilities": ("deep",)}, ["digger-2"]),
        ({"pattern": "strict"}, ["digger-2"]),
        ({"pattern": "report.weekly"}, ["reporter"]),
        ({"pattern": "report.daily.sales"}, ["daily"]),
        ({"pattern": "deep"}, ["digger-2", "reporter"]),
        ({"pattern": "deep", "capabilities": ("hole",)}, ["digger-2"]),
        ({"type": "dig"}, ["digger", "digger-2"]),
        ({"type": "dig", "pattern": "deep"}, ["digger-2", "reporter"]),
        ({"type": "x", "capabilities": ("deep", "hole")}, ["digger-2"]),
        ({"type": "deep"}, ["digger-2", "reporter"]),
    ],
)
def test_the_pool(world: World, fields: dict[str, Any], agents: list[str]) -> None:
    found = route(world, **fields)
    assert isinstance(found, Route)
    assert [agent.agent_id for agent in found.candidates.agents] == agents


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"agent_id": "nobody"}, "agent_not_found"),
        ({"agent_id": "daily", "capabilities": ("deep",)}, "no_capable_agent"),
        ({"pattern": "off"}, "unknown_pattern"),
        ({"pattern": "report.?aily.x"}, "agent_not_found"),
        ({"pattern": "nothing"}, "unknown_pattern"),
        ({"capabilities": ("fly",)}, "no_capable_agent"),
        ({"type": "report.weekly"}, "no_route"),  # a type must equal the pattern
        ({}, "no_route"),
    ],
)
def test_no_pool(world: World, fields: dict[str, Any], code: str) -> None:
    found = route(world, **fields)
    assert isinstance(found, Fault)
    assert found.code == code


def test_equal_pools_have_equal_names(world: World) -> None:
    ways = [{"pattern": "deep"}, {"type": "deep"}, {"capabilities": ("deep",)}]
    assert len({route(world, **way).pool for way in ways}) == 1  # type: ignore[union-attr]


def test_the_router_follows_the_agents(world: World) -> None:
    found = Directory(Share(1, 1))
    router = Router(RULES, found)
    ask = Ask("t", "deep", "", None, ())
    found.refresh(world.views)
    assert len(router.route(ask).candidates.agents) == 2  # type: ignore[union-attr]
    world.agent("new", "deep")
    found.dirty.add("new")
    found.refresh(world.views)
    assert len(router.route(ask).candidates.agents) == 3  # type: ignore[union-attr]
    for agent_id in ("new", "reporter", "digger-2"):
        world.unregister(agent_id)
        found.dirty.add(agent_id)
    found.refresh(world.views)
    assert router.route(ask) == Fault("unknown_pattern", "Unknown pattern 'deep'")
    assert found.pool('["target","digger"]').agents == (found.get("digger"),)


def test_an_agent_that_changes_is_filed_anew(world: World) -> None:
    found = directory(world)
    world.agent("digger", "other", name="renamed")
    found.dirty.add("digger")
    found.refresh(world.views)
    assert not found.known("nothing")
    assert [agent.agent_id for agent in found.pool('["offer","","hole"]').agents] == ["digger-2"]
    assert [agent.agent_id for agent in found.pool('["target","renamed"]').agents] == ["digger"]


def test_later_rules_replace_earlier_ones() -> None:
    book = RuleBook([*BUILTIN_RULES, Rule("run_tests", "mine"), Rule("cache_data", "x", enabled=False)])
    assert book.find("run_tests") == Rule("run_tests", "mine")
    assert book.find("cache_data") is None


def test_the_builtin_rules() -> None:
    assert len(BUILTIN_RULES) == len({rule.pattern for rule in BUILTIN_RULES}) == 22
    assert {rule.priority for rule in BUILTIN_RULES} == {2}
    book = RuleBook()
    assert book.find("detect_anomalies") == Rule("detect_anomalies", "anomaly_detection_agent")
    assert book.exact("upload_pdf") == Rule("upload_pdf", "content_ingestion_agent")


@pytest.mark.parametrize(
    ("state", "draining", "breaker", "health", "reason"),
    [
        ("registered", True, "open", "unhealthy", "not_started"),
        ("stopped", True, "open", "unhealthy", "stopped"),
        ("offline", True, "open", "unhealthy", "offline"),
        ("unknown", False, "closed", "unknown", "offline"),
        ("up", True, "open", "unhealthy", "draining"),
        ("up", False, "open", "unhealthy", "breaker_open"),
        ("up", False, "half_open", "unhealthy", "unhealthy"),
        ("up", False, "half_open", "unknown", None),
        ("up", False, "closed", "healthy", None),
    ],
)
def test_the_first_reason_counts(state: str, draining: bool, breaker: str, health: str, reason: str | None) -> None:
    world = World()
    world.agent("a", state=AgentState(state), draining=draining)
    record: AgentRecord = world.views.get(AGENT_REGISTRY, "a")
    told: AgentHealth = world.views.get(AGENT_HEALTH, "a")
    told = told.model_copy(update={"breaker": BreakerState(breaker), "health": Health(health)})
    assert barred(record, told) == reason


def test_turns() -> None:
    world = World()
    for name in "abcd":
        world.agent(name, "x")
    a, b, c, d = directory(world).pool('["offer","","x"]').agents
    turns = Turns()
    assert turns.next("p", [a, b]) is a
    for last, free, chosen in ((b, [a, b, c], c), (c, [a, b], a), (d, [a, d], a), (a, [d], d), (b, [a, d], d)):
        turns.took("p", last.agent_id)
        assert turns.next("p", free) is chosen
    assert turns.next("another", [b, c]) is b
