"""Generated tests put to a target: what it makes of each row is the outcome, and breaking is not refusing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from actors.api import Context
from actors.catalog.asking import Answer, Wish
from actors.catalog.generate_tests import TestInput, generate
from actors.catalog.json_judge import violation
from schemas.errors import InvalidInput
from schemas.tasks import ID

LOAN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "loan_amount": {"type": "number", "exclusiveMinimum": 0},
        "credit_score": {"type": "integer", "minimum": 300, "maximum": 850},
    },
    "required": ["loan_amount", "credit_score"],
}


class Receiver:
    """Answers as it was told to, by the kind of the case; keeps what it was asked."""

    def __init__(self, fits: Answer | None, misfits: Answer | None) -> None:
        self._fits, self._misfits = fits, misfits
        self.asked: list[tuple[Sequence[Wish], str, float]] = []

    def __call__(self, wishes: Sequence[Wish], parent: str, seconds: float) -> list[Answer | None]:
        self.asked.append((wishes, parent, seconds))
        return [self._fits if violation(LOAN, wish.payload) is None else self._misfits for wish in wishes]


DONE = Answer("completed")
REFUSED = Answer("failed", "invalid_input", "loan_amount: Input should be greater than 0")
BROKEN = Answer("dead_lettered", "agent_error", "KeyError: 'loan_amount'")


@pytest.mark.parametrize(
    ("fits", "misfits", "passed", "message"),
    [
        (DONE, REFUSED, 9, None),
        (DONE, DONE, 6, "The target takes it"),
        (
            DONE,
            BROKEN,
            6,
            "The target breaks instead of refusing it: dead_lettered, agent_error: KeyError: 'loan_amount'",
        ),
        (REFUSED, REFUSED, 3, "The target: failed, invalid_input: loan_amount: Input should be greater than 0"),
        (None, REFUSED, 3, "The target had no outcome in time"),
    ],
)
def test_a_target_answers_for_itself(
    ctx: Context, fits: Answer | None, misfits: Answer | None, passed: int, message: str | None
) -> None:
    receiver = Receiver(fits, misfits)
    request = TestInput.model_validate({"schema": LOAN, "test_count": 9, "target": "risk_assessment"})
    result = generate(request, ctx, receiver)
    assert (result.run, result.passed, result.failed) == (9, passed, 9 - passed)
    assert {case.message for case in result.cases if case.outcome == "failed"} == ({message} if message else set())
    ((wishes, parent, seconds),) = receiver.asked
    assert [wish.task_id for wish in wishes] == [f"task-1.case-{number}" for number in range(1, 10)]
    assert ({wish.pattern for wish in wishes}, parent, seconds > 1e6) == ({"risk_assessment"}, "task-1", True)


def test_ids_for_a_target_are_ids(ctx: Context) -> None:
    receiver = Receiver(DONE, REFUSED)
    for task_id in ("run~step~1", "x" * 255):
        request = TestInput.model_validate({"schema": LOAN, "target": "risk_assessment"})
        generate(request, replace(ctx, task_id=task_id), receiver)
    ids = [wish.task_id for wishes, _, _ in receiver.asked for wish in wishes]
    assert len(set(ids)) == 20
    assert all(re.fullmatch(ID, task_id) for task_id in ids)


def test_what_is_not_run_is_not_asked(ctx: Context) -> None:
    receiver = Receiver(DONE, REFUSED)
    request = {"schema": {"properties": {"n": {"enum": [1], "type": "string"}}, "required": ["n"]}, "target": "x"}
    assert generate(TestInput.model_validate(request | {"operation": "GenerateTests"}), ctx, receiver).run == 0
    assert receiver.asked == []
    generate(TestInput.model_validate(request), ctx, receiver)
    assert all(violation(request["schema"], wish.payload) for wish in receiver.asked[0][0])


def test_targets_that_cannot_be(ctx: Context) -> None:
    with pytest.raises(InvalidInput, match="needs a running system") as caught:
        generate(TestInput.model_validate({"schema": LOAN, "target": "risk_assessment"}), ctx)
    assert caught.value.code == "unsupported"
    with pytest.raises(InvalidInput, match="cannot be the test agent itself"):
        generate(TestInput.model_validate({"schema": LOAN, "target": "generate_tests"}), ctx, Receiver(DONE, DONE))
