"""What the world learns of an agent: its event, the compacted records that stand for it, and the stop in its inbox.

Functions of row or note and event alone, so that all of it can be made again after a crash. A record in
`agents.registry` implies the agent's inbox, so that is asked for first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from schemas.agents import (
    AgentCommand,
    AgentDefinition,
    AgentEvent,
    AgentEventKind,
    AgentFault,
    AgentHealth,
    AgentRecord,
    AgentRow,
    AgentState,
    BreakerState,
)
from schemas.inbox import InboxKind, InboxRecord
from schemas.topics import AGENT_EVENTS, AGENT_HEALTH, AGENT_REGISTRY, INBOX, inbox_name
from streams.processor import EnsureTopic, Event, Note, Output, tombstone

SOURCE = "coordinator"


def json_object(text: str) -> dict[str, Any] | None:
    """The object that a text is, or None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def inbox_partitions(definition: AgentDefinition) -> int:
    """Partitions of an agent's inbox (`config.inbox_partitions`)."""
    return int((json_object(definition.config) or {}).get("inbox_partitions", 1))


def published(row: AgentRow) -> Iterator[Output | EnsureTopic]:
    """The inbox, and the records that stand for the row."""
    yield EnsureTopic(INBOX, inbox_name(row.agent_id), inbox_partitions(row.definition))
    yield from _records(row)


def _records(row: AgentRow) -> Iterator[Output]:
    yield Output(AGENT_REGISTRY, row.agent_id, _record(row))
    yield Output(AGENT_HEALTH, row.agent_id, _health(row))


def changed(row: AgentRow, event: Event) -> Iterator[Output | EnsureTopic]:
    """What follows from a transition."""
    if row.event is AgentEventKind.UNKNOWN:
        return
    if row.event in (AgentEventKind.REGISTERED, AgentEventKind.REPLACED):
        yield EnsureTopic(INBOX, inbox_name(row.agent_id), inbox_partitions(row.definition))
    yield Output(AGENT_EVENTS, row.agent_id, _event(row, event))
    yield from _records(row)
    if row.told_to_stop:
        yield _stop_signal(row, event)


def farewell(row: AgentRow, event: Event) -> Iterator[Output | EnsureTopic]:
    """What follows from the last one: tombstones."""
    yield Output(AGENT_EVENTS, row.agent_id, _event(row, event))
    yield tombstone(AGENT_REGISTRY, row.agent_id, row.updated_at)
    yield tombstone(AGENT_HEALTH, row.agent_id, row.updated_at)
    if row.told_to_stop:
        yield _stop_signal(row, event)


def _stop_signal(row: AgentRow, event: Event) -> Output:
    record = InboxRecord(
        event_id=event.id(1), occurred_at=event.now, source=SOURCE, correlation_id=row.agent_id,
        causation_id=event.position, kind=InboxKind.STOP, reason=row.reason,
    )  # fmt: skip
    return Output(INBOX, row.agent_id, record, name=inbox_name(row.agent_id))


def _event(row: AgentRow, event: Event) -> AgentEvent:
    return AgentEvent(
        event_id=event.id(0), occurred_at=event.now, source=SOURCE, correlation_id=row.agent_id,
        causation_id=event.position, kind=row.event, agent_id=row.agent_id, version=row.version, cause=row.cause,
        from_state=row.from_state, to_state=row.state, breaker=row.breaker, reason=row.reason,
    )  # fmt: skip


def _record(row: AgentRow) -> AgentRecord:
    return AgentRecord(
        event_id=f"{row.cause}.r", occurred_at=row.updated_at, source=SOURCE, causation_id=row.cause,
        agent_id=row.agent_id, definition=row.definition, state=row.state, desired=row.desired,
        draining=row.draining, sessions=row.sessions, registered_at=row.registered_at, updated_at=row.updated_at,
        version=row.version, cause=row.cause,
    )  # fmt: skip


def _health(row: AgentRow) -> AgentHealth:
    return AgentHealth(
        event_id=f"{row.cause}.h", occurred_at=row.updated_at, source=SOURCE, causation_id=row.cause,
        agent_id=row.agent_id, breaker=row.breaker, consecutive_failures=row.consecutive_failures,
        health=row.health, effective_weight=row.effective_weight, reason=row.reason, version=row.version,
        cause=row.cause,
    )  # fmt: skip


def said(note: Note, event: Event) -> Iterator[Output]:
    """The event of a refusal."""
    state, version, breaker, code, message = note.error.split(" ", 4)
    command = event.record
    assert isinstance(command, AgentCommand)
    known = AgentState(state) if int(version) else None
    record = AgentEvent(
        event_id=event.id(0), occurred_at=event.now, source=SOURCE,
        correlation_id=command.correlation_id or command.agent_id, causation_id=event.position,
        kind=AgentEventKind.REFUSED, agent_id=command.agent_id, version=int(version), cause=event.position,
        from_state=known, to_state=known or AgentState.ABSENT, breaker=BreakerState(breaker) if known else None,
        error=AgentFault(code=code, message=message),
    )  # fmt: skip
    yield Output(AGENT_EVENTS, command.agent_id, record)
