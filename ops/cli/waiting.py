"""What `submit --wait` says while it waits: a command that is silent for a minute seems to hang, and its user asks why.

It says what `troupe explain` would, on stderr, and again only when that has changed.
"""

from __future__ import annotations

import time

from ops.cli.show import say
from ops.views.explain import explanation
from ops.views.tasks import TaskFold
from schemas.tasks import IN_FLIGHT

_LOOK_S = 0.2
"""Between two looks: the log may bring thousands of records a second, and few are of this task."""


class Saying:
    """Says what a task waits for when it has waited for `after_s` seconds, and then each time it is something else."""

    def __init__(self, task_id: str, after_s: float) -> None:
        self._task_id = task_id
        self._due = time.monotonic() + after_s
        self._told: object = None

    def __call__(self, fold: TaskFold | None) -> None:
        """fold: what is known of the task, None as long as its submit was not decided."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _LOOK_S
        found = fold.status() if fold is not None else None
        if found is not None and found.finished:
            return
        why = explanation(found).now if found is not None else "No coordinator has decided about it; see `troupe ps`."
        told: object = why
        if found is not None and found.status in IN_FLIGHT:
            told = found.agent, found.attempts  # that it is assigned and then started is one thing to wait for
        if told != self._told:
            self._told = told
            say(f"Task '{self._task_id}' has no outcome yet. {why}")
