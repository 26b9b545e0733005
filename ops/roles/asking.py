"""Tasks on behalf of a hosted agent: submitted like anybody's, and their outcomes read from the log.

A handler may run again after a crash and then submits the same ids once more. A repeat makes no events, so the news of
such a task lie before the moment at which we begin to listen: whoever has no news after a while is looked up from the
beginning of the log, once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from aiokafka import TopicPartition

from actors.catalog.asking import Answer, Wish
from ops.client import Client, home_of
from ops.codecs import load_codecs
from ops.views.log import LogReader, Offsets, open_log
from ops.views.tasks import TaskFold
from schemas.codec import Codecs
from schemas.errors import DecodeError, UnknownSchemaId
from schemas.policies import RetryPolicy
from schemas.settings import Settings
from schemas.tasks import TaskEvent, TaskResult
from schemas.topics import TASK_EVENTS, TASK_RESULTS
from topology import troupe

SOURCE = "actors"
NO_NEWS_S = 5.0


class Asking:
    """An `Ask` of the system with these settings; safe in any thread, as each call has a loop and clients of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, wishes: Sequence[Wish], parent: str, seconds: float) -> Sequence[Answer | None]:
        """Raises BrokerUnavailable, OperatorError as the client does."""
        return asyncio.run(self._ask(wishes, parent, time.monotonic() + seconds))

    async def _ask(self, wishes: Sequence[Wish], parent: str, deadline: float) -> list[Answer | None]:
        folds = {wish.task_id: TaskFold(wish.task_id) for wish in wishes}
        codecs = await load_codecs(self._settings, troupe(), (TASK_EVENTS.subject, TASK_RESULTS.subject))
        async with Client(self._settings, SOURCE) as client, open_log(self._settings) as log:
            marks = await log.ends(await self._homes(log, folds))
            once = RetryPolicy(max_retries=0)
            for wish in wishes:
                await client.submit(
                    pattern=wish.pattern, payload=wish.payload, task_id=wish.task_id, parent_task_id=parent, retry=once
                )
            listening = _Listening(log, codecs, folds)
            if not await listening.until(marks, min(deadline, time.monotonic() + NO_NEWS_S)):
                start = await log.beginnings(marks) if listening.silent() else marks
                await listening.until(start, deadline)
        return [_answer(folds[wish.task_id]) for wish in wishes]

    async def _homes(self, log: LogReader, task_ids: dict[str, TaskFold]) -> set[TopicPartition]:
        prefix, found = self._settings.kafka.topic_prefix, set()
        for topic in (TASK_EVENTS, TASK_RESULTS):
            partitions = await log.partitions(prefix + topic.name)
            found |= {home_of(task_id, partitions) for task_id in task_ids}
        return found


class _Listening:
    """Takes in what the log says of some tasks."""

    def __init__(self, log: LogReader, codecs: Codecs, folds: dict[str, TaskFold]) -> None:
        self._log, self._codecs, self._folds = log, codecs, folds
        self._open = set(folds)

    def silent(self) -> bool:
        """Whether nothing at all is known of one of the tasks."""
        return any(self._folds[task_id].status() is None for task_id in self._open)

    async def until(self, start: Offsets, deadline: float) -> bool:
        """Read on until all tasks are answered; False if `deadline` came first."""
        async for record in self._log.follow(start):
            if record is not None and record.key is not None:
                self._take(record.key.decode("utf-8", "replace"), record.value)
            if not self._open:
                return True
            if time.monotonic() >= deadline:
                return False
        return False

    def _take(self, task_id: str, value: bytes | None) -> None:
        fold = self._folds.get(task_id)
        if fold is None or value is None:
            return
        for topic in (TASK_EVENTS, TASK_RESULTS):
            try:
                found = self._codecs.of(topic.subject).decode(value)
            except (DecodeError, UnknownSchemaId):  # of the other topic, or somebody else's
                continue
            if isinstance(found, TaskEvent):
                fold.add_event(found)
            elif isinstance(found, TaskResult):
                fold.add_result(found)
        if fold.answered():
            self._open.discard(task_id)


def _answer(fold: TaskFold) -> Answer | None:
    found = fold.status()
    if found is None or not found.finished:
        return None
    error = found.error
    return Answer(str(found.status), error.code if error else "", error.message if error else "")
