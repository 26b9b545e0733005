"""What is said without a transition: refused, late, progress.

A note must make the same event again after a crash, when the row may have moved on. So it carries, in the few bytes
that a changelog header has for it, what of the row the event shows: `<state> <version> <code> <message>`, cut to size
before anything is made of it. All else is in the record, which is delivered again.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.task_row import TaskRow
from schemas.tasks import TaskEventKind, TaskState
from streams.faults import Fault
from streams.processor import NOTE_ERROR_BYTES, Event, Note

ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Said:
    """A note read back. state: None for a task that is not known; fault: why, where there is a why."""

    kind: TaskEventKind
    state: TaskState | None
    version: int
    fault: Fault | None


def note(kind: TaskEventKind, row: TaskRow | None, event: Event, fault: Fault | None = None) -> Note:
    """Say something of a task as it is now."""
    text = f"{row.state} {row.version}" if row is not None else f"{ABSENT} 0"
    if fault is not None:
        text = f"{text} {fault.code} {fault.message}"
    cut = text.encode()[:NOTE_ERROR_BYTES].decode(errors="ignore")
    return Note(kind, cut, event.stamp.time, event.stamp.seq)


def refused(row: TaskRow | None, event: Event, fault: Fault) -> Note:
    """Refuse a command."""
    return note(TaskEventKind.REFUSED, row, event, fault)


def read(made: Note) -> Said:
    """What a note says."""
    state, version, *why = made.error.split(" ", 3)
    return Said(
        kind=TaskEventKind(made.kind),
        state=None if state == ABSENT else TaskState(state),
        version=int(version),
        fault=Fault(why[0], why[1] if len(why) > 1 else "") if why else None,
    )
