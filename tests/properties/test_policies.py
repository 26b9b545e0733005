"""Laws of the retry delays and of the choice among free agents, for any numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.agents import AgentState
from schemas.policies import Jitter, RetryPolicy
from schemas.topics import AGENT_REGISTRY
from streams.faults import Fault
from streams.processor import Share
from streams.routing.balance import Turns
from streams.routing.directory import Directory, Pool
from streams.routing.route import Ask, Route, analyse
from streams.routing.rules import Rule, RuleBook
from streams.routing.survey import _survey_many, survey
from tests.streams.tasks.world import World

POLICIES = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 1000),
    retry_delay=st.floats(0, 86400),
    backoff_multiplier=st.floats(1, 1000),
    max_delay=st.floats(0, 86400),
    jitter=st.sampled_from([Jitter.NONE, Jitter.FULL]),
)
WORDS = st.sampled_from(["dig", "cut", "report.x", "report.y", "a", "b", "nothing", ""])
CAPABILITIES = st.lists(st.sampled_from(["dig", "cut", "a", "b"]), max_size=3, unique=True)
RULES = RuleBook([Rule("report.*", "a"), Rule("cut", "b", required_capabilities=("cut",))])


@given(POLICIES, st.integers(1, 3000), st.floats(0, 1))
def test_delays_grow_to_their_cap(policy: RetryPolicy, retry: int, spread: float) -> None:
    delay = policy.delay_seconds(retry)
    assert 0 <= delay <= policy.max_delay
    assert delay <= policy.delay_seconds(retry + 1)
    spread_delay = policy.delay_seconds(retry, spread)
    assert 0 <= spread_delay <= delay
    assert spread_delay == (delay * spread if policy.jitter is Jitter.FULL else delay)


@given(POLICIES, st.integers(-5, 0))
def test_retries_count_from_one(policy: RetryPolicy, retry: int) -> None:
    with pytest.raises(ValueError, match="count from 1"):
        policy.delay_seconds(retry)


@given(st.integers(1, 10**6), st.integers(1, 1000), st.integers(0, 1000))
def test_shares(limit: int, total: int, owned: int) -> None:
    owned = min(owned, total)
    part = Share(owned, total).of(limit)
    assert 1 <= part <= limit
    assert Share(total, total).of(limit) == limit
    assert part == max(1, limit * owned // total)


STATES = st.sampled_from([AgentState.UP] * 6 + [state for state in AgentState if state is not AgentState.UP])
AGENTS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.tuples(CAPABILITIES, STATES, st.sampled_from([False, False, False, True]), st.integers(1, 3)),
    max_size=5,
)


def directory(agents: dict[str, tuple[list[str], AgentState, bool, int]]) -> Directory:
    world = World()
    for agent_id, (capabilities, state, draining, slots) in agents.items():
        world.agent(agent_id, *capabilities, state=state, draining=draining, max_in_flight=slots)
    made = Directory(Share(1, 1))
    made.refresh(world.views)
    assert set(agents) == set(world.views.items(AGENT_REGISTRY))
    return made


@given(AGENTS, st.none() | WORDS, WORDS, st.none() | st.sampled_from("abcz"), CAPABILITIES)
def test_routing_has_an_answer_for_everything(
    agents: dict[str, tuple[list[str], AgentState, bool, int]],
    pattern: str | None, type_: str, agent_id: str | None, capabilities: list[str],
) -> None:  # fmt: skip
    ask = Ask("t", pattern, type_, agent_id, tuple(sorted(capabilities)))
    found = analyse(ask, RULES, directory(agents))
    assert found == analyse(ask, RULES, directory(agents)), "the same input, the same route"
    if isinstance(found, Fault):
        assert found.code in {"unknown_pattern", "agent_not_found", "no_capable_agent", "no_route"}
        return
    assert isinstance(found, Route)
    ids = [agent.agent_id for agent in found.candidates.agents]
    assert ids
    assert ids == sorted(set(ids))
    assert all(set(capabilities) <= agent.capabilities for agent in found.candidates.agents)
    if agent_id is not None:
        assert ids == [agent_id]


LOADS = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 3))


@given(AGENTS, LOADS, st.none() | st.sampled_from("abcde"), st.none() | st.sampled_from("abcde"))
def test_only_who_may_have_it_gets_it(
    agents: dict[str, tuple[list[str], AgentState, bool, int]],
    load: dict[str, int], avoided: str | None, last: str | None,
) -> None:  # fmt: skip
    known = directory(agents)
    pool = Pool.of(tuple(agent for agent_id in sorted(agents) if (agent := known.get(agent_id)) is not None))
    full = {agent_id for agent_id in load if load[agent_id] >= known.limit(agent_id)}
    turns = Turns()
    if last is not None:
        turns.took("p", last)
    seen = survey("p", pool, load, full, turns, avoided)
    assert seen.free + sum(seen.excluded.values()) == len(agents)
    assert (seen.turn is None) == (seen.free == 0)
    if seen.turn is not None:
        _, state, draining, slots = agents[seen.turn.agent_id]
        assert state is AgentState.UP
        assert not draining
        assert load.get(seen.turn.agent_id, 0) < slots
        assert seen.turn.agent_id != avoided or seen.free == 1
    many = _survey_many("p", pool, load, full, turns, avoided)
    assert (many.turn, many.free, dict(many.excluded)) == (seen.turn, seen.free, dict(seen.excluded)), "large as small"


@given(st.lists(st.sets(st.sampled_from("abcde"), min_size=1), min_size=1, max_size=40))
def test_turns_are_fair(rounds: list[set[str]]) -> None:
    """Who is free all the time is chosen at least once in as many choices as there are agents."""
    every = directory({name: ([], AgentState.UP, False, 1) for name in "abcde"})
    turns, since = Turns(), dict.fromkeys("abcde", 0)
    for free in rounds:
        agents = [agent for name in sorted(free) if (agent := every.get(name)) is not None]
        chosen = turns.next("p", agents)
        turns.took("p", chosen.agent_id)
        for name in "abcde":
            since[name] = 0 if name == chosen.agent_id or name not in free else since[name] + 1
        assert max(since.values()) < 5
