"""What a row does when it is woken: because its time has come, a slot came free, or its agent went away.

A wake says only "look again"; what is due is read from the row, so a wake too many does no harm.
"""

from __future__ import annotations

from schemas.changelog import WakeRecord
from schemas.task_row import TaskRow
from schemas.tasks import IN_FLIGHT, TERMINAL, TaskEventKind, TaskState
from streams.faults import Fault, fault
from streams.processor import Change, Event
from streams.tasks.admission import admit
from streams.tasks.dispatch import assigned, place, queued
from streams.tasks.failures import lost, timed_out
from streams.tasks.knowledge import Knowledge
from streams.tasks.rows import SECOND, finish


def woken(know: Knowledge, row: TaskRow, event: Event) -> Change[TaskRow] | None:
    """The transition that is due, or None."""
    if row.state in TERMINAL:
        return None
    now = _time_of(event)
    if now >= row.expires_at:
        seconds = (row.expires_at - row.created_at) // SECOND
        error = fault("expired", seconds).error(agent_id=row.agent_id, attempt=row.attempts)
        return Change(finish(row, event, TaskEventKind.EXPIRED, TaskState.FAILED, error=error))
    if row.state in IN_FLIGHT:
        return _in_flight(know, row, event, now)
    if row.state is TaskState.QUEUED:
        return _queued(know, row, event, now)
    if 0 < row.due_at <= now:
        return _pending(know, row, event) if row.state is TaskState.PENDING else _retrying(know, row, event)
    return _orphan(know, row, event)


def _time_of(event: Event) -> int:
    """The time by which timers are judged: none for a row that was only asked whether it could move.

    Such a question comes while inputs are still unread, and among them may be the report that the timer waits for.
    """
    record = event.record
    return event.now if not isinstance(record, WakeRecord) or record.due else 0


def _in_flight(know: Knowledge, row: TaskRow, event: Event, now: int) -> Change[TaskRow] | None:
    if now >= row.due_at:
        return Change(timed_out(know, row, event))
    if row.agent_id is None or know.directory.up(row.agent_id):
        return None
    agent = know.directory.get(row.agent_id)
    if agent is not None and event.now < agent.updated_at:
        return None  # asked before it went, perhaps because it had gone once before: what it said since may be unread
    return _orphan(know, row, event) or Change(lost(know, row, event))


def _orphan(know: Knowledge, row: TaskRow, event: Event) -> Change[TaskRow] | None:
    """A task pinned to an agent that was unregistered cannot be done by another.

    Without a pool the agent was never known, which is a matter of the grace.
    """
    if row.pinned_agent_id is None or row.pool is None or know.directory.get(row.pinned_agent_id) is not None:
        return None
    error = fault("agent_not_found", row.pinned_agent_id).error(agent_id=row.agent_id, attempt=row.attempts)
    return Change(finish(row, event, TaskEventKind.FAILED, TaskState.FAILED, error=error))


def _queued(know: Knowledge, row: TaskRow, event: Event, now: int) -> Change[TaskRow] | None:
    orphan = _orphan(know, row, event)
    if orphan is not None:
        return orphan
    placing = place(know, row)
    if placing.chosen is not None:
        return Change(assigned(know, row, event, placing))
    if row.pool is not None:
        return None
    if placing.route is not None:
        # It has a route at last and waits in its pool's queue from now on.
        return Change(queued(know, row, event, TaskEventKind.QUEUED, placing))
    if placing.fault is not None and now >= row.grace_until:
        return Change(finish(row, event, TaskEventKind.FAILED, TaskState.FAILED, error=placing.fault.error()))
    return None


def _pending(know: Knowledge, row: TaskRow, event: Event) -> Change[TaskRow]:
    """`not_before` is over. The task was accepted, so what would refuse a new one gives it an outcome."""
    result = admit(know, row, event, TaskEventKind.QUEUED, row.admission)
    if isinstance(result, Fault):
        return Change(finish(row, event, TaskEventKind.FAILED, TaskState.FAILED, error=result.error()))
    return Change(result)


def _retrying(know: Knowledge, row: TaskRow, event: Event) -> Change[TaskRow]:
    """The delay is over. A retry is never refused for the size of the queue."""
    orphan = _orphan(know, row, event)
    if orphan is not None:
        return orphan
    placing = place(know, row)
    if placing.chosen is not None:
        return Change(assigned(know, row, event, placing))
    return Change(queued(know, row, event, TaskEventKind.QUEUED, placing))
