"""What follows when an attempt did not succeed: another one, a dead letter, or the end."""

from __future__ import annotations

import hashlib
from typing import Any

from schemas.task_row import TaskRow
from schemas.tasks import TaskError, TaskEventKind, TaskState
from streams.faults import fault
from streams.processor import Event
from streams.tasks.knowledge import Knowledge
from streams.tasks.rows import SECOND, finish, kept_errors, revoked, turn

_SPREAD = 2**64


def failed(know: Knowledge, row: TaskRow, event: Event, error: TaskError, *, took_away: bool) -> TaskRow:
    """The row after a failed attempt; `took_away` if the agent does not know yet that it is over."""
    failure = _failure(row, event, error)
    if not took_away:
        failure |= {"revoked_agent_id": None, "revoked_epoch": 0}
    if not error.retryable:
        return finish(row, event, TaskEventKind.FAILED, TaskState.FAILED, **(failure | {"errors": []}))
    policy = row.retry or know.retry
    retry = row.attempts - row.lost  # the number of the next retry, from 1
    if retry > policy.max_retries:
        return given_up(know, row, event, **failure)
    delay = policy.delay_seconds(retry, _spread(row))
    return turn(
        row, event, TaskEventKind.RETRY_SCHEDULED, TaskState.RETRYING,
        **failure,
        delay_seconds=delay,
        due_at=event.now + int(delay * SECOND),
        avoided_agent_id=row.agent_id,
    )  # fmt: skip


def timed_out(know: Knowledge, row: TaskRow, event: Event) -> TaskRow:
    """The attempt took too long, counted from its assignment."""
    seconds = (row.due_at - row.assigned_at) // SECOND
    error = fault("timeout", seconds).error(retryable=True, agent_id=row.agent_id, attempt=row.attempts)
    return failed(know, row, event, error, took_away=True)


def lost(know: Knowledge, row: TaskRow, event: Event) -> TaskRow:
    """The agent went away: the task keeps its place and its retries, but may not lose agents for ever."""
    count = row.lost + 1
    if count <= know.settings.error_recovery.max_lost:
        return turn(
            row, event, TaskEventKind.REQUEUED, TaskState.QUEUED,
            lost=count, due_at=0, queued_at=event.now, agent_id=None, started_at=0, **revoked(row),
        )  # fmt: skip
    error = fault("agent_lost", row.agent_id, count).error(agent_id=row.agent_id, attempt=row.attempts)
    return given_up(know, row, event, **(_failure(row, event, error) | {"lost": count}))


def given_up(know: Knowledge, row: TaskRow, event: Event, **changes: Any) -> TaskRow:
    """No retry is left: a dead letter where they are wanted, else just the end."""
    if know.settings.error_recovery.dead_letter:
        return finish(row, event, TaskEventKind.DEAD_LETTERED, TaskState.DEAD_LETTERED, **changes)
    return finish(row, event, TaskEventKind.FAILED, TaskState.FAILED, **(changes | {"errors": []}))


def broken(row: TaskRow, event: Event, cause: str) -> TaskRow:
    """A rule raised on one of the task's records: a dead letter, whatever the settings say."""
    told = fault("internal_error", event.position).error(agent_id=row.agent_id, attempt=row.attempts)
    error = TaskError(**(told.model_dump() | {"details": cause}))
    return finish(row, event, TaskEventKind.DEAD_LETTERED, TaskState.DEAD_LETTERED, **_failure(row, event, error))


def _failure(row: TaskRow, event: Event, error: TaskError) -> dict[str, Any]:
    return revoked(row) | {
        "error": error,
        "errors": kept_errors(row, error),
        "first_failed_at": row.first_failed_at or event.now,
    }


def _spread(row: TaskRow) -> float:
    """A number in 0..1 that looks random and is the same at every re-run."""
    digest = hashlib.sha256(f"{row.task_id}/{row.attempts}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / _SPREAD
