"""The two stages on which an agent's behaviour is tried: a log in memory, and a real Kafka; the same moves on both."""

from __future__ import annotations

import uuid
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from actors.api import Actor
from schemas.agents import AgentCommand
from schemas.deadletters import DeadLetter
from schemas.inbox import InboxKind, InboxRecord
from schemas.tasks import TaskReport
from schemas.topics import Topic, inbox_name
from tests.actors.memory_stage import MemoryStage
from tests.actors.stage import Stage, micros


class KafkaStage(Stage):
    """The stage on Kafka with the few moves that only these tests make."""

    def now(self) -> int:
        return micros()

    async def garbage(self, agent_id: str, value: bytes) -> None:
        topic = self.name(inbox_name(agent_id))
        await self.producer.send_and_wait(topic, key=b"k", value=value, headers=[("h", b"\xff")])

    async def tell_stop(self, agent_id: str) -> None:
        envelope = {"event_id": uuid.uuid4().hex, "occurred_at": micros(), "source": "coordinator"}
        await self.inbox(agent_id, InboxRecord.model_validate(envelope | {"kind": InboxKind.STOP}), agent_id)


class AnyStage(Protocol):
    """What both can do; see `tests/actors/stage.py`."""

    def now(self) -> int: ...
    def name(self, topic: Topic | str) -> str: ...
    def host(self, *actors: Actor, enrol: bool = True, name: str | None = None) -> AbstractAsyncContextManager[Any]: ...
    async def enrol(self, *actors: Actor, partitions: int = 1) -> None: ...
    async def assign(
        self, agent_id: str, task_id: str, payload: Any = None, epoch: int = 1, deadline: int | None = None
    ) -> None: ...
    async def cancel(self, agent_id: str, task_id: str, epoch: int = 1) -> None: ...
    async def garbage(self, agent_id: str, value: bytes) -> None: ...
    async def tell_stop(self, agent_id: str) -> None: ...
    async def reports(self, until: Any, limit: float = 20.0) -> list[TaskReport]: ...
    async def commands(self, until: Any, limit: float = 20.0) -> list[AgentCommand]: ...
    async def dead_letters(self, until: Any, limit: float = 20.0) -> list[DeadLetter]: ...
    async def committed(self, agent_id: str) -> tuple[int, str]: ...
    async def committed_to(self, agent_id: str, offset: int, limit: float = 10.0) -> None: ...


class Open(Protocol):
    """Opens a stage; settings as `group__name=value`."""

    def __call__(self, **overrides: Any) -> AbstractAsyncContextManager[AnyStage]: ...


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def open_stage(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Each test runs on both."""
    if request.param == "memory":
        return partial(MemoryStage.open, tmp_path)
    return partial(KafkaStage.open, request.getfixturevalue("broker"), tmp_path)
