"""Who waits, who is next, and who is woken: capacity, order, round robin, and the wakes of `ready`."""

from __future__ import annotations

import random
from typing import Any

from schemas.agents import AgentState
from schemas.settings import Settings
from schemas.tasks import RoutingDecision, TaskError, TaskState
from streams.processor import Share
from streams.tasks.queue import PoolQueue
from tests.streams.tasks.world import SECOND, World


def world(slots: int = 1, *agents: str, **settings: Any) -> World:
    """A world whose agents all offer `dig`."""
    made = World(Settings.model_validate(settings))
    for name in agents or ("a",):
        made.agent(name, "dig", max_in_flight=slots)
    return made


def states(made: World) -> dict[str, str]:
    """State by task, the agent's name instead for what is in flight."""
    return {key: str(row.agent_id or row.state) for key, row in made.rows.items()}


def test_first_in_first_out() -> None:
    made = world()
    for name in "cab":
        made.now += 1
        made.command(name, pattern="dig")
    assert states(made) == {"c": "a", "a": "queued", "b": "queued"}
    assert made.told.decision is not None
    assert RoutingDecision.model_validate_json(made.told.decision).reason == (
        "Waits: the pattern asks for 'dig', and 1 queued before it is served first."
    )
    made.report("completed", "c")
    assert made.settle_ready() == ["a"]
    made.report("completed", "a")
    assert made.settle_ready() == ["b"]


def test_nobody_overtakes_the_queue() -> None:
    made = world(2)
    for name in "abc":
        made.command(name, pattern="dig")
    made.report("completed", "a")
    made.command("d", pattern="dig")
    assert made.row("d").state is TaskState.QUEUED, "a slot is free, but c was there first"
    assert list(made.processor.ready(made.now, made.views)) == ["c"]


def test_wakes_may_arrive_in_any_order() -> None:
    made = world(3)
    for name in "abcdef":
        made.command(name, pattern="dig")
    for name in "abc":
        made.report("completed", name)
    named = list(made.processor.ready(made.now, made.views))
    assert named == ["d", "e", "f"]
    for name in reversed(named):
        made.wake(name)
    assert [made.row(name).state for name in named] == [TaskState.ASSIGNED] * 3


def test_a_task_whose_agent_was_lost_keeps_its_place() -> None:
    made = world(1, "a", "b")
    for name in ("one", "two", "three"):
        made.now += 1
        made.command(name, pattern="dig")
    assert states(made) == {"one": "a", "two": "b", "three": "queued"}
    made.agent("a", "dig", max_in_flight=1, state=AgentState.OFFLINE)
    assert made.settle_ready() == ["one"]
    assert (made.row("one").state, made.row("one").lost) == (TaskState.QUEUED, 1)
    made.report("completed", "two")
    assert made.settle_ready() == ["one"], "it was there before three"
    assert made.row("one").agent_id == "b"


def test_round_robin_over_those_that_are_free() -> None:
    made = world(2, "a", "b", "c")
    for number in range(7):
        made.command(f"t{number}", pattern="dig")
    assert [made.row(f"t{n}").agent_id for n in range(7)] == ["a", "b", "c", "a", "b", "c", None]
    made.report("completed", "t1")
    made.report("completed", "t3")
    assert made.settle_ready() == ["t6"]
    assert made.row("t6").agent_id == "a", "the last choice was c"
    made.agent("b", "dig", state=AgentState.STOPPED)
    made.settle_ready()
    assert made.row("t4").state is TaskState.QUEUED


def test_a_pool_that_is_blocked_blocks_no_other() -> None:
    made = world()
    made.agent("b", "cut")
    made.command("one", pattern="dig")
    made.command("two", pattern="dig")
    made.command("three", pattern="cut")
    assert states(made) == {"one": "a", "two": "queued", "three": "b"}


def test_two_pools_of_one_agent_are_not_promised_the_same_slot() -> None:
    made = world()
    made.command("busy", pattern="dig")
    made.now += 1
    made.command("pinned", agent_id="a")
    made.now += 1
    made.command("any", pattern="dig")
    made.report("completed", "busy")
    assert list(made.processor.ready(made.now, made.views)) == ["pinned"]


def test_the_share_of_a_coordinator() -> None:
    made = World(share=Share(1, 4))
    made.agent("a", "dig", max_in_flight=9)
    for number in range(4):
        made.command(f"t{number}", pattern="dig")
    assert [row.state for row in made.rows.values()].count(TaskState.ASSIGNED) == 2


def test_indexes_come_back_from_the_rows() -> None:
    made = world(1, "a", "b")
    for name in ("one", "two", "three", "four"):
        made.now += 1
        made.command(name, pattern="dig")
    made.command("lost", pattern="nobody")
    made.command("pinned", agent_id="a", hold=True)
    made.report("completed", "two")
    made.fresh()
    assert list(made.processor.ready(made.now, made.views)) == ["three", "lost"]
    made.unregister("a")
    assert made.settle_ready() == ["one", "pinned", "one"]
    assert states(made) == {
        "one": "b", "two": "b", "three": "queued", "four": "queued", "lost": "queued", "pinned": "failed",
    }  # fmt: skip
    assert made.row("pinned").error.code == "agent_not_found"  # type: ignore[union-attr]


def test_nothing_is_named_when_nothing_waits() -> None:
    made = world()
    made.command("one", pattern="dig")
    assert list(made.processor.ready(made.now, made.views)) == []
    made.command("two", pattern="dig")
    assert list(made.processor.ready(made.now, made.views)) == []


def test_a_pinned_task_queued_when_its_agent_leaves() -> None:
    made = world()
    made.command("one", agent_id="a")
    made.command("two", agent_id="a")
    made.unregister("a")
    assert sorted(made.settle_ready()) == ["one", "two"]
    assert {row.error.code for row in made.rows.values()} == {"agent_not_found"}  # type: ignore[union-attr]


def test_who_failed_the_attempt_before_is_avoided_while_there_is_another() -> None:
    made = world(2, "a", "b")
    made.command(pattern="dig")
    made.report("failed", error=TaskError(code="agent_error", message="x", retryable=True))
    made.pass_time(1)
    decision = RoutingDecision.model_validate_json(made.told.decision)
    assert (decision.chosen, decision.attempt) == ("b", 2)
    assert [candidate.excluded_by for candidate in decision.candidates] == ["avoided", None]
    made.agent("a", "dig", state=AgentState.STOPPED)
    made.report("failed", error=TaskError(code="agent_error", message="x", retryable=True))
    made.pass_time(2)
    assert made.row().agent_id == "b", "there is no other"


def test_a_retry_queues_behind_nobody_younger() -> None:
    made = world()
    made.command("old", pattern="dig")
    made.report("failed", "old")
    made.now += 1
    made.command("young", pattern="dig")
    made.now += SECOND
    made.command("younger", pattern="dig")
    made.wake("old")
    assert made.row("old").state is TaskState.QUEUED
    assert (made.told.kind, made.told.agent_id) == ("queued", None)
    made.report("completed", "young")
    assert made.settle_ready() == ["old"]


def test_a_task_that_left_and_came_back_waits_once() -> None:
    queue = PoolQueue()
    for place in ((1, "a"), (2, "b"), (3, "c")):
        queue.add(place)
    assert queue.first(1) == [(1, "a")]
    queue.remove((2, "b"))
    queue.add((2, "b"))
    assert queue.first(5) == [(1, "a"), (2, "b"), (3, "c")]
    assert (len(queue), queue.ahead((3, "c"), 5)) == (3, 2)


def test_a_task_without_a_route_is_looked_at_once_per_change() -> None:
    made = world()
    made.command("lost", pattern="nobody")
    made.fresh()
    assert list(made.processor.ready(made.now, made.views)) == ["lost"]
    made.wake("lost")
    assert list(made.processor.ready(made.now, made.views)) == []
    made.agent("b", "other")
    assert list(made.processor.ready(made.now, made.views)) == ["lost"], "until it was looked at"
    assert list(made.processor.ready(made.now, made.views)) == ["lost"]


def test_pool_queue_against_a_plain_list() -> None:
    seeded = random.Random(7)
    queue, plain = PoolQueue(), []
    for step in range(5000):
        if plain and seeded.random() < 0.48:
            place = seeded.choice(plain[:10] if seeded.random() < 0.8 else plain)
            plain.remove(place)
            queue.remove(place)
        else:
            place = (seeded.randrange(1000), f"k{step}" if seeded.random() < 0.7 else f"k{seeded.randrange(50)}")
            if any(place[1] == key for _, key in plain):
                continue
            plain = sorted([*plain, place])
            queue.add(place)
        count = seeded.randrange(5)
        assert queue.first(count) == plain[:count]
        assert len(queue) == len(plain)
        if plain:
            other = seeded.choice(plain)
            assert queue.ahead(other, count) == min(count, plain.index(other))
