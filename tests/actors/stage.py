"""A coordinator played by hand: it registers agents, writes assignments and reads reports on a real Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from actors.api import Actor
from actors.runtime.kafka import run_host
from ops.codecs import load_codecs
from ops.topics import apply
from schemas.agents import AgentCommand, AgentRecord, AgentState
from schemas.codec import Codecs
from schemas.deadletters import DeadLetter
from schemas.inbox import AssignedTask, InboxKind, InboxRecord
from schemas.settings import Settings, load_settings
from schemas.tasks import TaskReport
from schemas.topics import AGENT_COMMANDS, AGENT_REGISTRY, DEAD_LETTERS, INBOX, TASK_REPORTS, Topic, inbox_name
from topology import troupe

HOUR = 3_600_000_000


def micros() -> int:
    return time.time_ns() // 1000


@dataclass
class Stage:
    """One installation (topic prefix) on a running broker."""

    settings: Settings
    codecs: Codecs
    producer: AIOKafkaProducer
    seen: dict[str, list[Any]] = field(default_factory=dict)
    _readers: dict[str, AIOKafkaConsumer] = field(default_factory=dict)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, bootstrap: str, data: Path, **overrides: Any) -> AsyncIterator[Stage]:
        given = {
            "kafka.bootstrap_servers": bootstrap, "kafka.topic_prefix": f"t{uuid.uuid4().hex[:8]}.",
            "kafka.partitions": 2, "data_dir": str(data), "coordinator.ready_seconds": 20,
        }  # fmt: skip
        given |= {name.replace("__", "."): each for name, each in overrides.items()}
        settings = load_settings({}, overrides=given)
        await apply(settings, troupe())
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=8 << 20)
        await producer.start()
        stage = cls(settings, await load_codecs(settings, troupe()), producer)
        try:
            yield stage
        finally:
            for reader in stage._readers.values():
                async with asyncio.timeout(5):
                    await reader.stop()
            await producer.stop()

    def name(self, topic: Topic | str) -> str:
        return self.settings.kafka.topic_prefix + (topic if isinstance(topic, str) else topic.name)

    async def enrol(self, *actors: Actor, partitions: int = 1) -> None:
        """What the registry does at a registration: the inbox, then the record."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka.bootstrap_servers)
        await admin.start()
        config = {"max.message.bytes": str(self.settings.limits.max_wrapped_bytes)}
        names = [self.name(inbox_name(actor.agent_id)) for actor in actors]
        await admin.create_topics([NewTopic(each, partitions, 1, topic_configs=config) for each in names])
        await admin.close()
        for actor in actors:
            record = AgentRecord(
                event_id=uuid.uuid4().hex, occurred_at=micros(), source="coordinator", agent_id=actor.agent_id,
                definition=actor.definition(), state=AgentState.REGISTERED, registered_at=micros(),
                updated_at=micros(), version=1, cause="by.hand.0",
            )  # fmt: skip
            await self.put(AGENT_REGISTRY, actor.agent_id, record)

    async def put(self, topic: Topic, key: str, record: Any, name: str | None = None, **place: Any) -> None:
        value = self.codecs.of(topic.subject).encode(record)
        await self.producer.send_and_wait(self.name(name or topic), key=key.encode(), value=value, **place)

    async def inbox(self, agent_id: str, record: InboxRecord, key: str) -> None:
        await self.put(INBOX, key, record, inbox_name(agent_id))

    async def assign(
        self, agent_id: str, task_id: str, payload: Any = None, epoch: int = 1, deadline: int | None = None
    ) -> None:
        """Write an assignment; it is acknowledged when this returns."""
        await self.inbox(agent_id, assignment(task_id, payload, epoch, deadline), task_id)

    async def assign_many(self, agent_id: str, records: Sequence[InboxRecord]) -> None:
        topic, codec = self.name(inbox_name(agent_id)), self.codecs.of(INBOX.subject)
        keys = [each.task.task_id if each.task else "" for each in records]
        sent = [
            await self.producer.send(topic, key=key.encode(), value=codec.encode(each))
            for key, each in zip(keys, records, strict=True)
        ]
        await asyncio.gather(*sent)

    async def cancel(self, agent_id: str, task_id: str, epoch: int = 1) -> None:
        record = InboxRecord(
            event_id=uuid.uuid4().hex, occurred_at=micros(), source="coordinator", kind=InboxKind.CANCEL,
            task_id=task_id, epoch=epoch,
        )  # fmt: skip
        await self.inbox(agent_id, record, task_id)

    async def read(self, topic: Topic, until: Callable[[list[Any]], Any], limit: float = 20.0) -> list[Any]:
        """All decoded records of a topic so far, as soon as `until` is true of them; fails after `limit` seconds."""
        reader = await self._reader(topic)
        seen = self.seen[topic.name]
        async with asyncio.timeout(limit):
            while not until(seen):
                for messages in (await reader.getmany(timeout_ms=50)).values():
                    seen += [self.codecs.of(topic.subject).decode(each.value) for each in messages]
        return seen

    async def reports(self, until: Callable[[list[TaskReport]], Any], limit: float = 20.0) -> list[TaskReport]:
        return await self.read(TASK_REPORTS, until, limit)

    async def commands(self, until: Callable[[list[AgentCommand]], Any], limit: float = 20.0) -> list[AgentCommand]:
        return await self.read(AGENT_COMMANDS, until, limit)

    async def dead_letters(self, until: Callable[[list[DeadLetter]], Any], limit: float = 20.0) -> list[DeadLetter]:
        return await self.read(DEAD_LETTERS, until, limit)

    async def quiet(self, topic: Topic, seconds: float) -> list[Any]:
        """What the topic holds after a while in which more could have come."""
        ends = time.monotonic() + seconds
        return await self.read(topic, lambda _: time.monotonic() > ends, seconds + 10)

    async def committed(self, agent_id: str) -> tuple[int, str]:
        """Offset and metadata that the host has committed for partition 0 of an inbox."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka.bootstrap_servers)
        await admin.start()
        group = f"{self.settings.kafka.topic_prefix}actors.{self.settings.actors.host}"
        found = await admin.list_consumer_group_offsets(group)
        await admin.close()
        entry = found.get(TopicPartition(self.name(inbox_name(agent_id)), 0))
        return (entry.offset, entry.metadata) if entry else (0, "")

    async def committed_to(self, agent_id: str, offset: int, limit: float = 10.0) -> None:
        async with asyncio.timeout(limit):
            while (await self.committed(agent_id))[0] < offset:  # noqa: ASYNC110 - Kafka tells nobody of a commit
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def host(
        self, *actors: Actor, enrol: bool = True, name: str | None = None, **given: Any
    ) -> AsyncIterator[asyncio.Event]:
        """The host in this process, of its own name or another, ready; stopped at the end."""
        if enrol:
            await self.enrol(*actors)
        ready, stop = asyncio.Event(), asyncio.Event()
        settings = self.settings if name is None else called(self.settings, name)
        running = asyncio.create_task(run_host(settings, actors, self.codecs, ready.set, stop, **given))
        waiting = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait([running, waiting], timeout=30, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            assert ready.is_set()
            yield stop
        finally:
            waiting.cancel()
            stop.set()
            async with asyncio.timeout(30):
                await running

    async def _reader(self, topic: Topic) -> AIOKafkaConsumer:
        name = self.name(topic)
        if name not in self._readers:
            reader = AIOKafkaConsumer(bootstrap_servers=self.settings.kafka.bootstrap_servers, fetch_max_wait_ms=50)
            await reader.start()
            partitions = [TopicPartition(name, each) for each in await self.producer.partitions_for(name)]
            reader.assign(partitions)
            await reader.seek_to_beginning(*partitions)
            self._readers[name], self.seen[topic.name] = reader, []
        return self._readers[name]


def called(settings: Settings, host: str) -> Settings:
    """The settings of a host of another name."""
    return settings.model_copy(update={"actors": settings.actors.model_copy(update={"host": host})})


def assignment(task_id: str, payload: Any = None, epoch: int = 1, deadline: int | None = None) -> InboxRecord:
    task = AssignedTask(
        task_id=task_id, attempt=epoch, epoch=epoch, payload=json.dumps(payload or {}),
        deadline_at=deadline if deadline is not None else micros() + HOUR,
    )  # fmt: skip
    return InboxRecord(
        event_id=uuid.uuid4().hex, occurred_at=micros(), source="coordinator", kind=InboxKind.ASSIGN, task=task
    )


def outcomes(reports: Sequence[TaskReport]) -> dict[str, str]:
    """Last word about each task: `completed`, or `failed:<code>`."""
    return {
        each.task_id: f"failed:{each.error.code}" if each.error else each.kind.value
        for each in reports
        if each.kind in ("completed", "failed")
    }
