"""What users wish of a task that exists: execute, assign, cancel, and the marks of its dead letter."""

from __future__ import annotations

from collections.abc import Callable

from schemas.task_row import TaskRow
from schemas.tasks import IN_FLIGHT, TERMINAL, Admission, CommandKind, TaskCommand, TaskEventKind, TaskState
from streams.faults import Fault, fault
from streams.processor import Change, Event, Note
from streams.routing.directory import pool_key
from streams.tasks.admission import admit
from streams.tasks.knowledge import Knowledge
from streams.tasks.notes import note, refused
from streams.tasks.rows import finish, turn
from streams.tasks.submit import submit

Decision = Change[TaskRow] | Note | None


def command(know: Knowledge, row: TaskRow | None, event: Event, wish: TaskCommand) -> Decision:
    """Do what is wished, or refuse it."""
    if wish.kind is CommandKind.SUBMIT:
        return submit(know, row, event, wish)
    if wish.kind in (CommandKind.REDRIVE, CommandKind.DISCARD):
        return _mark(row, event, wish)
    handle = _HANDLERS.get(wish.kind)
    if handle is None:
        return refused(row, event, fault("unsupported", "This command is not known to this version"))
    if row is None:
        return refused(None, event, fault("task_not_found", wish.task_id))
    return handle(know, row, event, wish)


def _execute(know: Knowledge, row: TaskRow, event: Event, wish: TaskCommand) -> Decision:
    if row.state in TERMINAL and row.state is not TaskState.COMPLETED:
        return refused(row, event, fault("task_finished", row.task_id, row.state))
    if row.state is not TaskState.PENDING:
        return None
    result = admit(know, row, event, TaskEventKind.QUEUED, row.admission)
    if not isinstance(result, Fault):
        return Change(result)
    if row.admission is Admission.REJECT:
        return refused(row, event, result)
    return Change(finish(row, event, TaskEventKind.FAILED, TaskState.FAILED, error=result.error()))


def _assign(know: Knowledge, row: TaskRow, event: Event, wish: TaskCommand) -> Decision:
    if row.state in TERMINAL:
        return refused(row, event, fault("task_finished", row.task_id, row.state))
    if wish.agent_id is None:
        return refused(row, event, fault("invalid_request", "agent_id: missing"))
    if row.state in IN_FLIGHT:
        if row.agent_id == wish.agent_id:
            return None
        return refused(row, event, fault("task_assigned", row.task_id, row.agent_id))
    agent = know.directory.get(wish.agent_id)
    if agent is None:
        return refused(row, event, fault("agent_not_found", wish.agent_id))
    lacking = sorted(set(row.required_capabilities) - agent.capabilities)
    if lacking:
        return refused(row, event, fault("capability_missing", wish.agent_id, ", ".join(lacking)))
    pool = pool_key("agent", wish.agent_id, tuple(row.required_capabilities))
    return Change(
        turn(
            row, event, TaskEventKind.REASSIGNED, row.state,
            pinned_agent_id=wish.agent_id,
            pool=pool,
            grace_until=0,
        )
    )  # fmt: skip


def _cancel(know: Knowledge, row: TaskRow, event: Event, wish: TaskCommand) -> Decision:
    if row.state is TaskState.CANCELLED:
        return None
    if row.state in TERMINAL:
        return refused(row, event, fault("task_finished", row.task_id, row.state))
    return Change(finish(row, event, TaskEventKind.CANCELLED, TaskState.CANCELLED))


def _mark(row: TaskRow | None, event: Event, wish: TaskCommand) -> Decision:
    """A dead letter was redriven or discarded: its task stays as it is, and a row still held shows the new id."""
    redriven = wish.kind is CommandKind.REDRIVE
    kind = TaskEventKind.REDRIVEN if redriven else TaskEventKind.DISCARDED
    if row is None:
        return note(kind, None, event)
    if row.state is not TaskState.DEAD_LETTERED:
        return refused(row, event, fault("not_redrivable", row.task_id, row.state))
    if not redriven:
        return note(kind, row, event)
    return Change(turn(row, event, kind, row.state, redriven_as=wish.redriven_as, error=row.error))


_HANDLERS: dict[CommandKind, Callable[[Knowledge, TaskRow, Event, TaskCommand], Decision]] = {
    CommandKind.EXECUTE: _execute,
    CommandKind.ASSIGN: _assign,
    CommandKind.CANCEL: _cancel,
}
