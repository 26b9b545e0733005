"""What agents say of their attempts, and which of it still counts.

The epoch of the assignment is the fence: started, progress and failed count for the current one only, a completion for
any that was ever issued, because work that is done is done.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from schemas.canonical import is_object
from schemas.errors import InvalidInput
from schemas.task_row import TaskRow
from schemas.tasks import IN_FLIGHT, ReportKind, TaskError, TaskEventKind, TaskReport, TaskState
from streams.processor import Change, Event, Note
from streams.tasks.failures import failed
from streams.tasks.knowledge import Knowledge
from streams.tasks.notes import note
from streams.tasks.rows import evolve, finish, turn

Decision = Change[TaskRow] | Note | None

_COMPLETABLE = IN_FLIGHT | {TaskState.QUEUED, TaskState.RETRYING}
_CALLBACKS = {
    ReportKind.CALLBACK_SENT: TaskEventKind.CALLBACK_SENT,
    ReportKind.CALLBACK_FAILED: TaskEventKind.CALLBACK_FAILED,
}


def report(know: Knowledge, row: TaskRow | None, event: Event, told: TaskReport) -> Decision:
    """Take a report at its word, or note that it came too late."""
    if told.kind in _CALLBACKS:
        return note(_CALLBACKS[told.kind], row, event)
    if row is None:
        return note(TaskEventKind.LATE_REPORT, None, event)
    if told.kind is ReportKind.COMPLETED:
        if row.state in _COMPLETABLE and 1 <= told.epoch <= row.epoch:
            wrong = _wrong_result(told.result)
            if wrong is None:
                return Change(_completed(row, event, told))
            if _is_current(row, told):
                error = TaskError(code="agent_error", message=wrong, agent_id=told.agent_id, attempt=told.attempt)
                return Change(failed(know, row, event, error, took_away=False))
    elif _is_current(row, told):
        if told.kind is ReportKind.FAILED:
            return Change(failed(know, row, event, _error(told), took_away=False))
        if told.kind is ReportKind.PROGRESS:
            return note(TaskEventKind.PROGRESS, row, event)
        if told.kind is ReportKind.STARTED:
            if row.state is TaskState.RUNNING:
                return None
            return Change(turn(row, event, TaskEventKind.STARTED, TaskState.RUNNING, started_at=event.now))
    return note(TaskEventKind.LATE_REPORT, row, event)


def _is_current(row: TaskRow, told: TaskReport) -> bool:
    return row.state in IN_FLIGHT and told.epoch == row.epoch


def _completed(row: TaskRow, event: Event, told: TaskReport) -> TaskRow:
    changes: dict[str, Any] = {
        "agent_id": told.agent_id,
        "result_hash": hashlib.sha256((told.result or "null").encode()).hexdigest(),
        # When an earlier attempt wins, the start that the row knows is not that of the winner.
        "started_at": (row.started_at or row.assigned_at) if told.epoch == row.epoch else 0,
    }
    if _is_current(row, told):
        changes |= {"revoked_agent_id": None, "revoked_epoch": 0}
    return finish(row, event, TaskEventKind.COMPLETED, TaskState.COMPLETED, **changes)


def _wrong_result(result: str | None) -> str | None:
    """What is wrong with a result, in words: it must be a JSON object."""
    if result is None:
        return None
    try:
        return None if is_object(result) else "result: must be a JSON object"
    except InvalidInput as error:
        return str(error)


def degraded(result: str | None) -> bool:
    """Whether a result says that it was made without the outside service it needs."""
    return result is not None and '"degraded"' in result and json.loads(result).get("degraded") is True


def _error(told: TaskReport) -> TaskError:
    """The agent's error, with the agent and the attempt it belongs to."""
    if told.error is None:
        return TaskError(
            code="agent_error", message="The agent gave no reason", retryable=True,
            agent_id=told.agent_id, attempt=told.attempt,
        )  # fmt: skip
    return evolve(told.error, {"agent_id": told.agent_id, "attempt": told.attempt})
