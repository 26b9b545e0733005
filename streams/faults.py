"""Why a wish is refused or a task fails, with the texts of the specification in one table.

Clients match on the code and people read the text, so both are fixed here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.tasks import TaskError

TEXTS = {
    "unknown_pattern": "Unknown pattern '{}'",
    "agent_unavailable": "Agent '{}' is currently unavailable",
    "queue_full": "Queue is full",
    "rate_limited": "Rate limit exceeded for agent '{}'",
    "no_capable_agent": "No agent offers the capabilities {}",
    "no_route": "Task '{}' names no pattern, agent or capability",
    "agent_conflict": "Agent '{}' is already registered with another definition",
    "capability_missing": "Agent '{}' lacks the capabilities {}",
    "task_finished": "Task '{}' is already {}",
    "task_assigned": "Task '{}' is already assigned to agent '{}'",
    "not_redrivable": "Task '{}' cannot be redriven in state {}",
    "agent_not_found": "Agent '{}' not found",
    "task_not_found": "Task '{}' not found",
    "task_conflict": "Task '{}' already exists with another body",
    "invalid_request": "{}",
    "payload_too_large": "Payload of {} bytes exceeds {} bytes",
    "agent_error": "{}",
    "timeout": "Task timed out after {} s",
    "internal_error": "Internal error at record {}",
    "agent_lost": "Agent '{}' was lost {} times while running this task",
    "expired": "Task expired after {} s",
    "unsupported": "{}",
}
"""Text by code; the places are for ids, words and numbers."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A code of the product's list and its text."""

    code: str
    message: str

    def error(self, *, retryable: bool = False, agent_id: str | None = None, attempt: int = 0) -> TaskError:
        """The fault as the error of a task."""
        return TaskError(
            code=self.code, message=self.message, retryable=retryable, agent_id=agent_id, attempt=attempt
        )


def fault(code: str, *parts: object) -> Fault:
    """The fault of a code, its text filled in."""
    return Fault(code, TEXTS[code].format(*parts))
