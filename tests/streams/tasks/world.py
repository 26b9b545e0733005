"""A processor without a runtime: rows in a dict, records by hand, every row and record through its codec.

It does what a runtime does and nothing more: looks up the row, steps, makes the outputs (twice: they must be equal),
encodes everything, keeps the indexes, and wakes what asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.agents import AgentDefinition, AgentHealth, AgentRecord, AgentState, BreakerState
from schemas.avro import avro_schema
from schemas.base import Record
from schemas.changelog import WakeRecord
from schemas.codec import Codec
from schemas.settings import Settings
from schemas.task_row import TaskRow
from schemas.tasks import CommandKind, ReportKind, RoutingDecision, TaskCommand, TaskError, TaskReport
from schemas.topics import AGENT_HEALTH, AGENT_REGISTRY, TASK_REPORTS, TASK_REQUESTS, Topic, wakes_topic
from streams.processor import Change, EnsureTopic, Event, Note, Output, Share, Stamp
from streams.tasks.processor import TasksProcessor

START = 1_700_000_000_000_000
SECOND = 1_000_000
_CODECS: dict[type[Record], Codec[Any]] = {}


def codec(model: type[Record]) -> Codec[Any]:
    """One codec per record."""
    if model not in _CODECS:
        _CODECS[model] = Codec(model, avro_schema(model), len(_CODECS) + 1, model.__name__, 4 << 20)
    return _CODECS[model]


def encoded(output: Output | EnsureTopic) -> tuple[Any, ...]:
    """All that would be written, as bytes."""
    if isinstance(output, EnsureTopic):
        return (output.name, output.partitions)
    value = None if output.record is None else codec(type(output.record)).encode(output.record)
    if output.record is not None:
        assert codec(type(output.record)).decode(value) == output.record
    spare = encoded(output.fallback) if output.fallback is not None else None
    return (output.topic.name, output.name, output.key, output.partition, value, output.headers, spare)


@dataclass
class FakeViews:
    """Views over two dicts."""

    records: dict[str, dict[str, Any]] = field(default_factory=lambda: {AGENT_REGISTRY.name: {}, AGENT_HEALTH.name: {}})

    def get(self, topic: Topic, key: str) -> Any:
        return self.records[topic.name].get(key)

    def items(self, topic: Topic) -> Mapping[str, Any]:
        return self.records[topic.name]

    def offsets(self) -> str:
        return json.dumps({name: len(found) for name, found in self.records.items()})


class World:
    """One coordinator with one partition."""

    def __init__(self, settings: Settings | None = None, share: Share | None = None) -> None:
        self.settings = settings or Settings()
        self.share = share or Share(1, 1)
        self.views = FakeViews()
        self.rows: dict[str, TaskRow] = {}
        self.now = START
        self.offset = 0
        self.seq = 0
        self.read_until: int | None = None  # the time up to which reports are read; None: all of them
        self.last: list[Output] = []
        self.sent: list[Output] = []
        self.processor = self.fresh()

    def fresh(self) -> TasksProcessor:
        """A new instance, its indexes rebuilt from the rows."""
        self.processor = TasksProcessor(self.settings, self.share, self._decode, "test")
        for row in self.rows.values():
            self.processor.index(None, row)
        return self.processor

    def _decode(self, value: bytes, position: str) -> TaskCommand:
        return codec(TaskCommand).decode(value)  # type: ignore[no-any-return]

    # --- agents

    def agent(
        self, agent_id: str, *capabilities: str, state: AgentState = AgentState.UP, breaker: str = "closed",
        draining: bool = False, **definition: Any,
    ) -> None:  # fmt: skip
        """Register an agent, or change it."""
        self.seq += 1
        self.views.records[AGENT_REGISTRY.name][agent_id] = AgentRecord(
            event_id="r", occurred_at=self.now, source="coordinator", agent_id=agent_id,
            definition=AgentDefinition(
                agent_id=agent_id, agent_type="t", capabilities=list(capabilities), **definition
            ),
            state=state, draining=draining, registered_at=self.now, updated_at=self.now, version=self.seq, cause="c",
        )  # fmt: skip
        self.views.records[AGENT_HEALTH.name][agent_id] = AgentHealth(
            event_id="h", occurred_at=self.now, source="coordinator", agent_id=agent_id,
            breaker=BreakerState(breaker), version=self.seq, cause="c",
        )  # fmt: skip
        self.processor.view_changed(AGENT_REGISTRY, agent_id)

    def unregister(self, agent_id: str) -> None:
        """Leave both views."""
        for found in self.views.records.values():
            found.pop(agent_id, None)
        self.processor.view_changed(AGENT_REGISTRY, agent_id)

    # --- records

    def event(self, topic: Topic, key: str, record: Record, headers: tuple[tuple[str, bytes], ...] = ()) -> Event:
        """A record as the runtime would deliver it."""
        self.offset += 1
        self.seq += 1
        stamp = Stamp("coordinator-1", self.seq, self.now + 1500, self.views.offsets())
        position = f"{topic.name}.0.{self.offset}"
        value = codec(type(record)).encode(record)
        prepared = self.processor.prepare(record, value, headers)
        return Event(topic, 0, self.offset, key, self.now, position, record, value, headers, stamp, None, prepared)

    def deliver(self, event: Event) -> Change[TaskRow] | Note | None:
        """Step, make the outputs, keep the row and the indexes."""
        row = self.rows.get(event.key)
        decided = self.processor.step(row, event, self.views)
        return self.settle(row, decided, event)

    def settle(self, row: TaskRow | None, decided: Any, event: Event) -> Change[TaskRow] | Note | None:
        """What follows a decision."""
        self.last = []
        if decided is None:
            return None
        self.last = [output for output in self.processor.outputs(decided, event) if isinstance(output, Output)]
        made = [encoded(output) for output in self.last]
        assert made == [encoded(output) for output in self.processor.outputs(decided, event)]
        ids = [output.record.event_id for output in self.last if output.topic.name != "<reply_to>"]  # type: ignore[union-attr]
        assert len(ids) == len(set(ids))
        self.sent += self.last
        if isinstance(decided, Change):
            after = decided.row
            assert after.version == (row.version if row else 0) + 1 and after.cause == event.position
            assert codec(TaskRow).decode(codec(TaskRow).encode(after)) == after
            self.processor.index(row, after)
            self.rows[event.key] = after
        return decided  # type: ignore[no-any-return]

    def command(self, task_id: str = "t", kind: str = "submit", **fields: Any) -> Change[TaskRow] | Note | None:
        """A command of a user."""
        record = TaskCommand(
            event_id=f"c{self.offset}", occurred_at=self.now, source="test", task_id=task_id, kind=CommandKind(kind),
            **fields,
        )  # fmt: skip
        return self.deliver(self.event(TASK_REQUESTS, task_id, record, (("traceparent", b"00-aa-bb-01"),)))

    def rule_raises(self, task_id: str = "t") -> Any:
        """What the runtime does when a rule raised on a record of the task."""
        record = TaskReport(
            event_id="r", occurred_at=self.now, source="a", task_id=task_id, agent_id="a", attempt=1, epoch=1
        )
        event, row = self.event(TASK_REPORTS, task_id, record), self.rows[task_id]
        return self.settle(row, self.processor.broken(row, event, ValueError("boom")), event)

    def report(self, kind: str, task_id: str = "t", epoch: int | None = None, **fields: Any) -> Any:
        """A report of the agent that has the task, of the present epoch unless told otherwise."""
        row = self.rows.get(task_id)
        now = epoch if epoch is not None else (row.epoch if row else 1)
        fields.setdefault("agent_id", (row.agent_id if row else None) or "a")
        if kind == "failed" and "error" not in fields:
            fields["error"] = TaskError(code="agent_error", message="boom", retryable=True)
        record = TaskReport(
            event_id="r", occurred_at=self.now, source="a", kind=ReportKind(kind), task_id=task_id, epoch=now,
            attempt=now, **fields,
        )  # fmt: skip
        return self.deliver(self.event(TASK_REPORTS, task_id, record))

    def wake(self, task_id: str = "t", version: int | None = None, due: bool = True) -> Any:
        """A wake of the row as it is."""
        row = self.rows.get(task_id)
        record = WakeRecord(key=task_id, version=version if version is not None else (row.version if row else 1), due=due)
        return self.deliver(self.event(wakes_topic("tasks"), task_id, record))

    def settle_ready(self, rounds: int = 10) -> list[str]:
        """Wake what could move until nothing does; the keys that moved, in order."""
        moved: list[str] = []
        for _ in range(rounds):
            keys = self.movable()
            fruits = [key for key in keys if self.wake(key) is not None]
            moved += fruits
            if not fruits and not keys:
                break
        return moved

    def movable(self) -> list[str]:
        """What the runtime would wake: rows stranded before all that is unread, and rows that are ready."""
        until = self.read_until
        found = self.processor.stranded(self.now, self.views)
        stranded = [key for since, keys in found if until is None or since <= until for key in keys]
        return [*stranded, *self.processor.ready(self.now, self.views)]

    def pass_time(self, seconds: float) -> None:
        """Let time pass and wake what is due."""
        self.now += int(seconds * SECOND)
        for key, row in list(self.rows.items()):
            due = self.processor.due(row)
            if due is not None and due <= self.now:
                self.wake(key)

    # --- looking

    def row(self, task_id: str = "t") -> TaskRow:
        """The row of a task."""
        return self.rows[task_id]

    def of(self, topic: str) -> list[Any]:
        """Records of the last decision on a topic, by a part of its name."""
        return [output.record for output in self.last if topic in output.topic.name]

    @property
    def told(self) -> Any:
        """The event of the last decision."""
        return self.of("tasks.events")[0]


def text_of(decision: RoutingDecision) -> str:
    """What its record writes, without fields at their default."""
    return decision.model_dump_json(exclude_defaults=True)
