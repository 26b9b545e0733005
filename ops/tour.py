"""The tour behind `troupe demo`: one real piece of work on a real Kafka, shown while it happens, and nothing left.

A newcomer believes what was seen. So the system is the one that `troupe up` starts, and every line comes out of the topics,
where any other Kafka tool would find it too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.client import Client
from ops.registry.schema_log import read_schemas
from ops.running import Birth
from ops.supervise import Plan, supervised
from ops.tour_stage import Stage
from ops.tour_watch import Watch
from ops.tour_work import LAST, SHOWN, Tour, picture, work
from ops.views.log import open_log
from ops.views.records import Decoder
from ops.views.tasks import TaskStatus
from ops.views.topics import last_records
from schemas.settings import Settings

_GONE_S = 5.0  # how long the end of the last process may take to show
_POLL_S = 0.05


async def tour(plan: Plan, out: Path, stage: Stage, stay: bool = False) -> Tour:
    """Run the tour on a system of its own and stop it; the picture lies in `out` afterwards.

    stay: after the tour the system runs on until this call is cancelled, and the call returns all the same. Raises
    OperatorError if the system does not start or a task does not end as it should.
    """
    begun, seen = time.monotonic(), Tour()
    async with supervised(plan) as supervisor:
        stage.step("Starting Apache Kafka, the coordinator and the agents")
        await supervisor.start()
        entry = supervisor.entry()
        seen.bootstrap = entry.bootstrap
        stage.started(entry, time.monotonic() - begun)
        kafka = plan.settings.kafka.model_copy(update={"bootstrap_servers": entry.bootstrap})
        settings = plan.settings.model_copy(update={"kafka": kafka})
        seen.tasks = await _work(settings, stage)
        seen.picture = picture(settings, seen.tasks, out)
        stage.result(seen.tasks[-1].document()["result"], seen.picture)
        seen.topics = await _topics(settings)
        stage.topics(seen.topics)
        stage.other_tools(settings, stay)
        if stay:
            await _until_cancelled()
        stage.step("Stopping everything")
        members = supervisor.entry().members
    seen.left_running = await _left([member.birth for member in members if member.role != "supervisor"])
    seen.seconds = time.monotonic() - begun
    stage.stopped(seen.left_running, seen.seconds)
    return seen


class _OnKafka:
    """A `System`: submits through the client, sees through the topics."""

    def __init__(self, client: Client, watch: Watch, following: asyncio.Task[None]) -> None:
        self._client, self._watch, self._following = client, watch, following

    async def submit(self, task_id: str, pattern: str, payload: Mapping[str, Any]) -> None:
        self._watch.expect(task_id)
        await self._client.submit(task_id=task_id, pattern=pattern, payload=dict(payload))

    async def ended(self, task_id: str, limit_s: float) -> TaskStatus:
        return await self._watch.ended(task_id, self._following, limit_s)


async def _work(settings: Settings, stage: Stage) -> list[TaskStatus]:
    watch = Watch(stage.event)
    following = asyncio.create_task(watch.follow(settings), name="watch")
    try:
        async with Client(settings, "demo") as client:
            return await work(_OnKafka(client, watch, following), settings, stage)
    finally:
        following.cancel()
        await asyncio.wait([following])


async def _until_cancelled() -> None:
    """Wait; the cancellation (Ctrl-C, SIGTERM) is the answer and not an error."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if (running := asyncio.current_task()) is not None:
            running.uncancel()


async def _topics(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """The last records of the topics that are shown, decoded, oldest first."""
    view = await read_schemas(settings.kafka.bootstrap_servers, settings.kafka.metadata_timeout_seconds)
    decoder, found = Decoder(view), {}
    async with open_log(settings) as log:
        for topic in SHOWN:
            partitions = await log.partitions(settings.kafka.topic_prefix + topic.name)
            found[topic.name] = [decoder.document(each) for each in await last_records(log, partitions, LAST)]
    return found


async def _left(births: list[Birth]) -> list[int]:
    """The ids of those that still live a moment after the end."""
    deadline = time.monotonic() + _GONE_S
    while True:
        left = [birth.pid for birth in births if birth.process() is not None]
        if not left or time.monotonic() >= deadline:
            return left
        await asyncio.sleep(_POLL_S)
