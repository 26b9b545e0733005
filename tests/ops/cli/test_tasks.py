"""What `submit --wait` and `status` show of a task, and what they say to do next."""

from __future__ import annotations

import json
import re

import pytest
import typer

from ops.cli.errors import TASK_HINTS
from ops.cli.main import Verbs
from ops.cli.tasks import _show
from ops.views.tasks import TaskStatus
from schemas.tasks import TaskError, TaskState
from streams.faults import TEXTS


def ended(state: TaskState, code: str | None) -> TaskStatus:
    error = TaskError(code=code, message="So it is") if code is not None else None
    return TaskStatus(task_id="t-1", status=state, error=error)


@pytest.mark.parametrize("code", TASK_HINTS)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_task_that_ended_badly_comes_with_the_next_command(
    code: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left:
        _show(ended(TaskState.REFUSED, code), as_json)
    out, err = capsys.readouterr()
    assert left.value.exit_code == 1
    assert re.fullmatch(r"Hint: [^{}\n]+\n", err)
    assert "Hint" not in out and (not as_json or json.loads(out)["error"]["code"] == code)


def test_others_come_without(capsys: pytest.CaptureFixture[str]) -> None:
    for state, code, left in (
        (TaskState.COMPLETED, None, 0),
        (TaskState.CANCELLED, None, 1),
        (TaskState.FAILED, "odd", 1),
    ):
        with pytest.raises(typer.Exit) as ends:
            _show(ended(state, code), True)
        assert (ends.value.exit_code, capsys.readouterr().err) == (left, "")


def test_hints_are_for_codes_that_exist_and_name_verbs_that_exist() -> None:
    assert TASK_HINTS.keys() <= TEXTS.keys()
    assert set(re.findall(r"`troupe ([a-z]+)", " ".join(TASK_HINTS.values()))) <= Verbs.table.keys()
