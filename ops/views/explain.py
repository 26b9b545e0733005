"""Why a task went where it went: the decisions in its events, in order, and what it waits for now.

Each decision was written down by whoever made it, with every candidate that it considered; nothing is worked out again
here, so what is shown is what was decided, even if rules and agents have changed since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ops.views.tasks import NOTES, TaskStatus, decision_document, error_document, instant, plain
from schemas.tasks import IN_FLIGHT, TaskEvent, TaskEventKind, TaskState

SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """One event of the task. text: what happened, in words; decision: the whole RoutingDecision, None if it has none."""

    at: str
    kind: str
    state: str
    attempt: int
    agent: str | None
    text: str
    error: dict[str, Any] | None
    decision: dict[str, Any] | None

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "at": self.at,
            "kind": self.kind,
            "state": self.state,
            "attempt": self.attempt,
            "agent": self.agent,
            "text": self.text,
            "error": self.error,
            "decision": self.decision,
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """A task's decisions. now: one sentence on where it is and why; asked: what it asked for; steps: oldest first."""

    task_id: str
    status: str
    agent: str | None
    attempts: int
    asked: str
    now: str
    steps: tuple[Step, ...]

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "task_id": self.task_id,
            "status": self.status,
            "agent": self.agent,
            "attempts": self.attempts,
            "asked": self.asked,
            "now": self.now,
            "steps": [step.document() for step in self.steps],
        }


def explanation(found: TaskStatus, wishes: Mapping[str, str] | None = None) -> Explanation:
    """What a task's history tells of its routing. wishes: reasons that users gave, by the event that they led to."""
    said = wishes or {}
    steps = tuple(_step(event, said.get(event.event_id, "")) for event in found.history)
    return Explanation(
        task_id=found.task_id,
        status=str(found.status),
        agent=found.agent,
        attempts=found.attempts,
        asked=_asked(found),
        now=_now(found, next(iter(said.values()), "no reason was given")),
        steps=steps,
    )


def candidate_rows(decision: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """The candidates of a decision as a person reads them: the chosen one first, then who was free, then the others."""
    chosen = decision.get("chosen")
    ordered = sorted(
        decision.get("candidates") or (),
        key=lambda each: (each["agent_id"] != chosen, bool(each.get("excluded_by")), each["agent_id"]),
    )
    for each in ordered:
        verdict = "chosen" if each["agent_id"] == chosen else _words(each.get("excluded_by")) or "free"
        yield (
            each["agent_id"],
            verdict,
            each.get("state"),
            each.get("breaker"),
            f"{each['in_flight']} of {each['max_in_flight']}",
            _number(each.get("tokens")),
            _number(each.get("effective_weight")),
            _number(each.get("score")),
        )


CANDIDATE_COLUMNS = ("candidate", "verdict", "state", "breaker", "in flight", "tokens", "weight", "score")


def decision_line(decision: Mapping[str, Any]) -> str:
    """How a decision was made, in one line: rule, target, strategy, place in the queue, time taken and by whom."""
    rule, target = decision.get("rule"), decision.get("target")
    parts = [f"rule '{rule}'" if rule else "no rule", f"strategy {decision.get('strategy')}"]
    if target:
        parts.insert(1, f"target {target}")
    parts.append(f"priority {decision.get('queue_level')}")
    if decision.get("queue_wait_ms"):
        parts.append(f"queued {decision['queue_wait_ms'] / 1000:.3f} s")
    parts.append(f"decided in {decision.get('route_ms', 0):.1f} ms")
    by = decision.get("coordinator") or {}
    return ", ".join(parts) + f" by {by.get('instance')} (version {by.get('version')})"


def excluded_line(decision: Mapping[str, Any]) -> str | None:
    """How many were left out and why, for a pool that is too large to be listed whole."""
    counted = decision.get("excluded_counts") or {}
    if not counted:
        return None
    listed = ", ".join(f"{count} {_words(why)}" for why, count in sorted(counted.items()))
    return f"of the whole pool were left out: {listed}"


def _step(event: TaskEvent, wish: str) -> Step:
    decision = decision_document(event)
    return Step(
        at=instant(event.decided_at),
        kind=str(event.kind),
        state=str(event.to_state),
        attempt=event.attempt,
        agent=event.agent_id,
        text=wish or _text(event, decision if isinstance(decision, dict) else None),
        error=error_document(event.error),
        decision=decision if isinstance(decision, dict) else None,
    )


def _text(event: TaskEvent, decision: Mapping[str, Any] | None) -> str:
    said = f"{event.error.message} ({event.error.code})" if event.error is not None else ""
    if event.kind is TaskEventKind.RETRY_SCHEDULED:
        return f"Attempt {event.attempt} failed: {said}; the next one in {event.delay_seconds or 0:g} s."
    if event.kind is TaskEventKind.REFUSED:
        return f"{said}."
    if event.kind is TaskEventKind.REQUEUED:
        return f"{event.agent_id or 'Its agent'} went away; the task waits for an agent that is free."
    reason = str(decision.get("reason") or "") if decision is not None else ""
    return " ".join(part for part in (said and f"{said}.", reason, event.note or "") if part)


def _asked(found: TaskStatus) -> str:
    for event in found.history:
        decision = decision_document(event)
        asked = decision.get("input") if isinstance(decision, dict) else None
        if not isinstance(asked, dict):
            continue
        parts = [f"agent '{asked['agent_id']}'"] if asked.get("agent_id") else []
        parts += [f"pattern '{asked['pattern']}'"] if asked.get("pattern") else []
        parts += [f"type '{asked['type']}'"] if asked.get("type") else []
        words = asked.get("required_capabilities") or []
        return ", ".join([*parts, *([f"capabilities {', '.join(words)}"] if words else [])])
    return ""


def _now(found: TaskStatus, wish: str) -> str:
    """One sentence: what the task waits for, or how it ended."""
    moves = [event for event in found.history if event.kind not in NOTES]
    last = moves[-1] if moves else found.history[-1]
    error = f"{found.error.message} ({found.error.code})" if found.error is not None else wish
    attempts = f"{found.attempts} attempt{'' if found.attempts == 1 else 's'}"
    if found.status is TaskState.REFUSED:
        return f"It was refused, and nothing was done: {error}."
    if found.status is TaskState.COMPLETED:
        return f"It was completed by {found.agent} after {attempts}."
    if found.finished:
        return f"It ended as {found.status} after {attempts}: {error}."
    if found.status in IN_FLIGHT:
        return f"It is with {last.agent_id} since {instant(last.decided_at)}, attempt {last.attempt}."
    if found.status is TaskState.RETRYING:
        return f"It waits for its next attempt, due at {instant(last.decided_at + _delay(last))}, after: {error}."
    if found.status is TaskState.PENDING:
        return "It is held: it starts when its time has come (not_before) or when it is executed."
    if last.kind is TaskEventKind.REQUEUED:  # the decision before it chose somebody, who is gone
        return f"It waits since {instant(last.decided_at)}: {_text(last, None)}"
    why = _text(last, _decision(moves)).removeprefix("Waits: ")
    return f"It waits since {instant(last.decided_at)}" + (f": {why}" if why else ".")


def _decision(moves: list[TaskEvent]) -> Mapping[str, Any] | None:
    for event in reversed(moves):
        found = plain(event.decision)
        if isinstance(found, dict):
            return found
    return None


def _delay(event: TaskEvent) -> int:
    return round((event.delay_seconds or 0) * SECOND)


def _words(reason: Any) -> str:
    return str(reason or "").replace("_", " ")


def _number(value: Any) -> str:
    return "" if value is None else f"{value:g}"
