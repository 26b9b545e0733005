"""Who is there: registration, heartbeats and the end of an agent.

The row is the only place where an agent's state is decided; `agents.registry` and `agents.health` say what it is, for
those who route. A record there implies that the agent's inbox exists, so the inbox is asked for first.

A heartbeat that changes nothing is no event. It is written down only when the last one kept is half an interval old:
a thousand agents would otherwise write as many rows as they send heartbeats, to say that all is well. One from another
process than the last is always written: a goodbye counts only from the process that was heard last, so that one which
comes late does not take away the agent from a host that has been started since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from schemas.agents import (
    AgentCommand,
    AgentCommandKind,
    AgentEventKind,
    AgentRow,
    AgentState,
    BreakerState,
    Desired,
)
from schemas.base import Record
from schemas.changelog import WakeRecord
from schemas.settings import Settings
from schemas.topics import (
    AGENT_COMMANDS,
    AGENT_EVENTS,
    AGENT_HEALTH,
    AGENT_REGISTRY,
    DEAD_LETTERS,
    INBOX,
    Topic,
)
from streams import registry_outputs
from streams.faults import Fault, fault
from streams.processor import (
    NOTE_ERROR_BYTES,
    Change,
    Decided,
    Decision,
    End,
    EnsureTopic,
    Event,
    Headers,
    Note,
    Output,
    Views,
)
from streams.registry_outputs import json_object

SECOND = 1_000_000
TRACE = "traceparent"
MAX_INBOX_PARTITIONS = 64
DRAIN, NOW = "drain", "now"
_REFUSED = "refused"
_LATER = "is not supported yet: circuit breakers and sessions are built later"

Outcome = Change[AgentRow] | End[AgentRow] | Note | None


class AgentsProcessor:
    """Implements `Processor[AgentRow]`."""

    name = "agents"
    row = AgentRow
    inputs: tuple[Topic, ...] = (AGENT_COMMANDS,)
    outputs_to: tuple[Topic, ...] = (AGENT_EVENTS, AGENT_REGISTRY, AGENT_HEALTH, INBOX, DEAD_LETTERS)
    views: tuple[Topic, ...] = ()
    answers: tuple[Topic, ...] = ()

    def __init__(self, settings: Settings) -> None:
        self._missed = settings.agents.missed_heartbeats

    def step(self, row: AgentRow | None, event: Event, views: Views) -> Decision[AgentRow]:
        """Raises TypeError for a record that is none of its inputs'."""
        record = event.record
        if isinstance(record, WakeRecord):
            if row is None or row.version != record.version:
                return None
            return _silent(row, event, self._missed)
        if not isinstance(record, AgentCommand):
            raise TypeError(f"no agent command: {type(record).__name__}")
        if record.kind is AgentCommandKind.REGISTER:
            return _register(row, event, record)
        handle = _HANDLERS.get(record.kind)
        if handle is None:
            # What comes of itself and not by anyone's wish is dropped where there is no agent (spec: stale).
            if row is None and record.kind in _SIGNS:
                return None
            return _refused(row, event, fault("unsupported", f"Command '{record.kind}' {_LATER}"))
        if row is None:
            return _refused(None, event, fault("agent_not_found", record.agent_id))
        return handle(row, event, record)

    def outputs(self, decided: Decided[AgentRow], event: Event) -> Iterable[Output | EnsureTopic]:
        """A function of row or note and event alone."""
        if isinstance(decided, Note):
            found: Iterable[Output | EnsureTopic] = registry_outputs.said(decided, event)
        elif isinstance(decided, End):
            found = registry_outputs.farewell(decided.row, event)
        else:
            found = registry_outputs.changed(decided.row, event)
        trace = tuple(header for header in event.headers if header[0] == TRACE)
        return [each._replace(headers=each.headers + trace) if isinstance(each, Output) and trace else each for each in found]

    def broken(self, row: AgentRow, event: Event, error: Exception) -> Change[AgentRow] | None:
        """Agents have no end: the row stays as it was."""
        return None

    def due(self, row: AgentRow) -> int | None:
        """When an agent that is up will have been silent for too long, microseconds."""
        if row.state is not AgentState.UP or row.last_heartbeat is None:
            return None
        return row.last_heartbeat + self._missed * row.definition.heartbeat_interval_seconds * SECOND

    def expires(self, row: AgentRow) -> int | None:
        """Agents leave by `unregister` only."""
        return None

    def published(self, row: AgentRow) -> Iterable[Output | EnsureTopic]:
        """The records that stand for the row, and its inbox, which exists before they do.

        Their version decides which one holds, so they may be written again.
        """
        return registry_outputs.published(row)

    def prepare(self, record: Record, value: bytes, headers: Headers) -> None:
        """Nothing."""

    def index(self, before: AgentRow | None, after: AgentRow | None) -> None:
        """Nothing to keep."""

    def view_changed(self, topic: Topic, key: str) -> None:
        """It looks at no view."""

    def ready(self, now: int, views: Views) -> Iterator[str]:
        """Nothing waits here."""
        return iter(())

    def stranded(self, now: int, views: Views) -> Iterator[tuple[int, Iterable[str]]]:
        """Nor here."""
        return iter(())


# --- transitions


def _turn(row: AgentRow, event: Event, kind: AgentEventKind, **changes: Any) -> AgentRow:
    """The row after a transition; `event` UNKNOWN says that there is nothing to tell."""
    fields = {
        "version": row.version + 1,
        "cause": event.position,
        "event": kind,
        "from_state": row.state,
        "reason": None,
        "told_to_stop": False,
        "updated_at": max(row.updated_at, event.now),  # a record that came by a detour is older than what it follows
    }
    return row.model_copy(update=fields | changes)


def _register(row: AgentRow | None, event: Event, command: AgentCommand) -> Outcome:
    definition = command.definition
    wrong = _wrong_definition(command)
    if definition is None or wrong is not None:
        return _refused(row, event, fault("invalid_request", wrong or "definition: missing"))
    if row is None:
        desired = Desired.STARTED if definition.auto_start else Desired.STOPPED
        return Change(
            AgentRow(
                version=1, cause=event.position, agent_id=command.agent_id, definition=definition,
                state=AgentState.REGISTERED, event=AgentEventKind.REGISTERED, desired=desired,
                effective_weight=definition.weight, registered_at=event.now, updated_at=event.now,
            )
        )  # fmt: skip
    if row.definition == definition:
        return None
    if not command.replace:
        return _refused(row, event, fault("agent_conflict", command.agent_id))
    weight = definition.weight if definition.weight != row.definition.weight else row.effective_weight
    return Change(_turn(row, event, AgentEventKind.REPLACED, definition=definition, effective_weight=weight))


def _start(row: AgentRow, event: Event, command: AgentCommand) -> Outcome:
    if row.state is AgentState.STOPPED:
        return Change(
            _turn(
                row, event, AgentEventKind.REGISTERED,
                state=AgentState.REGISTERED, desired=Desired.STARTED, draining=False, leaving=False,
                last_heartbeat=None,
            )
        )  # fmt: skip
    if row.desired is Desired.STARTED and not row.draining:
        return None
    kind = AgentEventKind.UP if row.state is AgentState.UP else AgentEventKind.REGISTERED
    return Change(_turn(row, event, kind, desired=Desired.STARTED, draining=False, leaving=False))


def _stop(row: AgentRow, event: Event, command: AgentCommand) -> Outcome:
    if command.mode not in (None, DRAIN, NOW):
        return _refused(row, event, fault("invalid_request", f"mode: must be {DRAIN} or {NOW}"))
    if row.state is AgentState.STOPPED:
        return None
    if row.state is AgentState.UP and command.mode != NOW:
        if row.draining:
            return None
        return Change(_draining(row, event, command, leaving=False))
    return Change(_stopped(row, event, reason=command.reason, told_to_stop=row.state is AgentState.UP))


def _unregister(row: AgentRow, event: Event, command: AgentCommand) -> Outcome:
    if command.force or row.state is not AgentState.UP:
        return End(_absent(row, event, reason=command.reason, told_to_stop=row.state is AgentState.UP))
    if row.draining and row.leaving:
        return None
    return Change(_draining(row, event, command, leaving=True))


def _draining(row: AgentRow, event: Event, command: AgentCommand, *, leaving: bool) -> AgentRow:
    return _turn(
        row, event, AgentEventKind.DRAINING,
        desired=Desired.STOPPED, draining=True, leaving=leaving, reason=command.reason, told_to_stop=True,
    )  # fmt: skip


def _stopped(row: AgentRow, event: Event, **changes: Any) -> AgentRow:
    return _turn(
        row, event, AgentEventKind.STOPPED,
        **({"state": AgentState.STOPPED, "desired": Desired.STOPPED, "draining": False, "leaving": False} | changes),
    )  # fmt: skip


def _absent(row: AgentRow, event: Event, **changes: Any) -> AgentRow:
    return _turn(
        row, event, AgentEventKind.UNREGISTERED,
        **({"state": AgentState.ABSENT, "desired": Desired.STOPPED, "draining": False} | changes),
    )  # fmt: skip


def _heartbeat(row: AgentRow, event: Event, command: AgentCommand) -> Outcome:
    """A sign of life: brings an agent up, ends a drain, or merely counts; the last one of a process takes it away."""
    if command.goodbye:
        up = row.state is AgentState.UP
        return _gone(row, event, "its host has stopped") if up and command.incarnation == row.incarnation else None
    seen = {
        "last_heartbeat": event.now, "load": command.load, "inbox_lag": command.inbox_lag,
        "incarnation": command.incarnation,
    }  # fmt: skip
    if row.state in (AgentState.REGISTERED, AgentState.OFFLINE) and row.desired is Desired.STARTED:
        return Change(_turn(row, event, AgentEventKind.UP, state=AgentState.UP, draining=False, **seen))
    if row.state is AgentState.UP and row.draining and command.load == 0 and command.inbox_lag == 0:
        return End(_absent(row, event, **seen)) if row.leaving else Change(_stopped(row, event, **seen))
    half = row.definition.heartbeat_interval_seconds * SECOND // 2
    same = command.incarnation == row.incarnation
    if same and row.last_heartbeat is not None and event.now - row.last_heartbeat < half:
        return None
    return Change(_turn(row, event, AgentEventKind.UNKNOWN, reason=row.reason, **seen))


def _silent(row: AgentRow, event: Event, missed: int) -> Outcome:
    """The heartbeats stayed away: offline, or at the end of its drain if it was draining."""
    interval = row.definition.heartbeat_interval_seconds
    if row.state is not AgentState.UP or row.last_heartbeat is None:
        return None
    if event.now < row.last_heartbeat + missed * interval * SECOND:
        return None
    return _gone(row, event, f"no heartbeat for {missed * interval} s")


def _gone(row: AgentRow, event: Event, reason: str) -> Outcome:
    """Nobody is behind the agent any more."""
    if row.draining:
        return End(_absent(row, event, reason=reason)) if row.leaving else Change(_stopped(row, event, reason=reason))
    return Change(_turn(row, event, AgentEventKind.OFFLINE, state=AgentState.OFFLINE, reason=reason))


def _set_weight(row: AgentRow, event: Event, command: AgentCommand) -> Outcome:
    weight = command.weight
    if weight is None and command.factor is not None:
        weight = row.definition.weight * command.factor
    if weight is None or not 0 < weight <= 1e6:
        return _refused(row, event, fault("invalid_request", "weight or factor: a number above 0 is needed"))
    if weight == row.effective_weight:
        return None
    reason = command.reason
    return Change(_turn(row, event, AgentEventKind.WEIGHT_CHANGED, effective_weight=weight, reason=reason))


_HANDLERS: dict[AgentCommandKind, Callable[[AgentRow, Event, AgentCommand], Outcome]] = {
    AgentCommandKind.START: _start,
    AgentCommandKind.STOP: _stop,
    AgentCommandKind.UNREGISTER: _unregister,
    AgentCommandKind.HEARTBEAT: _heartbeat,
    AgentCommandKind.SET_WEIGHT: _set_weight,
}
_SIGNS = frozenset({AgentCommandKind.OUTCOME, AgentCommandKind.SESSION_USED})


def _wrong_definition(command: AgentCommand) -> str | None:
    definition = command.definition
    if definition is None:
        return None
    if definition.agent_id != command.agent_id:
        return f"definition.agent_id: '{definition.agent_id}' is not '{command.agent_id}'"
    if not definition.agent_type:
        return "definition.agent_type: missing"
    for name, text in (("config", definition.config), ("metadata", definition.metadata)):
        if json_object(text) is None:
            return f"definition.{name}: must be a JSON object"
    partitions = json_object(definition.config or "{}")
    count = (partitions or {}).get("inbox_partitions", 1)
    if type(count) is not int or not 1 <= count <= MAX_INBOX_PARTITIONS:
        return f"definition.config.inbox_partitions: must be between 1 and {MAX_INBOX_PARTITIONS}"
    return None


# --- refusals


def _refused(row: AgentRow | None, event: Event, why: Fault) -> Note:
    """A note carries `<state> <version> <breaker> <code> <message>`, enough to make its event again."""
    now = f"{row.state} {row.version} {row.breaker}" if row is not None else f"absent 0 {BreakerState.UNKNOWN}"
    text = f"{now} {why.code} {why.message}".encode()[:NOTE_ERROR_BYTES].decode(errors="ignore")
    return Note(_REFUSED, text, event.stamp.time, event.stamp.seq)
