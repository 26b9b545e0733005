"""A coordinator played by hand on a log in memory, with the same moves as the one on a real Kafka (`stage.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from actors.api import Actor
from actors.runtime.memory import MemoryHost
from ops.memory.clock import VirtualClock
from ops.memory.installation import create_topics, memory_codecs
from ops.memory.log import MemoryLog, Stored
from ops.memory.loop import VirtualTime
from schemas.agents import AgentCommand, AgentRecord, AgentState
from schemas.deadletters import DeadLetter
from schemas.inbox import AssignedTask, InboxKind, InboxRecord
from schemas.partitioning import home
from schemas.settings import Settings, load_settings
from schemas.tasks import TaskReport
from schemas.topics import AGENT_COMMANDS, AGENT_REGISTRY, DEAD_LETTERS, INBOX, TASK_REPORTS, Topic, inbox_name
from tests.actors.stage import called
from topology import troupe

HOUR = 3_600_000_000


class MemoryStage:
    """One installation in memory; it is the agenda of its virtual time."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.clock = settings, VirtualClock()
        self.log, self.codecs = MemoryLog(self.clock), memory_codecs(settings)
        self.hosted: MemoryHost | None = None
        self.patience = 5.0
        self._news = asyncio.Event()
        create_topics(self.log, settings, troupe())

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, data: Path, **overrides: Any) -> AsyncIterator[MemoryStage]:
        given = {"kafka.topic_prefix": "m.", "kafka.partitions": 2, "data_dir": str(data)}
        given |= {name.replace("__", "."): each for name, each in overrides.items()}
        stage = cls(load_settings({}, overrides=given))
        with VirtualTime(stage.clock, stage, stage.patience):
            yield stage

    # --- the agenda

    @property
    def running(self) -> int:
        return self.hosted.running if self.hosted else 0

    @property
    def in_threads(self) -> int:
        return self.hosted.in_threads if self.hosted else 0

    @property
    def awaited(self) -> bool:
        return False

    def due(self) -> int | None:
        return self.hosted.due() if self.hosted else None

    def work(self) -> None:
        while self.hosted is not None and self.hosted.poll():
            self._news.set()

    def idle(self, until: int | None) -> bool:
        return False

    # --- the coordinator's moves

    def name(self, topic: Topic | str) -> str:
        return self.settings.kafka.topic_prefix + (topic if isinstance(topic, str) else topic.name)

    def now(self) -> int:
        return self.clock.now

    async def enrol(self, *actors: Actor, partitions: int = 1) -> None:
        for actor in actors:
            self.log.create(self.name(inbox_name(actor.agent_id)), partitions)
            record = AgentRecord(
                event_id=uuid.uuid4().hex, occurred_at=self.clock.now, source="coordinator", agent_id=actor.agent_id,
                definition=actor.definition(), state=AgentState.REGISTERED, registered_at=self.clock.now,
                updated_at=self.clock.now, version=1, cause="by.hand.0",
            )  # fmt: skip
            self.put(AGENT_REGISTRY, actor.agent_id, self.codecs.of(AGENT_REGISTRY.subject).encode(record))

    def put(self, topic: Topic | str, key: str, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        name = self.name(topic)
        self.log.append(name, home(key, self.log.topics()[name]), [(key.encode(), value, tuple(headers))])
        asyncio.get_running_loop().call_soon(self.work)

    async def inbox(self, agent_id: str, record: InboxRecord, key: str) -> None:
        self.put(inbox_name(agent_id), key, self.codecs.of(INBOX.subject).encode(record))

    async def assign(
        self, agent_id: str, task_id: str, payload: Any = None, epoch: int = 1, deadline: int | None = None
    ) -> None:
        task = AssignedTask(
            task_id=task_id, attempt=epoch, epoch=epoch, payload=json.dumps(payload or {}),
            deadline_at=deadline if deadline is not None else self.clock.now + HOUR,
        )  # fmt: skip
        await self.inbox(agent_id, self._record(InboxKind.ASSIGN, task=task), task_id)

    async def cancel(self, agent_id: str, task_id: str, epoch: int = 1) -> None:
        await self.inbox(agent_id, self._record(InboxKind.CANCEL, task_id=task_id, epoch=epoch), task_id)

    async def garbage(self, agent_id: str, value: bytes) -> None:
        self.put(inbox_name(agent_id), "k", value, [("h", b"\xff")])

    async def tell_stop(self, agent_id: str) -> None:
        await self.inbox(agent_id, self._record(InboxKind.STOP), agent_id)

    def _record(self, kind: InboxKind, **fields: Any) -> InboxRecord:
        envelope = {"event_id": uuid.uuid4().hex, "occurred_at": self.clock.now, "source": "coordinator", "kind": kind}
        return InboxRecord.model_validate(envelope | fields)

    # --- what comes of them

    def stored(self, topic: Topic | str) -> list[Stored]:
        name = self.name(topic)
        return [each for part in range(self.log.topics()[name]) for each in self.log.read(name, part, 0, 1_000_000)]

    def decoded(self, topic: Topic) -> list[Any]:
        codec = self.codecs.of(topic.subject)
        return [codec.decode(each.value or b"") for each in sorted(self.stored(topic), key=lambda each: each.timestamp)]

    async def read(self, topic: Topic, until: Callable[[list[Any]], Any], limit: float = 20.0) -> list[Any]:
        async with asyncio.timeout(limit):
            while not until(seen := self.decoded(topic)):
                self._news.clear()
                await self._news.wait()
        return seen

    async def reports(self, until: Callable[[list[TaskReport]], Any], limit: float = 20.0) -> list[TaskReport]:
        return await self.read(TASK_REPORTS, until, limit)

    async def commands(self, until: Callable[[list[AgentCommand]], Any], limit: float = 20.0) -> list[AgentCommand]:
        return await self.read(AGENT_COMMANDS, until, limit)

    async def dead_letters(self, until: Callable[[list[DeadLetter]], Any], limit: float = 20.0) -> list[DeadLetter]:
        return await self.read(DEAD_LETTERS, until, limit)

    async def committed(self, agent_id: str) -> tuple[int, str]:
        group = self.name(f"actors.{self.settings.actors.host}")
        return self.log.committed(group, self.name(inbox_name(agent_id)), 0) or (0, "")

    async def committed_to(self, agent_id: str, offset: int, limit: float = 10.0) -> None:
        async with asyncio.timeout(limit):
            while (await self.committed(agent_id))[0] < offset:
                self._news.clear()
                await self._news.wait()

    @contextlib.asynccontextmanager
    async def host(self, *actors: Actor, enrol: bool = True, name: str | None = None) -> AsyncIterator[MemoryHost]:
        """A host in this loop, of its own name or another; drained at the end unless it was killed."""
        if enrol:
            await self.enrol(*actors)
        settings = self.settings if name is None else called(self.settings, name)
        loop, seat = asyncio.get_running_loop(), settings.data_dir / "hosts" / settings.actors.host
        host = MemoryHost(
            settings, actors, self.codecs, self.log, lambda: self.clock.now, seat, lambda: loop.call_soon(self.work)
        )  # fmt: skip
        self.hosted = host
        host.start()
        self.work()
        try:
            yield host
        finally:
            if self.hosted is host:
                self.hosted = None
                await host.stop()
