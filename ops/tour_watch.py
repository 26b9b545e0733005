"""The tour's eyes: what the coordinator says of the tour's tasks, told as soon as it can be read from the topics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from aiokafka import ConsumerRecord

from ops.client import SUBJECTS
from ops.codecs import load_codecs
from ops.views.log import open_log
from ops.views.tasks import TaskFold, TaskStatus
from schemas.errors import DecodeError, OperatorError, UnknownSchemaId
from schemas.settings import Settings
from schemas.tasks import TaskEvent, TaskResult
from schemas.topics import TASK_EVENTS, TASK_RESULTS
from topology import troupe


class Watch:
    """Follows tasks.events and tasks.results from their beginnings.

    told: called with each new event of an expected task and the milliseconds between `expect` and its arrival here.
    """

    def __init__(self, told: Callable[[TaskEvent, float], None]) -> None:
        self._told = told
        self._folds: dict[str, TaskFold] = {}
        self._since: dict[str, float] = {}
        self._news = asyncio.Event()

    def expect(self, task_id: str) -> None:
        """From now on this task's events are told; its clock starts."""
        self._folds[task_id] = TaskFold(task_id)
        self._since[task_id] = time.perf_counter()

    async def follow(self, settings: Settings) -> None:
        """Read until cancelled. Raises BrokerUnavailable."""
        codecs = await load_codecs(settings, troupe(), SUBJECTS)
        prefix = settings.kafka.topic_prefix
        async with open_log(settings) as log:
            homes = [
                partition
                for topic in (TASK_EVENTS, TASK_RESULTS)
                for partition in await log.partitions(prefix + topic.name)
            ]
            async for record in log.follow(await log.beginnings(homes)):
                if record is None or record.value is None:
                    continue
                subject = (TASK_EVENTS if record.topic == prefix + TASK_EVENTS.name else TASK_RESULTS).subject
                with suppress(DecodeError, UnknownSchemaId):
                    self._take(record, codecs.of(subject).decode(record.value))

    async def ended(self, task_id: str, following: asyncio.Task[None], limit_s: float) -> TaskStatus:
        """The task when it has ended, with its result. Raises OperatorError if that takes longer than `limit_s`."""
        fold = self._folds[task_id]
        deadline = time.monotonic() + limit_s
        while not fold.answered():
            if following.done():
                following.result()
            self._news.clear()
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise OperatorError(f"Task '{task_id}' has no outcome after {limit_s:g} s", hint="see the logs")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), min(1.0, left_s))
        found = fold.status()
        if found is None:
            raise OperatorError(f"Task '{task_id}' left no events", hint="see the logs")
        return found

    def _take(self, record: ConsumerRecord, found: object) -> None:
        if isinstance(found, TaskEvent) and (fold := self._folds.get(found.task_id)):
            fold.add_event(found)
            self._told(found, (time.perf_counter() - self._since[found.task_id]) * 1000)
        elif isinstance(found, TaskResult) and (fold := self._folds.get(found.task_id)):
            fold.add_result(found)
        self._news.set()
