"""Why a wait would never end: said at once and in words, because a test that only times out teaches nothing."""

from __future__ import annotations

from dataclasses import dataclass

from ops.views.tasks import TaskStatus, plain
from schemas.errors import Permanent
from schemas.tasks import IN_FLIGHT, TaskState

MICROS = 1_000_000


class Stuck(Permanent):
    """Nothing can come of what is waited for; the message says why, the hint what would help."""

    code = "timeout"


@dataclass(frozen=True, slots=True)
class Scene:
    """What is there: a coordinator, a host, and when (in seconds from now) the first task has a timer, if one has."""

    coordinator: bool
    host: bool
    next_s: float | None


def plight(task_id: str, found: TaskStatus | None, scene: Scene) -> Stuck:
    """The error for somebody who waits for this task."""
    if not scene.coordinator:
        return Stuck(f"Task '{task_id}' waits for a coordinator, and there is none", hint="restart_coordinator()")
    if found is None:
        return Stuck(f"Task '{task_id}' is not known here", hint="submit it first; submit() returns the id")
    if found.status in IN_FLIGHT:
        return _in_flight(found, scene)
    where = f"Task '{task_id}' is {found.status}"
    reason = _reason(found)
    if not scene.host:
        return Stuck(f"{where}, and the agents' host was ended{reason}", hint="restart_actors()")
    if found.status is TaskState.PENDING:
        return Stuck(f"{where}: it is held, or its time has not come{reason}", hint=_later(scene))
    return Stuck(f"{where} and nothing is under way that could move it{reason}", hint=_later(scene))


def _in_flight(found: TaskStatus, scene: Scene) -> Stuck:
    where = f"Task '{found.task_id}' is {found.status} to agent '{found.agent}' (attempt {found.attempts})"
    if not scene.host:
        return Stuck(f"{where}, and the agents' host was ended", hint="restart_actors()")
    why = "its handler waits for something that nobody here brings"
    return Stuck(f"{where}: {why}", hint=_later(scene))


def _reason(found: TaskStatus) -> str:
    """What the last decision said, if there was one."""
    for event in reversed(found.history):
        decision = plain(event.decision)
        if isinstance(decision, dict) and decision.get("reason"):
            return f": {decision['reason']}"
        if event.error is not None:
            return f": {event.error.message}"
    return ""


def _later(scene: Scene) -> str:
    if scene.next_s is None:
        return "nothing of it has a timer, so no wait is long enough"
    return f"the next thing that happens by itself comes in {scene.next_s:g} s: wait longer (timeout_s), or advance()"
