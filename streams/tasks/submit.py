"""A new task, or the repeat of one."""

from __future__ import annotations

from schemas.headers import pack_headers
from schemas.task_row import TaskRow
from schemas.tasks import Admission, TaskCommand, TaskEventKind, TaskState
from streams.faults import Fault, fault
from streams.processor import Change, Event, Note
from streams.routing.directory import pool_key
from streams.routing.route import rule_of
from streams.tasks.admission import admit
from streams.tasks.body import Body
from streams.tasks.knowledge import PRIORITY, Knowledge
from streams.tasks.notes import refused
from streams.tasks.rows import BLANK, SECOND, evolve, finish, turn

Decision = Change[TaskRow] | Note | None


def submit(know: Knowledge, row: TaskRow | None, event: Event, command: TaskCommand) -> Decision:
    """Take a task in, recognise it, or refuse it."""
    body: Body = event.prepared
    if row is not None:
        return None if row.body_hash == body.body_hash else refused(row, event, fault("task_conflict", row.task_id))
    admission = command.admission or Admission.WAIT
    new = _new_row(know, event, command, body)
    result: TaskRow | Fault
    wrong = body.fault or _reply_fault(know, command)
    if wrong is not None:
        result = wrong
    elif command.hold or new.due_at > event.now:
        return Change(turn(new, event, TaskEventKind.ACCEPTED, TaskState.PENDING, pool=_pinned_pool(know, new)))
    else:
        result = admit(know, new, event, TaskEventKind.ACCEPTED, admission)
    if not isinstance(result, Fault):
        return Change(result)
    if admission is Admission.REJECT:
        return refused(None, event, result)
    return Change(finish(new, event, TaskEventKind.FAILED, TaskState.FAILED, error=result.error()))


def _reply_fault(know: Knowledge, command: TaskCommand) -> Fault | None:
    if command.reply_to is None or know.may_reply(command.reply_to):
        return None
    allowed = ", ".join(know.settings.kafka.reply_topics)
    return fault("invalid_request", f"reply_to: topic '{command.reply_to}' is not among kafka.reply_topics ({allowed})")


def _pinned_pool(know: Knowledge, row: TaskRow) -> str | None:
    """The pool of a task that names an agent we know; so it is noticed when that agent is unregistered."""
    if row.pinned_agent_id is None or know.directory.get(row.pinned_agent_id) is None:
        return None
    return pool_key("agent", row.pinned_agent_id, tuple(row.required_capabilities))


def _new_row(know: Knowledge, event: Event, command: TaskCommand, body: Body) -> TaskRow:
    """The row before its first transition."""
    rule = rule_of(command.pattern, command.type, command.agent_id, know.router.rules)
    priority = command.priority or (rule.priority if rule is not None else PRIORITY)
    partition = command.reply_partition
    ttl = (command.ttl_seconds or know.settings.tasks.ttl_seconds) if body.fault is None else 0
    return evolve(
        BLANK,
        {
            "task_id": command.task_id,
            "position": event.position,
            "body_hash": body.body_hash,
            "payload_hash": body.payload_hash,
            "request": event.value,
            "headers": pack_headers(event.headers),
            "pattern": command.pattern,
            "type": command.type,
            "required_capabilities": sorted(set(command.required_capabilities)),
            "correlation_id": command.correlation_id,
            "admission": command.admission or Admission.WAIT,
            "reply_to": command.reply_to if know.may_reply(command.reply_to) else None,
            "reply_key": command.reply_key,
            "reply_partition": partition if partition is not None and partition >= 0 else None,
            "parent_task_id": command.parent_task_id,
            "workflow_instance_id": command.workflow_instance_id,
            "conversation_id": command.conversation_id,
            "pinned_agent_id": command.agent_id,
            "priority": priority,
            "timeout_seconds": command.timeout_seconds or (rule.timeout if rule is not None else None) or 0,
            "retry": command.retry,
            "held": command.hold,
            "created_at": event.now,
            "expires_at": event.now + ttl * SECOND,
            "due_at": 0 if command.hold or command.not_before is None else command.not_before,
        },
    )
