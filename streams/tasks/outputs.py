"""What the world learns of a decision: made from the row and its record alone, so that it can be made again.

The order is fixed and numbers the ids: the event first, then the inbox of the agent that loses the task, the inbox of
the one that gets it, the outcome, its copy to the asker, and the dead letter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.base import Record
from schemas.inbox import AssignedTask, InboxKind, InboxRecord
from schemas.task_row import TaskRow
from schemas.tasks import (
    CommandKind,
    TaskCommand,
    TaskEvent,
    TaskEventKind,
    TaskReport,
    TaskResult,
    TaskState,
)
from schemas.topics import INBOX, REPLY_TO, TASK_EVENTS, TASK_RESULTS, Topic, inbox_name
from streams.deadletters import SOURCE, of_task
from streams.faults import Fault
from streams.processor import Event, Headers, Note, Output, filled
from streams.tasks.knowledge import Decode, Knowledge
from streams.tasks.notes import Said, read
from streams.tasks.reports import degraded
from streams.tasks.rows import SECOND, TRACE, evolve, trace_of

_ENDINGS = frozenset(
    {
        TaskEventKind.COMPLETED,
        TaskEventKind.FAILED,
        TaskEventKind.CANCELLED,
        TaskEventKind.EXPIRED,
        TaskEventKind.DEAD_LETTERED,
    }
)
_ENVELOPE = {"event_id": "", "occurred_at": 0, "source": SOURCE}
_EVENT = TaskEvent(event_id="", occurred_at=0, source=SOURCE, task_id="", version=0, cause="", decided_at=0)
_RESULT = TaskResult(
    event_id="", occurred_at=0, source=SOURCE, task_id="", version=0, cause="", created_at=0, completed_at=0
)
_ASSIGN = InboxRecord(event_id="", occurred_at=0, source=SOURCE, kind=InboxKind.ASSIGN)
_CANCEL = InboxRecord(event_id="", occurred_at=0, source=SOURCE, kind=InboxKind.CANCEL)
_TASK = AssignedTask(task_id="", attempt=0, epoch=0, deadline_at=0)


def of_row(know: Knowledge, row: TaskRow, event: Event) -> Iterator[Output]:
    """What follows from a transition."""
    trace = _trace(event) or trace_of(row)
    yield _output(TASK_EVENTS, row.task_id, _task_event(row, event), None, trace)
    n = 1
    if row.revoked_agent_id is not None:
        yield _cancel(row, event, n, trace)
        n += 1
    if row.event is TaskEventKind.ASSIGNED:
        yield _assign(know.decode, row, event, n, trace)
        n += 1
    if row.event in _ENDINGS:
        result = _result(row, event, n)
        yield _output(TASK_RESULTS, row.task_id, result, None, trace)
        if row.reply_to is not None:
            yield _reply(row.reply_to, row.reply_key, row.reply_partition, result, event, n + 1, trace)
        if row.event is TaskEventKind.DEAD_LETTERED:
            yield of_task(row, event, n + 2, trace)


def of_note(know: Knowledge, made: Note, event: Event) -> Iterator[Output]:
    """What follows from what was said without a transition."""
    said, record = read(made), event.record
    assert isinstance(record, TaskCommand | TaskReport)
    trace = _trace(event)
    yield Output(TASK_EVENTS, record.task_id, _note_event(made, said, record, event), headers=trace)
    if said.fault is not None and isinstance(record, TaskCommand) and know.may_reply(record.reply_to):
        refusal = _refusal(said, said.fault, record, event)
        partition = record.reply_partition if (record.reply_partition or 0) >= 0 else None
        yield _reply(record.reply_to or "", record.reply_key, partition, refusal, event, 2, trace)


def _output(topic: Topic, key: str, record: Record, name: str | None, headers: Headers) -> Output:
    return filled(Output, (topic, key, record, name, None, headers, None))


def _trace(event: Event) -> Headers:
    """The trace that a record belongs to; a timer's has none, and the task goes on under that of its request."""
    for header in event.headers:
        if header[0] == TRACE:
            return (header,)
    return ()


# --- events


def _head(event: Event, n: int, correlation_id: str) -> dict[str, Any]:
    return {
        "event_id": event.id(n),
        "occurred_at": event.now,
        "correlation_id": correlation_id,
        "causation_id": event.position,
    }


def _task_event(row: TaskRow, event: Event) -> TaskEvent:
    fields = {
        "event_id": event.id(0),
        "occurred_at": event.now,
        "correlation_id": row.correlation_id or row.task_id,
        "causation_id": event.position,
        "kind": row.event,
        "task_id": row.task_id,
        "version": row.version,
        "cause": row.cause,
        "from_state": row.from_state,
        "to_state": row.state,
        "decided_at": row.decided_at,
        "instance": row.instance,
        "seq": row.seq,
        "registry_at": row.registry_at,
        "attempt": row.attempts,
        "epoch": row.epoch,
        "agent_id": row.agent_id or row.revoked_agent_id,
        "decision": row.decision,
        "delay_seconds": row.delay_seconds,
        "error": row.error,
        "result_hash": row.result_hash,
    }
    if row.version == 1:
        fields["task"] = event.prepared.told
        fields["payload_hash"] = row.payload_hash
    return evolve(_EVENT, fields)


def _note_event(made: Note, said: Said, record: TaskCommand | TaskReport, event: Event) -> TaskEvent:
    fields = _head(event, 0, record.correlation_id or record.task_id) | {
        "kind": said.kind,
        "task_id": record.task_id,
        "version": said.version,
        "cause": event.position,
        "from_state": said.state,
        "to_state": said.state or TaskState.UNKNOWN,
        "decided_at": made.at,
        "seq": made.seq,
    }
    if said.fault is not None:
        fields["error"] = said.fault.error()
    if isinstance(record, TaskReport):
        fields |= {
            "attempt": record.attempt,
            "epoch": record.epoch,
            "agent_id": record.agent_id,
            "progress": record.progress,
            "note": record.note or (str(record.kind) if said.kind is TaskEventKind.LATE_REPORT else None),
        }
    elif record.kind is CommandKind.REDRIVE:
        fields["note"] = record.redriven_as
    return evolve(_EVENT, fields)


# --- inboxes


def _assign(decode: Decode, row: TaskRow, event: Event, n: int, trace: Headers) -> Output:
    """The assignment; a task that waited has its request in its row, one that did not in the record itself."""
    command = event.record if row.version == 1 else decode(row.request, row.position)
    assert isinstance(command, TaskCommand) and row.agent_id is not None
    policy = row.retry
    task = evolve(
        _TASK,
        {
            "task_id": row.task_id,
            "attempt": row.attempts,
            "epoch": row.epoch,
            "type": command.type,
            "pattern": command.pattern,
            "description": command.description,
            "payload": command.payload,
            "context": command.context,
            "metadata": command.metadata,
            "deadline_at": min(row.due_at, row.expires_at),
            "last_attempt": policy is not None and row.attempts - row.lost > policy.max_retries,
        },
    )
    record = evolve(_ASSIGN, {**_head(event, n, row.correlation_id or row.task_id), "task": task})
    return _output(INBOX, row.task_id, record, inbox_name(row.agent_id), trace)


def _cancel(row: TaskRow, event: Event, n: int, trace: Headers) -> Output:
    assert row.revoked_agent_id is not None
    reason = row.error.message if row.error is not None else str(row.event)
    record = evolve(
        _CANCEL,
        {
            **_head(event, n, row.correlation_id or row.task_id),
            "task_id": row.task_id,
            "epoch": row.revoked_epoch,
            "reason": reason,
        },
    )
    return Output(INBOX, row.task_id, record, name=inbox_name(row.revoked_agent_id), headers=trace)


# --- outcomes


def _result(row: TaskRow, event: Event, n: int) -> TaskResult:
    report = event.record if row.event is TaskEventKind.COMPLETED else None
    started = row.started_at or None
    fields = {
        "event_id": event.id(n),
        "occurred_at": event.now,
        "correlation_id": row.correlation_id or row.task_id,
        "causation_id": event.position,
        "task_id": row.task_id,
        "version": row.version,
        "cause": row.cause,
        "status": row.state,
        "pattern": row.pattern,
        "task_type": row.type,
        "agent_id": row.agent_id,
        "error": row.error,
        "attempts": row.attempts,
        "created_at": row.created_at,
        "started_at": started,
        "completed_at": row.completed_at,
        "execution_time": (row.completed_at - started) / SECOND if started else None,
        "parent_task_id": row.parent_task_id,
        "workflow_instance_id": row.workflow_instance_id,
        "conversation_id": row.conversation_id,
    }
    if isinstance(report, TaskReport):
        fields |= {"result": report.result, "usage": report.usage, "degraded": degraded(report.result)}
    return evolve(_RESULT, fields)


def _refusal(said: Said, why: Fault, command: TaskCommand, event: Event) -> TaskResult:
    """The answer to a refused command; no outcome."""
    return evolve(
        _RESULT,
        {
            **_head(event, 1, command.correlation_id or command.task_id),
            "task_id": command.task_id,
            "version": said.version,
            "cause": event.position,
            "status": TaskState.REFUSED,
            "pattern": command.pattern,
            "task_type": command.type,
            "error": why.error(),
            "created_at": event.now,
            "completed_at": event.now,
        },
    )


def _reply(
    topic: str, key: str | None, partition: int | None, result: TaskResult, event: Event, n: int, trace: Headers
) -> Output:
    """The copy for the asker; what a user's topic refuses becomes an event."""
    failed = evolve(
        _EVENT,
        {
            **_head(event, n, result.correlation_id or result.task_id),
            "kind": TaskEventKind.REPLY_FAILED,
            "task_id": result.task_id,
            "version": result.version,
            "cause": result.cause,
            "from_state": result.status,
            "to_state": result.status,
            "decided_at": event.now,
            "attempt": result.attempts,
            "agent_id": result.agent_id,
            "note": topic,
        },
    )
    return Output(
        REPLY_TO, key or result.task_id, result, name=topic, partition=partition, headers=trace,
        fallback=Output(TASK_EVENTS, result.task_id, failed, headers=trace),
    )  # fmt: skip
