"""What is said while a task is waited for: late enough, and once for each thing that it waits for."""

from __future__ import annotations

import pytest

from ops.cli.waiting import Saying
from ops.views.tasks import TaskFold
from tests.ops.views.test_explain import RETRY, decision, event


def test_each_reason_is_told_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.cli.waiting._LOOK_S", 0.0)
    saying, fold = Saying("t", 0.0), TaskFold("t")
    steps = [
        event(1, "accepted", "queued", decision(None)),
        event(2, "assigned", "assigned", decision(), agent_id="mine"),
        event(3, "started", "running", agent_id="mine"),
        RETRY.model_copy(update={"version": 4, "event_id": "retry"}),
        event(5, "completed", "completed", agent_id="mine"),
    ]
    for known in (None, fold):  # undecided, and nothing known
        saying(known)
    for step in steps:
        fold.add_event(step)
        saying(fold)
        saying(fold)
    out, err = capsys.readouterr()
    assert out == ""
    begin = "Task 't' has no outcome yet. "
    assert [line.removeprefix(begin) for line in err.splitlines()] == [
        "No coordinator has decided about it; see `troupe ps`.",
        "It waits since 2023-11-14T22:13:20.000001Z: all are busy.",
        "It is with mine since 2023-11-14T22:13:20.000002Z, attempt 1.",
        "It waits for its next attempt, due at 2023-11-14T22:13:22.000002Z, after: it broke (agent_error).",
    ]


def test_nothing_is_said_of_a_task_that_is_soon_done(capsys: pytest.CaptureFixture[str]) -> None:
    fold = TaskFold("t")
    fold.add_event(event(1, "accepted", "queued", decision(None)))
    Saying("t", 60.0)(fold)
    assert capsys.readouterr().err == ""
