"""The text of a decision is what its record would write, and its sentence says why."""

from __future__ import annotations

import pytest

from schemas.agents import AgentState
from schemas.tasks import RoutingDecision
from tests.streams.tasks.world import SECOND, World, text_of

WORDS = ['"quoted"', "back\\slash", "new\nline", "tab\t", "bell\x07", "ünïcödé 🎭", "del\x7f", "</script>"]


def decided(world: World) -> RoutingDecision:
    """The last decision, after its text was held against the record's own."""
    decision = RoutingDecision.model_validate_json(world.told.decision)
    assert text_of(decision) == world.told.decision
    return decision


@pytest.mark.parametrize("word", WORDS)
def test_any_words(word: str) -> None:
    world = World()
    world.agent("a", word)
    world.command(pattern=word, type=word, required_capabilities=[word, "x"])
    assert decided(world).input.pattern == word
    world.command("u", pattern=word, type=word)
    assert decided(world).target == word
    world.command("v", agent_id="a")
    assert decided(world).input.agent_id == "a"


@pytest.mark.parametrize("weight", [1.0, 0.1, 2.5, 1e-7, 1e21, 123456789.123])
def test_any_weight(weight: float) -> None:
    world = World()
    world.agent("a", "dig", weight=weight)
    world.views.records["agents.health"].clear()
    world.command(pattern="dig")
    assert decided(world).candidates[0].effective_weight == weight


def test_everything_is_in_it() -> None:
    world = World()
    world.agent("caching_agent", max_in_flight=2)
    world.command(pattern="cache_data", required_capabilities=[])
    world.now += SECOND
    world.command("u", pattern="cache_data")
    decision = decided(world)
    assert (decision.decision_id, decision.task_id, decision.attempt, decision.at) == (
        world.told.event_id, "u", 1, world.now,
    )  # fmt: skip
    assert (decision.rule, decision.target, decision.strategy, decision.chosen) == (
        "cache_data", "caching_agent", "round_robin", "caching_agent",
    )  # fmt: skip
    (candidate,) = decision.candidates
    assert (candidate.in_flight, candidate.max_in_flight, candidate.eligible, candidate.tokens) == (1, 2, True, None)
    assert (decision.queue_level, decision.queue_wait_ms, decision.route_ms) == (2, 0, 1.5)
    assert (decision.coordinator.instance, decision.coordinator.version) == ("coordinator-1", "test")
    assert decision.reason == (
        "Chose caching_agent: rule 'cache_data' names 'caching_agent', and it is free with 1 of 2 slots in use."
    )


def test_how_long_it_waited() -> None:
    world = World()
    world.agent("a", "dig", max_in_flight=1)
    world.command("first", pattern="dig")
    world.command(pattern="dig")
    assert decided(world).reason == "Waits: the pattern asks for 'dig', which has 1 of 1 slots in use."
    world.now += 7 * SECOND
    world.report("completed", "first")
    world.settle_ready()
    decision = RoutingDecision.model_validate_json(world.row().decision or "")
    assert (decision.queue_wait_ms, decision.reason) == (
        7000, "Chose a: the pattern asks for 'dig', and it is free with 0 of 1 slots in use.",
    )  # fmt: skip


def test_reasons_of_a_larger_pool() -> None:
    world = World()
    for name in "abcd":
        world.agent(name, "dig", max_in_flight=1)
    world.agent("d", "dig", state=AgentState.STOPPED)
    world.agent("c", "dig", breaker="open")
    world.command("t0", pattern="dig")
    assert decided(world).reason == (
        "Chose a: the pattern asks for 'dig', and it is next in turn among 2 free of 4 agents, "
        "with 0 of 1 slots in use."
    )
    world.command("t1", pattern="dig")
    assert "it is the only one free of 4 agents" in decided(world).reason
    world.command("t2", pattern="dig")
    decision = decided(world)
    assert decision.reason == (
        "Waits: the pattern asks for 'dig', and none of 4 agents is free (2 at capacity, 1 breaker open, 1 stopped)."
    )
    assert [(each.agent_id, each.excluded_by) for each in decision.candidates] == [
        ("a", "at_capacity"), ("b", "at_capacity"), ("c", "breaker_open"), ("d", "stopped"),
    ]  # fmt: skip
    assert decision.excluded_counts == {}


def test_a_pool_of_many_lists_the_chosen_and_who_was_excluded() -> None:
    world = World()
    for number in range(130):
        world.agent(f"a{number:03}", "dig", state=AgentState.UP if number % 2 else AgentState.OFFLINE, max_in_flight=1)
    world.command("t0", pattern="dig")
    world.command("t1", pattern="dig")
    decision = decided(world)
    assert len(decision.candidates) == 50
    assert [(each.agent_id, each.excluded_by) for each in decision.candidates[:5]] == [
        ("a000", "offline"), ("a001", "at_capacity"), ("a002", "offline"), ("a003", None), ("a004", "offline"),
    ]  # fmt: skip
    assert decision.excluded_counts == {"at_capacity": 1, "offline": 65}
    assert decision.chosen == "a003"
    assert "next in turn among 64 free of 130 agents" in decision.reason
    world.report("failed", "t1")
    world.now += SECOND
    world.report("completed", "t0")
    world.wake("t1")
    decision = decided(world)
    assert (decision.chosen, decision.excluded_counts) == ("a005", {"avoided": 1, "offline": 65})
    world.report("failed", "t1")
    world.command("u", agent_id="a005")
    world.now += 2 * SECOND
    world.wake("t1")
    decision = decided(world)
    assert (decision.chosen, decision.excluded_counts) == ("a007", {"at_capacity": 1, "offline": 65}), "it is full anyway"
    world.command("u", kind="cancel")
    for number in range(63):
        world.command(f"more{number}", pattern="dig")
    world.command("last", pattern="dig")
    decision = decided(world)
    assert (decision.chosen, decision.excluded_counts) == ("a005", {"at_capacity": 64, "offline": 65})
    world.command("waits", pattern="dig")
    decision = decided(world)
    assert (decision.chosen, decision.excluded_counts) == (None, {"at_capacity": 65, "offline": 65})
    assert len(decision.candidates) == 49
