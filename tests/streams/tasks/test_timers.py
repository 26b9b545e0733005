"""Timers are judged only when the partition's time has passed them: what would stop one may lie unread in the log."""

from __future__ import annotations

from schemas.agents import AgentState
from schemas.tasks import TaskEventKind, TaskState
from tests.streams.tasks.world import SECOND, World


def waiting(capability: str) -> World:
    world = World()
    world.agent("a", "dig")
    world.command("t", required_capabilities=[capability])
    world.now += 100_000 * SECOND
    return world


def test_a_row_that_is_only_asked_whether_it_could_move_does_not_time_out() -> None:
    world = waiting("dig")
    assert world.wake(due=False) is None
    assert world.rows["t"].state is TaskState.ASSIGNED
    world.wake()
    assert world.rows["t"].state is not TaskState.ASSIGNED


def test_nor_does_it_time_out_when_its_agent_is_gone() -> None:
    """It is lost then, which costs no attempt; the report that may be unread still counts."""
    world = waiting("dig")
    world.agent("a", "dig", state=AgentState.OFFLINE)
    world.wake(due=False)
    assert world.rows["t"].event is TaskEventKind.REQUEUED
    world.report("completed", epoch=1)
    assert world.rows["t"].state is TaskState.COMPLETED


def test_nor_does_it_fail_for_want_of_a_route() -> None:
    world = waiting("fly")
    assert world.wake(due=False) is None
    world.wake()
    assert world.rows["t"].state is TaskState.FAILED
