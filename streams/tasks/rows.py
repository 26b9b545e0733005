"""How a row moves: each transition is made here, so none forgets its version, its cause or who decided it.

Rows are validated when they are decoded and their fields come from records that were; so a transition copies the fields
and does not validate them once more (7 us for a row of this size). The tests put every row made here through the model.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

from schemas.base import Micros
from schemas.headers import Headers, pack_headers, unpack_headers
from schemas.task_row import TaskRow
from schemas.tasks import IN_FLIGHT, TERMINAL, TaskError, TaskEventKind, TaskState
from streams.processor import Event

M = TypeVar("M", bound=BaseModel)

SECOND = 1_000_000
TRACE = "traceparent"
_TRACE_BYTES = TRACE.encode()
KEPT_ERRORS = 10
_ERROR_CHARACTERS = 500

BLANK = TaskRow(
    version=0, cause="", task_id="", decided_at=0, instance="", seq=0, registry_at="{}", position="", body_hash="",
    payload_hash="", created_at=0, updated_at=0, expires_at=0,
)  # fmt: skip
"""What is before the first transition."""


# A pydantic model is these four slots. Their own setters pass over the guard of a frozen model, and a search by name.
_new = object.__new__
_set_fields, _set_given, _set_extra, _set_private = (
    BaseModel.__dict__[slot].__set__
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)


def evolve(record: M, changes: dict[str, Any]) -> M:
    """A copy with other values, which must be of the fields' types; `model_copy` at a quarter of its cost."""
    made = _new(record.__class__)
    _set_fields(made, record.__dict__ | changes)
    _set_given(made, record.__pydantic_fields_set__)
    _set_extra(made, None)
    _set_private(made, None)
    return made


def turn(row: TaskRow, event: Event, kind: TaskEventKind, state: TaskState, **changes: Any) -> TaskRow:
    """The row after a transition. What belonged to the transition before (decision, error, delay) is gone."""
    stamp = event.stamp
    fields: dict[str, Any] = {
        "version": row.version + 1,
        "cause": event.position,
        "event": kind,
        "from_state": row.state if row.version else None,
        "state": state,
        "decided_at": stamp.time,
        "instance": stamp.instance,
        "seq": stamp.seq,
        "registry_at": stamp.views,
        "updated_at": event.now,
        "decision": None,
        "delay_seconds": None,
        "error": None,
        "revoked_agent_id": None,
        "revoked_epoch": 0,
    }
    fields |= changes
    return evolve(row, fields)


def finish(row: TaskRow, event: Event, kind: TaskEventKind, state: TaskState, **changes: Any) -> TaskRow:
    """The row after its last transition.

    The request leaves it, unless a dead letter is to be made of it: that must be possible again after a crash. What is
    still in some agent's hands is taken away.
    """
    fields: dict[str, Any] = {"completed_at": event.now, "due_at": 0, "grace_until": 0, "queued_at": 0, "held": False}
    if state is not TaskState.DEAD_LETTERED:
        fields |= {
            "request": b"",
            "headers": pack_headers(trace) if (trace := trace_of(row)) else b"",
            "required_capabilities": [],
            "errors": [],
        }
    return turn(row, event, kind, state, **(fields | revoked(row) | changes))


def revoked(row: TaskRow) -> dict[str, Any]:
    """The assignment that a transition takes away, if the row has one."""
    if row.state in IN_FLIGHT:
        return {"revoked_agent_id": row.agent_id, "revoked_epoch": row.epoch}
    return {}


def kept_errors(row: TaskRow, error: TaskError) -> list[TaskError]:
    """The last few errors with this one, short enough for a row."""
    short = evolve(error, {"message": error.message[:_ERROR_CHARACTERS], "details": "{}"})
    return [*row.errors[1 - KEPT_ERRORS :], short]


def due_at(row: TaskRow) -> Micros | None:
    """When the row wants to be woken: attempt deadline, delay or `not_before` over, grace over, or life over."""
    if row.state in TERMINAL:
        return None
    due = row.expires_at
    if 0 < row.due_at < due:
        due = row.due_at
    if 0 < row.grace_until < due:
        due = row.grace_until
    return due


def trace_of(row: TaskRow) -> Headers:
    """The trace header among the request's."""
    if _TRACE_BYTES not in row.headers:
        return ()
    return tuple(pair for pair in unpack_headers(row.headers) if pair[0] == TRACE)
