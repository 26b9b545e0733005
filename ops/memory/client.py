"""The client of a system in memory: the same questions as `ops.client.Client`, answered from the log at hand.

What is waited for comes by events of the log, in virtual time. A wait is a value that others can see, so that whoever turns
the wheel can say when nothing will ever come of it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from ops.client import NoOutcome, Submitted, result_of
from ops.commands import cloud_event_headers, command_of
from ops.memory.log import MemoryLog, Stored
from ops.views.cancel import Cancelled, cancelled
from ops.views.tasks import TaskFold, TaskStatus
from schemas.codec import Codecs
from schemas.errors import DecodeError, PayloadTooLarge, UnknownSchemaId
from schemas.partitioning import home
from schemas.settings import Settings
from schemas.tasks import CommandKind, TaskCommand, TaskEvent, TaskResult
from schemas.topics import TASK_EVENTS, TASK_REQUESTS, TASK_RESULTS, Topic

MICROS = 1_000_000
_AT_ONCE = 1000


@dataclass(slots=True, eq=False)
class Waiter:
    """Somebody who waits for news of a task, at most until a time in microseconds; `told` is resolved by news.

    decided: only events are news of it; before that a commit of the coordinator may be, too.
    """

    task_id: str
    until: int
    decided: bool
    told: asyncio.Future[None]


class MemoryClient:
    """Submits tasks and finds out what became of them. `sent` is called after each append."""

    def __init__(
        self, settings: Settings, codecs: Codecs, log: MemoryLog, sent: Callable[[], None], source: str = "client"
    ) -> None:
        self.waiters: list[Waiter] = []
        self._settings, self._codecs, self._log, self._sent, self._source = settings, codecs, log, sent, source
        self._next: dict[tuple[str, int], int] = {}
        self._events: defaultdict[str, list[TaskEvent]] = defaultdict(list)
        self._results: defaultdict[str, list[TaskResult]] = defaultdict(list)
        self._positions: dict[str, str] = {}
        self._count = 0
        self._news_of: set[str] = set()
        self.follower: Callable[[TaskEvent], None] | None = None
        """Called with each event of a task, once, as soon as it is in the log."""

    async def submit(self, *, watched: bool = False, **fields: Any) -> str:
        """Submit a task; return its id. The fields are those of TaskCommand; `payload`, `context` and `metadata` are JSON
        values; ids that are not given are counted, so that the same run makes the same ones.

        Raises InvalidInput for fields that make no command, PayloadTooLarge.
        """
        given = {key: value for key, value in fields.items() if value is not None}
        command = self._command({"task_id": f"task-{self._count + 1}"} | given, CommandKind.SUBMIT)
        submitted = await self.send(command)
        self._positions[submitted.task_id] = submitted.position
        return submitted.task_id

    def _command(self, fields: dict[str, Any], kind: CommandKind) -> TaskCommand:
        self._count += 1
        own = {"event_id": f"{self._source}.{self._count}", "occurred_at": self._log.clock.now}
        return command_of(self._source, fields, kind).model_copy(update=own)

    async def send(self, command: TaskCommand) -> Submitted:
        """Append a command as it is. Raises PayloadTooLarge."""
        record_headers = cloud_event_headers(command)
        value = self._codecs.of(TASK_REQUESTS.subject).encode(command)
        size = len(value) + sum(len(name) + len(text) for name, text in record_headers)
        if size > self._settings.limits.max_record_bytes:
            raise PayloadTooLarge(size, self._settings.limits.max_record_bytes)
        topic, partition = self._home(TASK_REQUESTS, command.task_id)
        offset = self._log.append(topic, partition, [(command.task_id.encode(), value, tuple(record_headers))])
        self._sent()
        return Submitted(command.task_id, f"{topic}.{partition}.{offset}")

    async def wait(self, task_id: str, timeout_s: float) -> TaskStatus | None:
        """What became of a task, as soon as it is finished, at the latest after `timeout_s` of virtual time; None if
        nothing is known. Which answer counts for an id that was submitted again is as in `ops.client.Client.wait`.
        """
        until = self._log.clock.now + int(timeout_s * MICROS)
        while True:
            fold = self._fold(task_id, self._positions.get(task_id))
            decided = self._decided(fold, self._positions.get(task_id))
            if decided and fold.answered():
                return fold.status()
            if self._log.clock.now >= until:
                return fold.status() if decided else None
            await self._news(task_id, until, decided)

    async def status(self, task_id: str) -> TaskStatus | None:
        """What is known of a task now, None if nothing is."""
        return self.seen(task_id)

    async def result(self, task_id: str, timeout_s: float = 60.0) -> Any:
        """The result of a task as a JSON value, as soon as it is completed.

        Raises TaskFailed if it ended otherwise or was refused, NoOutcome after `timeout_s` seconds.
        """
        return result_of(await self.wait(task_id, timeout_s), task_id, timeout_s)

    async def events(self, task_id: str, *, live: bool = True, timeout_s: float = 60.0) -> AsyncIterator[TaskEvent]:
        """The events of a task, each once: those that are there, oldest first, then new ones as they are written.

        Ends when the task is finished; with `live=False` after what is there. Raises NoOutcome if it is not finished
        after `timeout_s` seconds.
        """
        until, shown = self._log.clock.now + int(timeout_s * MICROS), set[str]()
        while True:
            fold = self._fold(task_id, self._positions.get(task_id))
            new = fold.unseen(shown)
            for event in new:
                yield event
            if new:
                continue  # whoever took them may have let time pass
            if not live or fold.finished():
                return
            if self._log.clock.now >= until:
                raise NoOutcome(task_id, timeout_s)
            await self._news(task_id, until, True)

    async def cancel(self, task_id: str, reason: str | None = None, timeout_s: float = 10.0) -> Cancelled:
        """Cancel a task; says what came of it, at the latest after `timeout_s` seconds. Raises InvalidInput."""
        until = self._log.clock.now + int(timeout_s * MICROS)
        position = (await self.ask_cancel(task_id, reason)).position
        while True:
            fold = self._fold(task_id, position)
            decided = self._decided(fold, position)
            if decided or self._log.clock.now >= until:
                return cancelled(task_id, decided, fold.answer())
            await self._news(task_id, until, False)

    async def ask_cancel(self, task_id: str, reason: str | None = None) -> Submitted:
        """Wish that a task be cancelled; errors as of `cancel`."""
        return await self.send(self._command({"task_id": task_id, "reason": reason}, CommandKind.CANCEL))

    def seen(self, task_id: str) -> TaskStatus | None:
        """The same as `status`, at once."""
        return self._fold(task_id, self._positions.get(task_id)).status()

    def due(self) -> int | None:
        """When the first waiter has waited long enough, and `tell` is to be called, microseconds."""
        return min((each.until for each in self.waiters if not each.told.done()), default=None)

    def tell(self) -> None:
        """There may be news: whoever it concerns looks again."""
        self._read()
        news, self._news_of = self._news_of, set()
        for waiter in self.waiters:
            late = not waiter.decided or self._log.clock.now >= waiter.until
            if (late or waiter.task_id in news) and not waiter.told.done():
                waiter.told.set_result(None)

    def _decided(self, fold: TaskFold, position: str | None) -> bool:
        """Whether the command that is asked about was decided: an event says so, or the coordinator's commit."""
        if position is None or fold.decided():
            return True
        topic, partition, offset = position.rsplit(".", 2)
        group = f"{self._settings.kafka.topic_prefix}coordinator"
        committed = self._log.committed(group, topic, int(partition))
        return committed is not None and committed[0] > int(offset)

    def _fold(self, task_id: str, position: str | None) -> TaskFold:
        self._read()
        fold = TaskFold(task_id, position)
        for event in self._events[task_id]:
            fold.add_event(event)
        for result in self._results[task_id]:
            fold.add_result(result)
        return fold

    def _read(self) -> None:
        for topic in (TASK_EVENTS, TASK_RESULTS):
            name = self._settings.kafka.topic_prefix + topic.name
            for partition in range(self._log.topics()[name]):
                while records := self._log.read(name, partition, self._next.get((name, partition), 0), _AT_ONCE):
                    self._next[name, partition] = records[-1].offset + 1
                    for record in records:
                        self._note(topic, record)

    def _note(self, topic: Topic, record: Stored) -> None:
        try:
            found = self._codecs.of(topic.subject).decode(record.value or b"")
        except (DecodeError, UnknownSchemaId):  # somebody else's record
            return
        if isinstance(found, TaskEvent | TaskResult):
            self._news_of.add(found.task_id)
        if isinstance(found, TaskEvent):
            known = self._events[found.task_id]
            if self.follower is not None and all(found.event_id != each.event_id for each in known):
                self.follower(found)
            known.append(found)
        elif isinstance(found, TaskResult):
            self._results[found.task_id].append(found)

    def _home(self, topic: Topic, key: str) -> tuple[str, int]:
        name = self._settings.kafka.topic_prefix + topic.name
        return name, home(key, self._log.topics()[name])

    async def _news(self, task_id: str, until: int, decided: bool) -> None:
        """Return when anything was appended, or at `until`. Raises what the waiter was told instead."""
        waiter = Waiter(task_id, until, decided, asyncio.get_running_loop().create_future())
        self.waiters.append(waiter)
        try:
            await waiter.told
        finally:
            self.waiters.remove(waiter)
