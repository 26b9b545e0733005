"""The tour behind `troupe demo --offline`: the same work in this one process, without Kafka, Java or network.

The coordinator, the agents and the records are those of the real thing; the log lies in memory and time is virtual. So it
shows what the system decides and why, and nothing of how it survives: that takes a real Kafka.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from actors.catalog.builtin import builtin
from ops.memory.installation import schema_view
from ops.memory.rehearsal import Rehearsal
from ops.tour_stage import Stage
from ops.tour_work import LAST, SHOWN, Tour, picture, work
from ops.views.records import Decoder
from ops.views.tasks import TaskStatus
from schemas.settings import Settings
from schemas.tasks import TaskEvent
from schemas.topics import Topic
from topology import troupe


class _Lain(NamedTuple):
    """A record of the log in memory as a Kafka client would hand it out; `timestamp` in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class _InMemory:
    """A `System` on a rehearsal; shows each event with the virtual time since its task was submitted."""

    def __init__(self, rehearsal: Rehearsal, stage: Stage) -> None:
        self._rehearsal, self._stage = rehearsal, stage
        self._since: dict[str, int] = {}

    async def submit(self, task_id: str, pattern: str, payload: Mapping[str, Any]) -> None:
        self._since[task_id] = self._rehearsal.now
        await self._rehearsal.submit(pattern, dict(payload), task_id=task_id)

    async def ended(self, task_id: str, limit_s: float) -> TaskStatus:
        return await self._rehearsal.wait(task_id, limit_s)

    def tell(self, event: TaskEvent) -> None:
        """An event was written."""
        self._stage.event(event, (self._rehearsal.now - self._since[event.task_id]) / 1000)


async def offline_tour(settings: Settings, out: Path, stage: Stage) -> Tour:
    """Run the tour; the picture lies in `out` afterwards. Raises OperatorError if a task does not end as it should."""
    begun, seen, actors = time.monotonic(), Tour(offline=True), builtin(settings.agents.builtin)
    stage.step("Starting a coordinator and the agents in this process")
    async with Rehearsal(actors, settings=settings) as rehearsal:
        stage.rehearsing([actor.agent_id for actor in actors], time.monotonic() - begun)
        system = _InMemory(rehearsal, stage)
        rehearsal.follow(system.tell)
        seen.tasks = await work(system, rehearsal.settings, stage)
        seen.picture = picture(rehearsal.settings, seen.tasks, out)
        stage.result(seen.tasks[-1].document()["result"], seen.picture)
        decoder = Decoder(schema_view(troupe()))
        seen.topics = {topic.name: [decoder.document(each) for each in _last(rehearsal, topic)] for topic in SHOWN}
        stage.topics(seen.topics, "as records of topics in memory (Avro, framed as in Kafka)")
    seen.seconds = time.monotonic() - begun
    stage.rehearsed(seen.seconds)
    return seen


def _last(rehearsal: Rehearsal, topic: Topic) -> list[_Lain]:
    """The last records of a topic, oldest first."""
    name = rehearsal.settings.kafka.topic_prefix + topic.name
    found = [
        _Lain(name, number, each.offset, each.timestamp // 1000, each.key, each.value, each.headers)
        for number in range(rehearsal.log.topics()[name])
        for each in rehearsal.log.read(name, number, max(0, rehearsal.log.end(name, number) - LAST), LAST)
    ]
    return sorted(found, key=lambda each: (each.timestamp, each.partition, each.offset))[-LAST:]
