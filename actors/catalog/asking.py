"""How an agent has tasks done by others, as far as it needs to know: it asks, and is told what became of each.

Agents know nothing of Kafka and of whoever submits to it. So the host hands them this function, or does not: in a host
that has no system behind it an agent can say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Wish:
    """One task: `task_id` makes a repeat of it harmless, `pattern` says who is to do it, `payload` is a JSON value."""

    task_id: str
    pattern: str
    payload: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a task. status: a state of tasks, or `refused`; code, message: of its error."""

    status: str
    code: str = ""
    message: str = ""

    @property
    def completed(self) -> bool:
        return self.status == "completed"


class Ask(Protocol):
    """Submits all, without retries, and waits for the outcomes; None for a task that has none after `seconds`.

    Called from a handler's thread. parent: the task on whose behalf it happens.
    """

    def __call__(self, wishes: Sequence[Wish], parent: str, seconds: float) -> Sequence[Answer | None]: ...
