"""Give a task to an agent now, or say why it has to wait: the one place where assignments are made.

Every way into an assignment (submit, execute, due, delay over, a slot that came free) asks here, so all are decided and
explained alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from schemas.task_row import TaskRow
from schemas.tasks import TaskEventKind, TaskState
from streams.faults import Fault
from streams.processor import Event
from streams.routing.decision import Asked, decision_json, reason_chosen, reason_waiting
from streams.routing.directory import Agent, Pool
from streams.routing.eligibility import AT_CAPACITY, AVOIDED
from streams.routing.route import Ask, Route
from streams.routing.survey import Survey, survey
from streams.tasks.knowledge import Knowledge
from streams.tasks.rows import SECOND, turn

_BUSY = frozenset({AT_CAPACITY, AVOIDED})


class Placing(NamedTuple):
    """What came of it: an agent, or a route without a free agent, or no route (then `fault`)."""

    asked: Asked
    route: Route | None = None
    fault: Fault | None = None
    seen: Survey | None = None
    chosen: Agent | None = None
    ahead: int = 0

    @property
    def started(self) -> bool:
        """Whether some agent of the pool is up with its breaker closed, busy or not."""
        if self.seen is None:
            return False
        return self.seen.free > 0 or not _BUSY.isdisjoint(self.seen.excluded)


def place(know: Knowledge, row: TaskRow) -> Placing:
    """Look for an agent. A queued task may start while fewer wait before it than there are free slots."""
    ask = Ask(row.task_id, row.pattern, row.type, row.pinned_agent_id, tuple(row.required_capabilities))
    asked = Asked(ask, row.attempts + 1, row.priority, row.queued_at)
    route = know.router.route(ask)
    if isinstance(route, Fault):
        return Placing(asked, fault=route)
    load = know.load
    seen = survey(route.pool, route.candidates, load.counts, load.full, know.turns, row.avoided_agent_id)
    ahead = 0
    if route.pool in know.queues.pools:
        ahead = know.queues.ahead(route.pool, (row.created_at, row.task_id))
        if ahead and row.state is TaskState.QUEUED and seen.turn is not None:
            open_slots = slots(know, route.candidates)
            ahead = know.queues.ahead(route.pool, (row.created_at, row.task_id), open_slots)
            if ahead < open_slots:
                ahead = 0
    return Placing(asked, route, None, seen, None if ahead else seen.turn, ahead)


def slots(know: Knowledge, pool: Pool) -> int:
    """How many more tasks the agents of a pool may have."""
    counts = know.load.counts
    return sum(max(0, agent.limit - counts.get(agent_id, 0)) for agent_id, agent in pool.open.items())


def assigned(know: Knowledge, row: TaskRow, event: Event, placing: Placing) -> TaskRow:
    """The row with its assignment."""
    route, seen, agent = placing.route, placing.seen, placing.chosen
    assert route is not None and seen is not None and agent is not None
    timeout = row.timeout_seconds or agent.timeout_seconds or know.settings.tasks.timeout_seconds
    reason = reason_chosen(route, seen, agent, know.load.counts.get(agent.agent_id, 0))
    return turn(
        row, event, TaskEventKind.ASSIGNED, TaskState.ASSIGNED,
        agent_id=agent.agent_id,
        attempts=row.attempts + 1,
        epoch=row.epoch + 1,
        pool=route.pool,
        retry=row.retry or agent.retry or know.retry,
        held=False,
        avoided_agent_id=None,
        queued_at=0,
        grace_until=0,
        assigned_at=event.now,
        started_at=0,
        due_at=event.now + timeout * SECOND,
        decision=decision_json(event, placing.asked, route, seen, agent.agent_id, reason, know.version),
    )  # fmt: skip


def queued(know: Knowledge, row: TaskRow, event: Event, kind: TaskEventKind, placing: Placing) -> TaskRow:
    """The row as it waits. One that never had a route waits for the grace, and no longer."""
    changes: dict[str, Any] = {"due_at": 0, "grace_until": 0, "held": False, "agent_id": None}
    if placing.route is not None and placing.seen is not None:
        changes["pool"] = placing.route.pool
        reason = reason_waiting(placing.route, placing.seen, placing.ahead)
    else:
        reason = f"Waits: no route yet ({placing.fault.message if placing.fault else 'none'})."
        if row.pool is None:
            changes["grace_until"] = event.now + know.grace
    return turn(
        row, event, kind, TaskState.QUEUED,
        queued_at=row.queued_at or event.now,
        decision=decision_json(event, placing.asked, placing.route, placing.seen, None, reason, know.version),
        **changes,
    )  # fmt: skip
