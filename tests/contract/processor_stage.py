"""What a test of the coordinator may do, whatever the coordinator runs on: records in, time, deaths, records out."""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from schemas.agents import AgentCommand
from schemas.codec import Codecs
from schemas.deadletters import DeadLetter
from schemas.inbox import InboxRecord
from schemas.partitioning import home
from schemas.settings import Agents, Coordinator, ErrorRecovery, Kafka, Routing, Settings, Tasks
from schemas.task_row import TaskRow
from schemas.tasks import TaskCommand, TaskEvent, TaskReport, TaskResult
from schemas.topics import (
    AGENT_COMMANDS,
    AGENT_REGISTRY,
    DEAD_LETTERS,
    INBOX,
    TASK_EVENTS,
    TASK_REPORTS,
    TASK_REQUESTS,
    TASK_RESULTS,
    Topic,
    inbox_name,
)
from topology import troupe

PARTITIONS = 2
LIMIT_S = 20.0
"""Longest wait for anything, seconds of the stage's own time."""


class Raw(NamedTuple):
    """A record as it lies in the log."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


def settings_for(bootstrap: str, prefix: str, **others: Any) -> Settings:
    """Times of about a second, and batches that a backlog is longer than."""
    return Settings(
        kafka=Kafka(bootstrap_servers=bootstrap, topic_prefix=prefix, partitions=PARTITIONS),
        coordinator=Coordinator(wake_again_seconds=0.3, idle_seconds=0.02, batch_records=200),
        tasks=Tasks(timeout_seconds=60),
        error_recovery=ErrorRecovery(max_retries=1, retry_delay=0.1),
        routing=Routing(grace_seconds=0.5),
        agents=Agents(missed_heartbeats=2),
        **others,
    )


class Stage(ABC):
    """One installation with one coordinator. Ids must differ from test to test, as the stage is shared."""

    settings: Settings
    codecs: Codecs

    # --- what each runtime does in its own way

    @abstractmethod
    def append(self, topic: str, partition: int, key: bytes | None, value: bytes) -> str:
        """One record at the end of a topic; returns its position. Acked when this returns."""

    @abstractmethod
    def append_many(self, topic: str, partition: int, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Keys and values at the end of a topic; acked when this returns."""

    @abstractmethod
    def read(self, topic: str) -> list[Raw]:
        """All that a topic holds, by partition; nothing for one that does not exist."""

    @abstractmethod
    def until(self, happened: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
        """Let time pass until this is true of the log; returns what it gave. Raises AssertionError after the limit."""

    @abstractmethod
    def crash(self, keeps_store: bool, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Kill the coordinator where it stands and start it again, with its local store or without; `meanwhile` between."""

    # --- what users and agents say

    def name(self, topic: Topic) -> str:
        return self.settings.kafka.topic_prefix + topic.name

    def submit(self, task_id: str, partitioner: str = "java", **fields: Any) -> str:
        """A command as users write it; `partitioner` is java, crc32 or none (then without a key)."""
        command = TaskCommand(event_id=f"e-{task_id}", occurred_at=1, source="user", task_id=task_id, **fields)
        return self.request(task_id, self.codecs.of(TASK_REQUESTS.subject).encode(command), partitioner)

    def request(self, task_id: str, value: bytes, partitioner: str = "java") -> str:
        key, at_home = task_id.encode(), home(task_id, PARTITIONS)
        if partitioner == "none":
            return self.append(self.name(TASK_REQUESTS), 1 - at_home, None, value)
        number = at_home if partitioner == "java" else zlib.crc32(key) % PARTITIONS
        return self.append(self.name(TASK_REQUESTS), number, key, value)

    def tell(self, agent_id: str, kind: str, **fields: Any) -> None:
        """A command about an agent, or its heartbeat."""
        command = AgentCommand.model_validate(
            {"event_id": "e", "occurred_at": 1, "source": "user", "kind": kind, "agent_id": agent_id, **fields}
        )
        value = self.codecs.of(AGENT_COMMANDS.subject).encode(command)
        self.append(self.name(AGENT_COMMANDS), home(agent_id, PARTITIONS), agent_id.encode(), value)

    def agent(self, agent_id: str, *capabilities: str, heartbeat_s: int = 3600, **fields: Any) -> None:
        """An agent that is up as soon as this returns."""
        definition = {"agent_id": agent_id, "agent_type": "t", "capabilities": list(capabilities)}
        definition |= {"heartbeat_interval_seconds": heartbeat_s, **fields}
        self.tell(agent_id, "register", definition=definition)
        self.tell(agent_id, "heartbeat", load=0, inbox_lag=0)
        self.until(lambda: self.state_of(agent_id) == "up")

    def state_of(self, agent_id: str) -> str | None:
        """What the registry says of an agent."""
        mine = [each for each in self.read(self.name(AGENT_REGISTRY)) if each.key == agent_id.encode()]
        value = mine[-1].value if mine else None
        return None if value is None else str(self.codecs.of(AGENT_REGISTRY.subject).decode(value).state)

    def report(self, task_id: str, agent_id: str, kind: str, epoch: int = 1, **fields: Any) -> None:
        """What an agent says of an attempt."""
        value = self.said(task_id, agent_id, kind, epoch, **fields)
        self.append(self.name(TASK_REPORTS), home(task_id, PARTITIONS), task_id.encode(), value)

    def said(self, task_id: str, agent_id: str, kind: str, epoch: int = 1, **fields: Any) -> bytes:
        """The value of a report."""
        report = TaskReport.model_validate(
            {
                "event_id": f"r-{task_id}-{kind}-{epoch}", "occurred_at": 1, "source": agent_id, "kind": kind,
                "task_id": task_id, "agent_id": agent_id, "attempt": epoch, "epoch": epoch, **fields,
            }
        )  # fmt: skip
        return self.codecs.of(TASK_REPORTS.subject).encode(report)

    def backlog(self, count: int) -> None:
        """Reports on every partition that nobody waits for; to read them takes a while."""
        for number in range(PARTITIONS):
            keys = [key for n in range(4 * count) if home(key := f"nothing-{n}", PARTITIONS) == number][:count]
            said = ((key.encode(), self.said(key, "nobody", "started")) for key in keys)
            self.append_many(self.name(TASK_REPORTS), number, said)

    # --- what the world sees

    def events(self, task_id: str) -> list[TaskEvent]:
        """Facts about a task in the order of the log, each once."""
        found: dict[str, TaskEvent] = {}
        for each in self.read(self.name(TASK_EVENTS)):
            if each.key == task_id.encode():
                event = self.codecs.of(TASK_EVENTS.subject).decode(each.value or b"")
                found.setdefault(event.event_id, event)
        return list(found.values())

    def kinds(self, task_id: str) -> list[str]:
        return [str(event.kind) for event in self.events(task_id)]

    def see(self, task_id: str, *kinds: str) -> list[TaskEvent]:
        """Wait until these, and no others, have been told of a task, in this order."""
        self.until(lambda: len(self.events(task_id)) >= len(kinds))
        assert self.kinds(task_id) == list(kinds)
        return self.events(task_id)

    def result(self, task_id: str) -> TaskResult:
        """The one outcome of a task, waited for; copies must be byte for byte the same."""

        def mine() -> set[bytes | None]:
            return {each.value for each in self.read(self.name(TASK_RESULTS)) if each.key == task_id.encode()}

        self.until(mine)
        (value,) = mine()
        result: TaskResult = self.codecs.of(TASK_RESULTS.subject).decode(value or b"")
        return result

    def inbox(self, agent_id: str) -> list[InboxRecord]:
        """What an agent finds, each once."""
        raw = self.read(self.settings.kafka.topic_prefix + inbox_name(agent_id))
        found = [self.codecs.of(INBOX.subject).decode(each.value or b"") for each in raw]
        return list({each.event_id: each for each in found}.values())

    def letters(self) -> list[DeadLetter]:
        """All dead letters, each once."""
        codec = self.codecs.of(DEAD_LETTERS.subject)
        found = [codec.decode(each.value or b"") for each in self.read(self.name(DEAD_LETTERS))]
        return list({each.event_id: each for each in found}.values())

    def row(self, task_id: str) -> TaskRow:
        """The row of a task, as the changelog says it last."""
        spec = troupe().processors[0]
        topic = self.name(spec.changelog)
        values = self.until(lambda: [each.value for each in self.read(topic) if each.key == task_id.encode()])
        row: TaskRow = self.codecs.of(spec.changelog.subject).decode(values[-1] or b"")
        return row


def as_json(task_id: str, **fields: Any) -> bytes:
    """A request as a tool without Avro writes it."""
    return json.dumps({"task_id": task_id, **fields}).encode()
