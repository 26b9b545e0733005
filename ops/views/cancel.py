"""What came of the wish to cancel a task, told from the one event that it led to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from schemas.tasks import TaskEvent, TaskEventKind


class CancelOutcome(StrEnum):
    """What came of it; the first two mean that the task is cancelled."""

    CANCELLED = "cancelled"
    ALREADY_CANCELLED = "already_cancelled"
    ALREADY_FINISHED = "already_finished"
    NOT_FOUND = "not_found"
    REFUSED = "refused"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The answer to a cancel. agent: who had the task until then; message: what happened, in one sentence."""

    task_id: str
    outcome: CancelOutcome
    message: str
    agent: str | None = None

    @property
    def done(self) -> bool:
        """Whether the task is cancelled now."""
        return self.outcome in (CancelOutcome.CANCELLED, CancelOutcome.ALREADY_CANCELLED)

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {"task_id": self.task_id, "outcome": str(self.outcome), "message": self.message, "agent": self.agent}


_REFUSALS = {"task_not_found": CancelOutcome.NOT_FOUND, "task_finished": CancelOutcome.ALREADY_FINISHED}


def cancelled(task_id: str, decided: bool, answer: TaskEvent | None) -> Cancelled:
    """The answer. decided: whether the coordinator has read the wish; answer: the event that it led to, if any.

    A wish that was read and led to no event was for a task that is cancelled already.
    """
    if not decided:
        return Cancelled(task_id, CancelOutcome.UNDECIDED, "No coordinator has decided it yet; it will when one runs.")
    if answer is None:
        return Cancelled(task_id, CancelOutcome.ALREADY_CANCELLED, f"Task '{task_id}' was cancelled before.")
    if answer.kind is TaskEventKind.CANCELLED:
        agent = answer.agent_id
        had = f" It was taken from {agent}, whose report no longer counts." if agent else ""
        return Cancelled(task_id, CancelOutcome.CANCELLED, f"Task '{task_id}' is cancelled.{had}", agent)
    outcome = _REFUSALS.get(answer.error.code, CancelOutcome.REFUSED) if answer.error else CancelOutcome.REFUSED
    return Cancelled(task_id, outcome, f"{answer.error.message}." if answer.error else f"It was {answer.kind}.")
