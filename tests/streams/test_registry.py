"""Every cell of the state table of an agent, as the specification writes it, and what the world learns.

Cells: the state after it; `=` nothing happens at all, `= fields` the state stays and those fields change; `no: code` a
refusal; `stale` for what is dropped; `.` for what cannot occur. `absent` is the end of the row.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from schemas.agents import AgentCommand, AgentCommandKind, AgentDefinition, AgentRow, AgentState
from schemas.base import Record
from schemas.changelog import WakeRecord
from schemas.settings import Settings
from schemas.topics import AGENT_COMMANDS, wakes_topic
from streams.processor import Change, End, EnsureTopic, Event, Note, Output, Stamp
from streams.registry import AgentsProcessor
from tests.streams.tasks.world import SECOND, START, FakeViews, codec, encoded

TRACE = ("traceparent", b"00-aa-bb-01")
COLUMNS = ("absent", "registered", "up", "stopped", "offline")
TABLE = """
event                       | absent              | registered | up          | stopped    | offline
register                    | registered          | =          | =           | =          | =
register, other             | .                   | no: agent_conflict | no  | no         | no
register, replace           | registered          | = definition | = definition | = definition | = definition
start                       | no: agent_not_found | =          | =           | registered | =
start, draining             | .                   | .          | = draining off | .       | .
heartbeat                   | no: agent_not_found | up         | = recorded  | .          | up
heartbeat, too soon         | .                   | .          | =           | .          | .
heartbeat, stop wished      | no: agent_not_found | = recorded | = recorded  | = recorded | = recorded
heartbeat, drained          | .                   | .          | stopped     | .          | .
heartbeat, drained, leaving | .                   | .          | absent      | .          | .
heartbeat, draining, busy   | .                   | .          | = recorded  | .          | .
heartbeat, draining, unread | .                   | .          | = recorded  | .          | .
goodbye                     | no: agent_not_found | =          | offline     | =          | =
goodbye, of another process | .                   | .          | =           | .          | .
goodbye, draining           | .                   | .          | stopped     | .          | .
goodbye, draining, leaving  | .                   | .          | absent      | .          | .
silent for 3 intervals      | stale               | stale      | offline     | stale      | stale
silent, draining            | .                   | .          | stopped     | .          | .
silent, draining, leaving   | .                   | .          | absent      | .          | .
stop                        | no: agent_not_found | stopped    | = draining  | =          | stopped
stop, again                 | .                   | .          | =           | .          | .
stop, now                   | no: agent_not_found | stopped    | stopped     | =          | stopped
stop, some other mode       | no: agent_not_found | no: invalid_request | no | no        | no
unregister                  | no: agent_not_found | absent     | = draining  | absent     | absent
unregister, force           | no: agent_not_found | absent     | absent      | absent     | absent
set weight                  | no: agent_not_found | = weight   | = weight    | = weight   | = weight
set weight, below 0         | no: agent_not_found | no: invalid_request | no | no        | no
outcome                     | stale               | no: unsupported | no     | no         | no
session used                | stale               | no: unsupported | no     | no         | no
open breaker                | no: unsupported     | no         | no          | no         | no
reset breaker               | no: unsupported     | no         | no          | no         | no
"""

CHANGED: dict[str, Callable[[AgentRow, AgentRow], bool]] = {
    "definition": lambda before, after: after.definition.capabilities == ["dig", "cut"],
    "draining off": lambda before, after: before.draining and not after.draining,
    "draining": lambda before, after: after.draining and after.desired == "stopped",
    "recorded": lambda before, after: after.last_heartbeat is not None and after.event == "unknown",
    "weight": lambda before, after: after.effective_weight == 0.5,
}


class Registry:
    """A registry without a runtime: one agent `a`."""

    def __init__(self) -> None:
        self.processor = AgentsProcessor(Settings())
        self.row: AgentRow | None = None
        self.now = START
        self.offset = 0
        self.last: list[Output | EnsureTopic] = []

    def deliver(self, record: Record, topic: Any = AGENT_COMMANDS) -> Any:
        self.offset += 1
        stamp = Stamp("coordinator-1", self.offset, self.now + 1, "{}")
        position = f"{topic.name}.0.{self.offset}"
        value = codec(type(record)).encode(record)
        headers = (("ce_id", b"c"), TRACE)
        event = Event(topic, 0, self.offset, "a", self.now, position, record, value, headers, stamp)
        decided = self.processor.step(self.row, event, FakeViews())
        self.last = list(self.processor.outputs(decided, event)) if decided is not None else []
        if decided is not None:
            assert [encoded(each) for each in self.processor.outputs(decided, event)] == list(map(encoded, self.last))
        assert all(TRACE in each.headers for each in self.last if isinstance(each, Output))
        if isinstance(decided, Change | End):
            after = decided.row
            assert after.version == (self.row.version if self.row else 0) + 1 and after.cause == position
            assert codec(AgentRow).decode(codec(AgentRow).encode(after)) == after
            self.row = None if isinstance(decided, End) else after
        return decided

    def command(self, kind: str, **fields: Any) -> Any:
        wish = AgentCommandKind(kind)
        return self.deliver(
            AgentCommand(event_id="c", occurred_at=self.now, source="t", kind=wish, agent_id="a", **fields)
        )

    def heartbeat(self, load: int = 0, inbox_lag: int = 0, after: float = 10, **fields: Any) -> Any:
        self.now += int(after * SECOND)
        return self.command("heartbeat", load=load, inbox_lag=inbox_lag, **({"incarnation": "1"} | fields))

    def wake(self, after: float = 0) -> Any:
        self.now += int(after * SECOND)
        version = self.row.version if self.row else 1
        return self.deliver(WakeRecord(key="a", version=version), wakes_topic("agents"))

    def written(self) -> list[str]:
        """Where the last decision wrote, in order."""
        return [
            f"ensure {each.name} {each.partitions}" if isinstance(each, EnsureTopic)
            else f"{each.name or each.topic.name}{'' if each.record is not None else ' tombstone'}"
            for each in self.last
        ]  # fmt: skip

    def record(self, topic: str) -> Any:
        return next(each.record for each in self.last if isinstance(each, Output) and each.topic.name == topic)


def definition(*more: str, **fields: Any) -> AgentDefinition:
    return AgentDefinition(agent_id="a", agent_type="t", capabilities=["dig", *more], **fields)


def in_state(state: str, *, wish_stop: bool = False) -> Registry:
    made = Registry()
    if state == "absent":
        return made
    made.command("register", definition=definition(auto_start=not wish_stop or state in ("up", "offline")))
    if state in ("up", "offline"):
        made.heartbeat()
    if state == "offline":
        made.wake(after=30)
        if wish_stop and made.row is not None:
            made.row = made.row.model_copy(update={"desired": "stopped"})
    if state == "stopped":
        made.command("stop")
    if state == "up" and wish_stop:
        made.command("stop")
    assert made.row is not None and made.row.state == state
    return made


def draining(made: Registry, *, leaving: bool = False) -> Registry:
    made.command("unregister" if leaving else "stop")
    return made


EVENTS: dict[str, Callable[[Registry], Any]] = {
    "register": lambda r: r.command("register", definition=definition()),
    "register, other": lambda r: r.command("register", definition=definition("cut")),
    "register, replace": lambda r: r.command("register", definition=definition("cut"), replace=True),
    "start": lambda r: r.command("start"),
    "start, draining": lambda r: draining(r).command("start"),
    "heartbeat": lambda r: r.heartbeat(),
    "heartbeat, too soon": lambda r: r.heartbeat(after=4.9),
    "heartbeat, stop wished": lambda r: r.heartbeat(load=1),
    "heartbeat, drained": lambda r: draining(r).heartbeat(),
    "heartbeat, drained, leaving": lambda r: draining(r, leaving=True).heartbeat(),
    "heartbeat, draining, busy": lambda r: draining(r).heartbeat(load=1),
    "heartbeat, draining, unread": lambda r: draining(r).heartbeat(inbox_lag=1),
    "goodbye": lambda r: r.heartbeat(after=0, goodbye=True),
    "goodbye, of another process": lambda r: r.heartbeat(after=0, goodbye=True, incarnation="2"),
    "goodbye, draining": lambda r: draining(r).heartbeat(after=0, goodbye=True, load=1),
    "goodbye, draining, leaving": lambda r: draining(r, leaving=True).heartbeat(after=0, goodbye=True, load=1),
    "silent for 3 intervals": lambda r: r.wake(after=30),
    "silent, draining": lambda r: draining(r).wake(after=30),
    "silent, draining, leaving": lambda r: draining(r, leaving=True).wake(after=30),
    "stop": lambda r: r.command("stop"),
    "stop, again": lambda r: draining(r).command("stop", mode="drain"),
    "stop, now": lambda r: r.command("stop", mode="now"),
    "stop, some other mode": lambda r: r.command("stop", mode="later"),
    "unregister": lambda r: r.command("unregister"),
    "unregister, force": lambda r: r.command("unregister", force=True),
    "set weight": lambda r: r.command("set_weight", factor=0.5),
    "set weight, below 0": lambda r: r.command("set_weight", weight=-1.0),
    "outcome": lambda r: r.command("outcome", ok=False, code="timeout"),
    "session used": lambda r: r.command("session_used", session_id="s"),
    "open breaker": lambda r: r.command("breaker_open"),
    "reset breaker": lambda r: r.command("breaker_reset"),
}


def cells() -> list[tuple[str, str, str]]:
    found = []
    for line in TABLE.strip().splitlines()[1:]:
        event, *row = [part.strip() for part in line.split("|")]
        code = ""
        for column, cell in zip(COLUMNS, row, strict=True):
            code = cell if cell.startswith("no:") else code
            if cell != ".":
                found.append((event, column, code if cell == "no" else cell))
    return found


@pytest.mark.parametrize(("event", "state", "expected"), cells())
def test_cell(event: str, state: str, expected: str) -> None:
    made = in_state(state, wish_stop="stop wished" in event)
    before = made.row
    decided = EVENTS[event](made)
    if expected in ("=", "stale"):
        assert decided is None
    elif expected.startswith("no: "):
        assert isinstance(decided, Note)
        told = made.record("agents.events")
        assert (told.kind, told.error.code, told.from_state) == ("refused", expected[4:], before and before.state)
        assert made.written() == ["agents.events"]
    elif expected.startswith("= "):
        assert before is not None
        assert made.row is not None
        assert made.row.state == before.state
        assert CHANGED[expected[2:]](before if event != "start, draining" else _drained(before), made.row)
    elif expected == "absent":
        assert isinstance(decided, End)
        assert made.written()[:3] == ["agents.events", "agents.registry tombstone", "agents.health tombstone"]
    else:
        assert isinstance(decided, Change)
        assert made.row is not None
        assert made.row.state == expected == made.record("agents.events").to_state
        assert made.record("agents.registry").state == expected


def _drained(row: AgentRow) -> AgentRow:
    return row.model_copy(update={"draining": True})


def test_the_inbox_is_there_before_the_record() -> None:
    made = Registry()
    made.command("register", definition=definition(config=json.dumps({"inbox_partitions": 3})))
    assert made.written() == ["ensure agents.a.inbox 3", "agents.events", "agents.registry", "agents.health"]
    assert made.row is not None
    published = [each for each in made.processor.published(made.row) if isinstance(each, Output)]
    assert [each.record for each in published] == [each.record for each in made.last[2:] if isinstance(each, Output)]
    assert published[0].record.event_id == f"{made.row.cause}.r"  # type: ignore[union-attr]
    assert published[1].record.event_id == f"{made.row.cause}.h"  # type: ignore[union-attr]


def test_a_heartbeat_that_changes_nothing_says_nothing() -> None:
    made = in_state("up")
    assert isinstance(made.heartbeat(load=3), Change)
    assert made.written() == []
    assert made.row is not None
    assert (made.row.load, made.row.last_heartbeat) == (3, made.now)
    assert made.processor.due(made.row) == made.now + 30 * SECOND


def test_offline_is_noticed_and_left() -> None:
    made = in_state("up")
    assert made.row is not None
    assert made.wake(after=29.9) is None
    made.wake(after=0.1)
    told = made.record("agents.events")
    assert (told.kind, told.from_state, told.to_state) == ("offline", "up", "offline")
    assert told.reason == "no heartbeat for 30 s"
    assert made.processor.due(made.row) is None
    made.heartbeat()
    assert (made.record("agents.events").kind, made.record("agents.registry").state) == ("up", "up")


def test_a_goodbye_takes_the_agent_away_at_once() -> None:
    made = in_state("up")
    made.heartbeat(after=0.1, goodbye=True)
    told = made.record("agents.events")
    assert (told.kind, told.to_state, told.reason) == ("offline", "offline", "its host has stopped")
    made.heartbeat(after=0.1, incarnation="2")
    assert made.record("agents.registry").state == "up"


def test_a_goodbye_that_comes_late_takes_nothing_from_the_next_process() -> None:
    """However soon the next one is there: its first heartbeat is kept although the last one kept is fresh."""
    made = in_state("up")
    assert isinstance(made.heartbeat(after=0.1, incarnation="2"), Change)
    assert made.heartbeat(after=0.1, incarnation="1", goodbye=True) is None
    assert made.row is not None
    assert made.row.state is AgentState.UP
    made.heartbeat(after=0.1, incarnation="2", goodbye=True)
    assert made.row.state is AgentState.OFFLINE


@pytest.mark.parametrize(
    "wish", [{"kind": "stop"}, {"kind": "stop", "mode": "now"}, {"kind": "unregister", "force": True}]
)
def test_the_agent_finds_the_stop_in_its_inbox(wish: dict[str, Any]) -> None:
    made = in_state("up")
    made.command(**wish, reason="maintenance")
    assert made.written()[-1] == "agents.a.inbox"
    inbox = made.record("agents.<agent_id>.inbox")
    assert (inbox.kind, inbox.reason, inbox.event_id) == ("stop", "maintenance", f"agents.commands.0.{made.offset}.1")


def test_an_agent_that_must_not_start() -> None:
    made = Registry()
    made.command("register", definition=definition(auto_start=False))
    made.heartbeat()
    assert made.row is not None
    assert (made.row.state, made.row.desired) == (AgentState.REGISTERED, "stopped")
    made.command("start")
    made.heartbeat()
    assert made.row.state is AgentState.UP


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "definition: missing"),
        ({"definition": definition().model_copy(update={"agent_id": "b"})}, "definition.agent_id: 'b' is not 'a'"),
        ({"definition": definition(config="[]")}, "definition.config: must be a JSON object"),
        ({"definition": definition(metadata="x")}, "definition.metadata: must be a JSON object"),
        (
            {"definition": definition(config='{"inbox_partitions": 0}')},
            "definition.config.inbox_partitions: must be between 1 and 64",
        ),
    ],
)
def test_definitions_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    made = Registry()
    made.command("register", **fields)
    error = made.record("agents.events").error
    assert (error.code, error.message) == ("invalid_request", message)


def test_texts() -> None:
    made = in_state("up")
    made.command("register", definition=definition("cut"))
    assert made.record("agents.events").error.message == "Agent 'a' is already registered with another definition"
    made = Registry()
    made.command("start")
    assert made.record("agents.events").error.message == "Agent 'a' not found"


def test_a_rule_that_raised_leaves_the_agent_as_it_was() -> None:
    made = in_state("up")
    assert made.row is not None
    event: Any = None
    assert made.processor.broken(made.row, event, ValueError()) is None
    assert made.processor.expires(made.row) is None
