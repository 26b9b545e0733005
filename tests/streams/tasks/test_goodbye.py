"""What becomes of the tasks of an agent that went away: first comes what it still said of them, read or not."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.agents import AgentState
from schemas.tasks import TaskError, TaskState
from tests.streams.tasks.world import SECOND, World

BOOM = TaskError(code="agent_error", message="boom", retryable=True)
GONE = [AgentState.OFFLINE, AgentState.STOPPED, AgentState.REGISTERED, None]
"""None: unregistered, so that nothing says when."""

SAID = [
    ("completed", {"result": "{}"}, "completed"),
    ("failed", {"error": BOOM}, "retry_scheduled"),
    ("failed", {"error": TaskError(code="invalid_input", message="no")}, "failed"),
    ("started", {}, "started"),
]


def two_at_work() -> World:
    """A task `t` in the hands of an agent `a`; another agent that could take it."""
    world = World()
    world.agent("a", "dig")
    world.command(pattern="dig")
    world.agent("b", "dig")
    world.now += SECOND
    return world


def goes(world: World, state: AgentState | None) -> None:
    """The agent goes away now, and reports are read up to now and no farther."""
    if state is None:
        world.unregister("a")
        world.now += 1  # later it is missed
    else:
        world.agent("a", "dig", state=state)
    world.read_until = world.now - (state is None)
    assert world.movable() == []


@pytest.mark.parametrize("state", GONE)
@pytest.mark.parametrize(("kind", "fields", "told"), SAID)
def test_a_goodbye_that_is_read_before_the_last_report(
    state: AgentState | None, kind: str, fields: dict[str, Any], told: str
) -> None:
    world = two_at_work()
    goes(world, state)
    world.now += 5 * SECOND
    assert world.settle_ready() == [], "nothing newer than the goodbye is read, however long ago that was"
    world.report(kind, **fields)
    assert (world.told.kind, world.row().attempts, world.row().lost) == (told, 1, 0)
    world.read_until = world.now
    moved = world.settle_ready()
    assert moved == (["t", "t"] if kind == "started" else []), "what it only began is given to another then"


@pytest.mark.parametrize("state", GONE)
def test_without_a_report_the_task_is_given_to_another_as_soon_as_all_is_read(state: AgentState | None) -> None:
    world = two_at_work()
    goes(world, state)
    assert world.read_until is not None
    world.now += 1
    world.read_until += 1
    assert world.settle_ready() == ["t", "t"]
    row = world.row()
    assert (row.state, row.agent_id, row.attempts, row.lost) == (TaskState.ASSIGNED, "b", 2, 1)


def test_the_agent_that_comes_back_in_between_keeps_its_task() -> None:
    world = two_at_work()
    goes(world, AgentState.OFFLINE)
    world.now += SECOND
    world.agent("a", "dig")
    world.read_until = world.now
    assert world.settle_ready() == []
    world.report("completed", result="{}")
    assert (world.row().state, world.row().attempts) == (TaskState.COMPLETED, 1)


def test_a_wake_from_before_the_agent_went_takes_nothing_away() -> None:
    """It was gone once before and came back: what it said in between may be unread when the old wake is read."""
    world = two_at_work()
    asked = world.now
    world.now += SECOND
    goes(world, AgentState.OFFLINE)
    gone, world.now = world.now, asked
    assert world.wake(due=False) is None and world.wake() is None
    world.now = gone
    world.report("completed", result="{}")
    assert (world.row().state, world.row().attempts) == (TaskState.COMPLETED, 1)


@pytest.mark.parametrize("held", [False, True])
def test_a_task_pinned_to_an_agent_that_left_fails_after_its_last_report(held: bool) -> None:
    world = World()
    world.agent("a", "dig")
    world.command(agent_id="a", hold=held)
    world.now += SECOND
    goes(world, None)
    assert world.settle_ready() == []
    if not held:
        world.report("completed", result="{}")
    world.read_until = None
    assert world.settle_ready() == (["t"] if held else [])
    assert world.row().state is (TaskState.FAILED if held else TaskState.COMPLETED)


def test_when_one_was_missed_first_stays_while_others_change() -> None:
    world = two_at_work()
    goes(world, None)
    missed = world.now
    for _ in range(3):
        world.now += SECOND
        world.agent("b", "dig")
        assert world.movable() == []
    world.read_until = missed
    assert world.movable() == ["t"]
