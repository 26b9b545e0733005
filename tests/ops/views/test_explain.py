"""A task's decisions as a person reads them: nothing is left out, nothing is worked out again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ops.views.explain import candidate_rows, decision_line, excluded_line, explanation
from ops.views.tasks import TaskFold
from schemas.tasks import (
    Candidate,
    DecidedBy,
    RoutingDecision,
    RoutingInput,
    TaskError,
    TaskEvent,
    TaskEventKind,
    TaskState,
)

AT = 1_700_000_000_000_000
CANDIDATES = [
    Candidate(agent_id="busy", eligible=False, excluded_by="at_capacity", state="up", in_flight=2, max_in_flight=2),
    Candidate(agent_id="down", eligible=False, excluded_by="offline", state="offline", in_flight=0, max_in_flight=2),
    Candidate(agent_id="free", eligible=True, state="up", in_flight=1, max_in_flight=2, tokens=3.5, score=0.25),
    Candidate(agent_id="mine", eligible=True, state="up", in_flight=0, max_in_flight=2),
]


def decision(chosen: str | None = "mine", **fields: Any) -> RoutingDecision:
    values: dict[str, Any] = {
        "decision_id": "d", "task_id": "t", "attempt": 1, "at": AT, "rule": "sum*", "target": "adders",
        "input": RoutingInput(pattern="sum", required_capabilities=["a", "b"]), "strategy": "least_loaded",
        "candidates": CANDIDATES, "chosen": chosen, "reason": "Chose mine: it is idle." if chosen else "Waits: all are busy.",
        "queue_wait_ms": 1500, "route_ms": 2.5, "coordinator": DecidedBy(instance="c-1", version="1"),
    }  # fmt: skip
    return RoutingDecision(**(values | fields))


def event(version: int, kind: str, state: str, made: RoutingDecision | None = None, **fields: Any) -> TaskEvent:
    values: dict[str, Any] = {
        "event_id": f"e{version}{kind}", "occurred_at": AT, "source": "c", "task_id": "t", "version": version, "cause": "c",
        "decided_at": AT + version, "kind": TaskEventKind(kind), "to_state": TaskState(state),
        "decision": None if made is None else made.model_dump_json(), "attempt": 1,
    }  # fmt: skip
    return TaskEvent(**(values | fields))


def explained(*events: TaskEvent) -> Any:
    fold = TaskFold("t")
    for each in events:
        fold.add_event(each)
    status = fold.status()
    assert status is not None
    return explanation(status)


def test_each_decision_is_there_whole() -> None:
    found = explained(event(1, "assigned", "assigned", decision(), agent_id="mine"))
    assert found.asked == "pattern 'sum', capabilities a, b"
    assert found.now == "It is with mine since 2023-11-14T22:13:20.000001Z, attempt 1."
    (step,) = found.document()["steps"]
    assert step["decision"] == json.loads(decision().model_dump_json())
    assert step["text"] == "Chose mine: it is idle."


def test_candidates_are_shown_with_the_chosen_one_first_and_the_reason_against_the_others() -> None:
    rows = list(candidate_rows(json.loads(decision().model_dump_json())))
    assert [(row[0], row[1], row[4]) for row in rows] == [
        ("mine", "chosen", "0 of 2"),
        ("free", "free", "1 of 2"),
        ("busy", "at capacity", "2 of 2"),
        ("down", "offline", "0 of 2"),
    ]
    assert rows[1][5:] == ("3.5", "1", "0.25")


def test_how_it_was_decided_is_one_line() -> None:
    line = decision_line(json.loads(decision().model_dump_json()))
    assert line == (
        "rule 'sum*', target adders, strategy least_loaded, priority 3, queued 1.500 s, decided in 2.5 ms by c-1 (version 1)"
    )
    large = json.loads(decision(excluded_counts={"offline": 900, "at_capacity": 3}).model_dump_json())
    assert excluded_line(large) == "of the whole pool were left out: 3 at capacity, 900 offline"
    assert excluded_line(json.loads(decision().model_dump_json())) is None


BROKE = TaskError(code="agent_error", message="it broke")
FULL = TaskError(code="queue_full", message="Queue is full")
RETRY = event(2, "retry_scheduled", "retrying", error=BROKE, delay_seconds=2.0)


@pytest.mark.parametrize(
    ("events", "now"),
    [
        ([event(1, "accepted", "queued", decision(None))], "It waits since 2023-11-14T22:13:20.000001Z: all are busy."),
        ([event(1, "accepted", "pending")], "It is held"),
        ([event(1, "assigned", "assigned", decision()), RETRY], "due at 2023-11-14T22:13:22.000002Z, after: it broke"),
        ([event(0, "refused", "unknown", error=FULL)], "Queue is full (queue_full)"),
        (
            [event(1, "assigned", "assigned", decision()), event(2, "requeued", "queued", agent_id="mine")],
            "It waits since 2023-11-14T22:13:20.000002Z: mine went away; the task waits for an agent that is free.",
        ),
        ([event(1, "completed", "completed", agent_id="mine")], "It was completed by mine after 1 attempt."),
        ([event(1, "cancelled", "cancelled")], "It ended as cancelled after 1 attempt: no reason was given."),
        ([event(1, "failed", "failed", error=BROKE)], "It ended as failed after 1 attempt: it broke (agent_error)."),
    ],
)  # fmt: skip
def test_where_a_task_is_and_why_is_one_sentence(events: list[TaskEvent], now: str) -> None:
    assert now in explained(*events).now


def test_a_failed_attempt_says_when_the_next_one_comes() -> None:
    found = explained(event(1, "assigned", "assigned", decision()), RETRY)
    assert found.steps[1].text == "Attempt 1 failed: it broke (agent_error); the next one in 2 s."


def test_a_decision_that_leaves_out_more_than_defaults_is_shown_as_it_is() -> None:
    """That of another version, or of another coordinator: one event must not hide the whole history."""
    made = event(1, "assigned", "assigned", agent_id="mine").model_copy(update={"decision": '{"reason": "So it is."}'})
    (step,) = explained(made).document()["steps"]
    assert (step["text"], step["decision"]) == ("So it is.", {"reason": "So it is."})


def test_what_a_newer_version_says_beyond_ours_is_left_out_and_the_rest_is_whole() -> None:
    """What is at its default it leaves out, as ours does."""
    made = json.loads(decision().model_dump_json(exclude_defaults=True)) | {"mood": "calm"}
    for part in (made["input"], made["coordinator"], *made["candidates"]):
        part["mood"] = "calm"
    told = event(1, "assigned", "assigned", agent_id="mine").model_copy(update={"decision": json.dumps(made)})
    (step,) = explained(told).steps
    assert step.decision == json.loads(decision().model_dump_json())


def test_candidates_of_a_decision_that_is_not_whole_are_shown_as_far_as_they_go() -> None:
    made = json.loads(decision().model_dump_json(exclude_defaults=True))
    del made["strategy"]
    told = event(1, "assigned", "assigned", agent_id="mine").model_copy(update={"decision": json.dumps(made)})
    (step,) = explained(told).steps
    assert step.decision == made
    assert [(row[0], row[1], row[2], row[4]) for row in candidate_rows(step.decision)] == [
        ("mine", "chosen", None, "0 of 2"),
        ("free", "free", None, "1 of 2"),
        ("busy", "at capacity", None, "2 of 2"),
        ("down", "offline", "offline", "0 of 2"),
    ]
