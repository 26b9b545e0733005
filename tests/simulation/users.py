"""The users of a simulated installation: untidy, and with a ledger of what they meant and where it lies."""

from __future__ import annotations

import json
import random
import zlib
from dataclasses import dataclass, field
from typing import Any

from schemas.agents import AgentCommand, AgentDefinition
from schemas.codec import Codecs
from schemas.partitioning import home
from schemas.tasks import TaskCommand
from schemas.topics import AGENT_COMMANDS, TASK_REPORTS, TASK_REQUESTS, Topic
from tests.faults.submitter import UNKNOWN_SCHEMA, Entry
from tests.simulation.installation import AGENTS, PARTITIONS, RecordedLog

KINDS = ("task", "task", "task", "task", "repeat", "conflict", "cancel", "execute", "assign", "garbage", "weight")
REPEATED_WITHIN = 1_800_000_000
"""Microseconds for which an id is used again: well within the time for which the coordinator knows it."""


@dataclass
class Users:
    """entries: submits and garbage, as the checker wants them. commands: positions of the other wishes."""

    log: RecordedLog
    codecs: Codecs
    rng: random.Random
    entries: list[Entry] = field(default_factory=list)
    commands: set[str] = field(default_factory=set)
    tasks: list[Entry] = field(default_factory=list)
    plain: bool = False
    """Whether all tasks ask for the same and nothing else happens, so that they queue up."""

    def act(self) -> str:
        """One record from somebody; returns what it was."""
        kind = self.rng.choice(KINDS)
        recent = [entry for entry in self.tasks if entry.at > self.log.clock.now - REPEATED_WITHIN]
        if kind == "garbage":
            return self._garbage()
        if kind == "weight":
            return self._weight()
        if kind == "task" or not recent or self.plain:
            return self._submit()
        entry = self.rng.choice(recent)
        if kind == "repeat":
            return self._put(Entry(self.log.clock.now, entry.id, kind, entry.value), entry.id)
        if kind == "conflict":
            value = self._encoded(entry.id, payload=json.dumps({"other": len(self.entries)}))
            return self._put(Entry(self.log.clock.now, entry.id, kind, value), entry.id)
        fields: dict[str, Any] = {"agent_id": self.rng.choice(AGENTS)} if kind == "assign" else {}
        value = self._encoded(entry.id, kind=kind, **fields)
        position = self._place(TASK_REQUESTS, value, entry.id)
        self.commands.add(position)
        return f"{kind} {entry.id} at {position}"

    def _submit(self) -> str:
        task_id, rng = f"t{len(self.tasks)}", self.rng
        fields: dict[str, Any] = {"required_capabilities": ["work"], "type": "sim"}
        if self.plain:
            value = self._encoded(task_id, payload=json.dumps({"n": len(self.tasks)}), **fields)
            entry = Entry(self.log.clock.now, task_id, "task", value)
            self.tasks.append(entry)
            return self._put(entry, task_id)
        if rng.random() < 0.2:
            fields["agent_id"] = rng.choice(AGENTS)
        if rng.random() < 0.1:
            fields["required_capabilities"] = ["nobody"]
        if rng.random() < 0.15:
            fields["hold"] = True
        if rng.random() < 0.2:
            fields["reply_to"] = rng.choice(["replies.here", "replies.nowhere"])
        if rng.random() < 0.15:
            fields["not_before"] = self.log.clock.now + rng.randrange(5_000_000)
        if rng.random() < 0.2:
            fields |= {"task_id": task_id, "payload": {"n": len(self.tasks)}}
            value = json.dumps(fields).encode()
        else:
            value = self._encoded(task_id, payload=json.dumps({"n": len(self.tasks)}), **fields)
        entry = Entry(self.log.clock.now, task_id, "task", value)
        self.tasks.append(entry)
        return self._put(entry, task_id)

    def _garbage(self) -> str:
        """Bytes that are no record, anywhere; each is one of its kind."""
        value = self.rng.choice([b"\xff\xff", UNKNOWN_SCHEMA, b"{"]) + str(len(self.entries)).encode()
        topic = self.rng.choice([TASK_REQUESTS, TASK_REPORTS, AGENT_COMMANDS])
        entry = Entry(self.log.clock.now, "", "garbage", value)
        entry.ack = self._append(topic, self.rng.randrange(PARTITIONS), self.rng.choice([None, b"\xfe"]), value)
        self.entries.append(entry)
        return f"garbage {value!r} at {entry.ack}"

    def _weight(self) -> str:
        """A wish about an agent; wrong ones are refused."""
        agent_id = self.rng.choice(AGENTS)
        return "weight at " + self.agent_command(agent_id, "set_weight", weight=self.rng.choice([0.5, 1.0, 2.0, -1.0]))

    def agent_command(self, agent_id: str, kind: str, **fields: Any) -> str:
        """A record on `agents.commands`; returns its position."""
        envelope = {"event_id": f"c{self.log.clock.now}", "occurred_at": self.log.clock.now, "source": agent_id}
        command = AgentCommand.model_validate(envelope | {"kind": kind, "agent_id": agent_id} | fields)
        value = self.codecs.of(AGENT_COMMANDS.subject).encode(command)
        position = self._place(AGENT_COMMANDS, value, agent_id)
        self.commands.add(position)
        return position

    def _encoded(self, task_id: str, **fields: Any) -> bytes:
        envelope = {"event_id": f"u{len(self.entries)}", "occurred_at": self.log.clock.now, "source": "user"}
        command = TaskCommand.model_validate(envelope | {"task_id": task_id} | fields)
        return self.codecs.of(TASK_REQUESTS.subject).encode(command)

    def _put(self, entry: Entry, key: str) -> str:
        entry.ack = self._place(TASK_REQUESTS, entry.value, key)
        self.entries.append(entry)
        return f"{entry.kind} {entry.id} at {entry.ack}"

    def _place(self, topic: Topic, value: bytes, key: str) -> str:
        """As the Java client partitions, as librdkafka does, or without a key."""
        drawn = self.rng.random()
        if drawn < 0.6:
            return self._append(topic, home(key, PARTITIONS), key.encode(), value)
        if drawn < 0.85:
            return self._append(topic, zlib.crc32(key.encode()) % PARTITIONS, key.encode(), value)
        return self._append(topic, self.rng.randrange(PARTITIONS), None, value)

    def _append(self, topic: Topic, partition: int, key: bytes | None, value: bytes) -> str:
        name = f"s.{topic.name}"
        return f"{name}.{partition}.{self.log.append(name, partition, [(key, value, ())])}"


def definition_of(agent_id: str, max_in_flight: int) -> AgentDefinition:
    return AgentDefinition(
        agent_id=agent_id, agent_type="sim", capabilities=["work"], max_in_flight=max_in_flight,
        heartbeat_interval_seconds=5,
    )  # fmt: skip
