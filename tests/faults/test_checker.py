"""The judge is judged: what is planted must be found, and a sound history must pass. No broker needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.base import Record
from schemas.settings import Settings
from schemas.task_row import TaskRow
from schemas.tasks import TaskEvent, TaskEventKind, TaskResult, TaskState
from tests.faults.checker import Checker, Fold, Found
from tests.faults.submitter import Entry
from tests.streams.runtime.tally import codecs

ASSIGNED, COMPLETED = TaskEventKind.ASSIGNED, TaskEventKind.COMPLETED


def found(record: Record, topic: str = "tasks.events") -> Found:
    return Found(topic, 0, 0, b"t", record.model_dump_json().encode(), 0, record)


def event(version: int, kind: TaskEventKind, before: TaskState | None, after: TaskState, **more: Any) -> Found:
    fields = {"event_id": f"e{version}", "occurred_at": 1, "source": "c", "task_id": "t", "cause": "c", "decided_at": 1}
    return found(TaskEvent(version=version, kind=kind, from_state=before, to_state=after, **fields | more))


def result(**more: Any) -> Found:
    fields = {"event_id": "r", "occurred_at": 1, "source": "c", "task_id": "t", "version": 2, "cause": "c"}
    fields |= {"status": TaskState.COMPLETED, "created_at": 1, "completed_at": 2}
    return found(TaskResult(**fields | more), "tasks.results")


def sound() -> list[Found]:
    return [
        event(1, ASSIGNED, None, TaskState.ASSIGNED),
        event(2, COMPLETED, TaskState.ASSIGNED, TaskState.COMPLETED),
    ]


def judged(events: list[Found], results: list[Found]) -> set[str]:
    """Names of the violations of a history of the task `t`, which was submitted and acked."""
    checker = Checker(Settings(data_dir=Path("none")), codecs(), [Entry(1, "t", "task", b"v", "tasks.requests.0.0")])
    checker.events, checker.results, checker.letters = events, results, []
    checker._outcomes()
    checker._versions()
    checker._ids([*events, *results])
    checker._dead_letters()
    checker._refusals()
    return {name for name, what in checker._bad.items() if what}


def test_a_sound_history_passes_also_with_repeats() -> None:
    assert judged(sound(), [result()]) == set()
    assert judged(sound() * 2, [result(), result()]) == set()


@pytest.mark.parametrize(
    ("plant", "violation"),
    [
        (lambda: (sound(), []), "I1 missing outcome"),
        (lambda: (sound()[:1], [result()]), "I1 open at the end"),
        (lambda: (sound(), [result(), result(completed_at=3)]), "I2 two outcomes"),
        (lambda: (sound(), [result(), result(completed_at=3)]), "I2 one id, two records"),
        (lambda: (sound(), [result(), result(task_id="u")]), "I2 outcome of nothing submitted"),
        (lambda: (sound()[1:], [result()]), "I3 version gap"),
        (lambda: ([*sound(), event(2, COMPLETED, None, TaskState.FAILED)], [result()]), "I3 one version, two events"),
        (
            lambda: ([*sound(), event(3, ASSIGNED, TaskState.COMPLETED, TaskState.ASSIGNED)], [result()]),
            "I3 left a terminal state",
        ),
        (
            lambda: ([sound()[0], event(2, COMPLETED, TaskState.RUNNING, TaskState.COMPLETED)], [result()]),
            "I3 broken chain",
        ),
        (lambda: (sound(), [result(status=TaskState.DEAD_LETTERED)]), "I7 dead-lettered without its letter"),
        (
            lambda: ([*sound(), event(2, TaskEventKind.REFUSED, None, TaskState.UNKNOWN, event_id="x")], [result()]),
            "I7 refused twice or without a conflict",
        ),
    ],
)
def test_what_is_planted_is_found(plant: Callable[[], tuple[list[Found], list[Found]]], violation: str) -> None:
    assert violation in judged(*plant())


def row(version: int, state: TaskState = TaskState.ASSIGNED) -> TaskRow:
    fields = {"cause": "c", "task_id": "t", "decided_at": 1, "instance": "i", "seq": 1, "registry_at": "{}"}
    fields |= {"position": "p", "body_hash": "b", "payload_hash": "h", "created_at": 1, "updated_at": 1, "expires_at": 9}
    return TaskRow(version=version, state=state, **fields)


@pytest.mark.parametrize(
    ("rows", "jumps"),
    [
        ([row(1), row(2)], 0),
        ([row(1), row(1)], 0),  # a winner appended again
        ([row(1), None, row(1)], 0),  # it left and came again
        ([row(1), row(3)], 1),
        ([row(2)], 1),
        ([row(1), row(2), row(1)], 1),
        ([row(1, TaskState.COMPLETED), row(2)], 1),
    ],
)
def test_versions_of_a_changelog_are_contiguous_and_nothing_leaves_a_terminal_state(
    rows: list[TaskRow | None], jumps: int
) -> None:
    fold, checker = Fold(), Checker(Settings(), codecs(), [])
    for each in rows:
        value = None if each is None else each.model_dump_json().encode()
        checker._apply(fold, Found("changelog", 0, 0, b"t", value, 0, None), each)
    assert len(fold.jumps) == jumps
