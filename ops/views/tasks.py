"""What became of a task, folded from its events and its result.

Readers of a log that can repeat itself follow three rules. A record whose `event_id` was seen is the same fact again.
Of two versions the higher one is newer, whatever came last. And an id that is used again after its task was forgotten
begins a new task; the old one's history is then not this one's. A wish about a task that never was is refused, and that
makes no task of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from schemas.base import Json, Micros, Record
from schemas.tasks import TERMINAL, RoutingDecision, TaskError, TaskEvent, TaskEventKind, TaskResult, TaskState

NOTES = frozenset(
    {
        TaskEventKind.REFUSED,
        TaskEventKind.REASSIGNED,
        TaskEventKind.PROGRESS,
        TaskEventKind.LATE_REPORT,
        TaskEventKind.REPLY_FAILED,
        TaskEventKind.REDRIVEN,
        TaskEventKind.DISCARDED,
        TaskEventKind.CALLBACK_SENT,
        TaskEventKind.CALLBACK_FAILED,
        TaskEventKind.UNKNOWN,
    }
)
"""Kinds of events that are no transition."""


class TaskStatus(Record):
    """A task as its events tell it; `result` is its JSON text, `history` oldest first."""

    task_id: str
    status: TaskState
    agent: str | None = None
    attempts: int = 0
    result: Json | None = None
    error: TaskError | None = None
    history: list[TaskEvent] = []

    @property
    def completed(self) -> bool:
        """Whether it ended well."""
        return self.status is TaskState.COMPLETED

    @property
    def finished(self) -> bool:
        """Whether nothing more will become of it."""
        return self.status in TERMINAL or self.status is TaskState.REFUSED

    def document(self) -> dict[str, Any]:
        """The JSON form, with results, errors and decisions as JSON values and instants as ISO 8601."""
        return {
            "task_id": self.task_id,
            "status": str(self.status),
            "agent": self.agent,
            "attempts": self.attempts,
            "result": plain(self.result),
            "error": error_document(self.error),
            "history": [_event_document(event) for event in self.history],
        }


class TaskFold:
    """Collects the events and results of one task, in any order and with repeats.

    position: `<topic>.<partition>.<offset>` of the submit that is asked about, if it is known: should just this one be
    refused, that is its answer, even if a task of its id exists.
    """

    def __init__(self, task_id: str, position: str | None = None) -> None:
        self.task_id = task_id
        self._position = position
        self._seen: set[str] = set()
        self._events: list[TaskEvent] = []
        self._results: dict[int, TaskResult] = {}
        self.read_to: Mapping[Any, int] = {}
        """Up to where whoever fills it has read, by partition."""

    def add_event(self, event: TaskEvent) -> None:
        """Take an event in."""
        if event.event_id in self._seen:
            return
        self._seen.add(event.event_id)
        if event.version == 1 and event.kind not in NOTES and self._ended():
            self._events.clear()
            self._results.clear()
        self._events.append(event)

    def add_result(self, result: TaskResult) -> None:
        """Take an outcome in."""
        self._results[result.version] = result

    def status(self) -> TaskStatus | None:
        """What is known now, None if there is no such task: `refusals` has what was wished of it nevertheless."""
        history = sorted(self._events, key=lambda event: event.version)  # stable: as they came within a version
        moves = [event for event in history if event.kind not in NOTES]
        refusals = self.refusals()
        own = [event for event in refusals if event.cause == self._position]
        if not own and all(event.error is not None and event.error.code == "task_not_found" for event in history):
            return None
        if own or not moves:
            last = (own or refusals or history)[-1]
            state = TaskState.REFUSED if last.kind is TaskEventKind.REFUSED else last.to_state
            return TaskStatus(task_id=self.task_id, status=state, error=last.error, history=history)
        last = moves[-1]
        result = self._results.get(last.version)
        agents = [event.agent_id for event in moves if event.agent_id]
        return TaskStatus(
            task_id=self.task_id,
            status=last.to_state,
            agent=agents[-1] if agents else None,
            attempts=max(event.attempt for event in moves),
            result=result.result if result else None,
            error=last.error or (result.error if result else None),
            history=history,
        )

    def refusals(self) -> list[TaskEvent]:
        """The refusals of commands, as they came; there may be some of a task that never was."""
        return [event for event in self._events if event.kind is TaskEventKind.REFUSED]

    def decided(self) -> bool:
        """Whether an event shows that the submit asked about was decided; a repeat of it makes none."""
        return self.answer() is not None

    def answer(self) -> TaskEvent | None:
        """The event that the command asked about led to, None if it has led to none."""
        return next((event for event in self._events if event.cause == self._position), None)

    def unseen(self, shown: set[str]) -> list[TaskEvent]:
        """The events that are not among the shown ones, in the order of their versions; they are noted as shown."""
        found = self.status()
        new = [event for event in found.history if event.event_id not in shown] if found is not None else []
        shown.update(event.event_id for event in new)
        return new

    def finished(self) -> bool:
        """Whether nothing more will become of it."""
        found = self.status()
        return found is not None and found.finished

    def answered(self) -> bool:
        """Whether it is finished and its outcome, where it has one, is here too."""
        found = self.status()
        if found is None or not found.finished:
            return False
        return found.status is TaskState.REFUSED or found.history[-1].version in self._results

    def _ended(self) -> bool:
        found = self.status()
        return found is not None and found.status in TERMINAL


def plain(text: Json | None) -> Any:
    """The value of JSON text; text that is no JSON stays as it is."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def decision_document(event: TaskEvent) -> Any:
    """The JSON form of an event's decision, with the fields that its text leaves out as they are at their default.

    What a newer version says beyond that is left out. A text that leaves out more than defaults is shown as it is.
    """
    if event.decision is None:
        return None
    try:
        return RoutingDecision.model_validate_json(event.decision, extra="ignore").model_dump(mode="json")
    except ValidationError:
        return plain(event.decision)


def instant(at: Micros) -> str:
    """An instant as ISO 8601 in UTC with microseconds."""
    moment = datetime.fromtimestamp(at // 1_000_000, UTC).replace(microsecond=at % 1_000_000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def error_document(error: TaskError | None) -> dict[str, Any] | None:
    """The JSON form of an error."""
    return None if error is None else error.model_dump() | {"details": plain(error.details)}


def _event_document(event: TaskEvent) -> dict[str, Any]:
    return {
        "at": instant(event.decided_at),
        "kind": str(event.kind),
        "from_state": None if event.from_state is None else str(event.from_state),
        "to_state": str(event.to_state),
        "attempt": event.attempt,
        "agent": event.agent_id,
        "error": error_document(event.error),
        "decision": decision_document(event),
    }
