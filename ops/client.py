"""The Python client: submits tasks over Kafka and finds out what became of them.

A submit counts once the broker has it on all in-sync replicas. Its caller may choose the task_id; then a submit that
was not confirmed can be made again without the work being done twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from ops.codecs import load_codecs
from ops.commands import cloud_event_headers, command_of
from ops.running import settings_here
from ops.views.cancel import Cancelled, cancelled
from ops.views.log import LogReader, Offsets, open_log
from ops.views.tasks import TaskFold, TaskStatus, plain
from schemas.closing import closed
from schemas.codec import Codecs
from schemas.errors import BrokerUnavailable, DecodeError, PayloadTooLarge, Permanent, Retryable, UnknownSchemaId
from schemas.partitioning import home
from schemas.settings import Settings, process_environment
from schemas.tasks import CommandKind, TaskCommand, TaskEvent, TaskResult
from schemas.topics import TASK_EVENTS, TASK_REQUESTS, TASK_RESULTS
from topology import troupe

SUBJECTS = tuple(topic.subject for topic in (TASK_REQUESTS, TASK_EVENTS, TASK_RESULTS))
"""What a client must be able to read and write; it need not know the system's own rows."""

_RESULT_S = 5.0  # the outcome is written in the same moment as the last event; after a crash it may be repeated later
_BATCH_BYTES = 1024 * 1024


Told = Callable[[TaskFold | None], None]
"""Hears all the while what is known of a task that is waited for; None as long as its submit is undecided."""


class TaskFailed(Permanent):
    """A task ended in another way than completed; `code` and text are those of its error, `status` is all of it."""

    def __init__(self, status: TaskStatus) -> None:
        error = status.error
        super().__init__(
            error.message if error is not None else f"Task '{status.task_id}' is {status.status}",
            hint=f"troupe explain {status.task_id}",
            code=error.code if error is not None else str(status.status),
        )
        self.status = status


class NoOutcome(Retryable):
    """A task had no outcome when the time to wait was over; it goes on, and may be waited for again."""

    code = "timeout"

    def __init__(self, task_id: str, timeout_s: float) -> None:
        super().__init__(f"Task '{task_id}' has no outcome after {timeout_s:g} s", hint=f"troupe explain {task_id}")


@dataclass(frozen=True, slots=True)
class Submitted:
    """A confirmed submit. position: `<topic>.<partition>.<offset>` of its record."""

    task_id: str
    position: str


class Client:
    """`async with Client.here() as client`, or `Client(settings)`.

    Entering raises BrokerUnavailable, or OperatorError, if there is nothing to use.
    """

    def __init__(self, settings: Settings, source: str = "client") -> None:
        """`source` names this client in the records that it writes."""
        self._settings = settings
        self._source = source
        prefix = settings.kafka.topic_prefix
        self._requests, self._events, self._results = (
            prefix + topic.name for topic in (TASK_REQUESTS, TASK_EVENTS, TASK_RESULTS)
        )
        self._marks: dict[str, Offsets] = {}
        self._positions: dict[str, str] = {}
        self._codecs: Codecs | None = None
        self._partitions = 0
        self._producer: AIOKafkaProducer | None = None

    @classmethod
    def here(cls, data: Path | None = None, source: str = "client") -> Self:
        """A client of the system that the command would find: the Kafka that the environment names, else what runs here.

        `data` chooses among several. Raises OperatorError if none runs or several could be meant.
        """
        return cls(settings_here(process_environment(), data), source)

    async def __aenter__(self) -> Self:
        self._codecs = await load_codecs(self._settings, troupe(), SUBJECTS)
        async with open_log(self._settings) as log:  # a producer would wait half a minute for a topic that is not there
            self._partitions = len(await log.partitions(self._requests))
        kafka = self._settings.kafka
        producer = AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers,
            enable_idempotence=True,
            acks="all",
            max_batch_size=_BATCH_BYTES,
            max_request_size=self._settings.limits.max_record_bytes + _BATCH_BYTES,
            request_timeout_ms=int(kafka.request_timeout_seconds * 1000),
        )
        try:
            async with asyncio.timeout(kafka.metadata_timeout_seconds):
                await producer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await closed(producer.stop(), kafka.metadata_timeout_seconds)
            raise BrokerUnavailable.at(kafka.bootstrap_servers) from error
        self._producer = producer
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._producer is not None:
            await closed(self._producer.stop(), self._settings.kafka.metadata_timeout_seconds)

    async def submit(self, *, watched: bool = False, **fields: Any) -> str:
        """Submit a task; return its id once the broker has confirmed it.

        The fields are those of TaskCommand; `payload`, `context` and `metadata` are JSON values. `watched` remembers
        where the logs end, so that a `wait` for this id need not read what was before. Raises InvalidInput for fields
        that make no command, PayloadTooLarge, BrokerUnavailable if it was not confirmed in time.
        """
        command = command_of(self._source, fields)
        if watched and fields.get("task_id") is None:
            async with open_log(self._settings) as log:
                self._marks[command.task_id] = await log.ends(await self._homes(log, command.task_id))
        submitted = await self.send(command)
        if fields.get("task_id") is not None:  # an id that is new has no earlier submit to be told from
            self._positions[submitted.task_id] = submitted.position
        return submitted.task_id

    async def send(self, command: TaskCommand) -> Submitted:
        """Write a command as it is and wait for the broker's confirmation."""
        if self._producer is None or self._codecs is None:
            raise RuntimeError("use `async with Client(...)`")
        headers = cloud_event_headers(command)
        value = self._codecs.of(TASK_REQUESTS.subject).encode(command)
        size = len(value) + sum(len(name) + len(text) for name, text in headers)
        if size > self._settings.limits.max_record_bytes:
            raise PayloadTooLarge(size, self._settings.limits.max_record_bytes)
        limit_s = self._settings.kafka.request_timeout_seconds
        try:
            async with asyncio.timeout(limit_s):
                sent = await self._producer.send_and_wait(
                    self._requests, value, key=command.task_id.encode(), headers=headers,
                    partition=home(command.task_id, self._partitions),  # aiokafka's own choice, in a quarter of its time
                )  # fmt: skip
        except (KafkaError, TimeoutError) as error:
            raise BrokerUnavailable(
                f"Kafka at {self._settings.kafka.bootstrap_servers} did not confirm task '{command.task_id}'",
                hint=f"submit it again with the same id (--task-id {command.task_id}): a repeat changes nothing",
            ) from error
        return Submitted(command.task_id, f"{sent.topic}.{sent.partition}.{sent.offset}")

    async def wait(self, task_id: str, timeout_s: float, told: Told | None = None) -> TaskStatus | None:
        """What became of a task, as soon as it is finished, at the latest after `timeout_s`; None if nothing is known.

        For an id that `submit` just sent, a refusal of that very submit is the answer, and what an earlier submit of the
        id came to is no answer before this one was decided; if that did not happen in time, None. `told` is called with
        each record and at least every moment.
        """
        position = self._positions.get(task_id)
        fold = TaskFold(task_id, position)
        deadline = time.monotonic() + timeout_s
        async with open_log(self._settings) as log:
            homes = await self._homes(log, task_id)
            start = self._marks.get(task_id) or await log.beginnings(homes)
            if position is not None and task_id not in self._marks:
                if not await self._until_decided(log, fold, start, position, deadline, told):
                    return None
                async for record in log.read(start, await log.ends(homes)):
                    await self._take(fold, task_id, record)
            if not fold.answered():
                await self._until_answered(log, fold, start, deadline, told)
        return fold.status()

    async def _until_decided(
        self, log: LogReader, fold: TaskFold, start: Offsets, position: str, deadline: float, told: Told | None = None
    ) -> bool:
        """Whether the submit at `position` was decided in time.

        An event says so, or the coordinator's commit: the repeat of a submit changes nothing and makes no event.
        """
        topic, partition, offset = position.rsplit(".", 2)
        place = TopicPartition(topic, int(partition))
        group = f"{self._settings.kafka.topic_prefix}coordinator"
        async for record in log.follow(start):
            await self._take(fold, fold.task_id, record)
            if fold.decided() or (record is None and await log.committed(group, place) > int(offset)):
                return True
            if time.monotonic() >= deadline:
                break
            if told is not None:
                told(None)
        return False

    async def _until_answered(
        self, log: LogReader, fold: TaskFold, start: Offsets, deadline: float, told: Told | None
    ) -> None:
        """Follow the events until the task is finished and its outcome is here, or time is over."""
        finished: float | None = None
        async for record in log.follow(start):
            if await self._take(fold, fold.task_id, record) and fold.answered():
                return
            if time.monotonic() >= deadline:
                return
            if told is not None:
                told(fold)
            found = fold.status() if record is None else None
            if found is not None and found.finished:
                finished = finished or time.monotonic()
                if time.monotonic() - finished > _RESULT_S:
                    return

    async def result(self, task_id: str, timeout_s: float = 60.0) -> Any:
        """The result of a task as a JSON value, as soon as it is completed.

        Raises TaskFailed if it ended otherwise or was refused, NoOutcome after `timeout_s` seconds.
        """
        return result_of(await self.wait(task_id, timeout_s), task_id, timeout_s)

    async def status(self, task_id: str) -> TaskStatus | None:
        """What is known of a task now, None if nothing is. Reads its home partition from the beginning."""
        async with open_log(self._settings) as log:
            return (await self._history(log, task_id)).status()

    async def refusals(self, task_id: str) -> list[tuple[TaskEvent, TaskCommand | None]]:
        """What was refused of an id, oldest first, be there such a task or not; with the command if it is still kept."""
        async with open_log(self._settings) as log:
            found = (await self._history(log, task_id)).refusals()
        return [(event, await self.cause(event)) for event in found]

    async def events(self, task_id: str, *, live: bool = True, timeout_s: float = 60.0) -> AsyncIterator[TaskEvent]:
        """The events of a task, each once: those that are there, oldest first, then new ones as they are written.

        Ends when the task is finished; with `live=False` after what is there. Raises NoOutcome if it is not finished
        after `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        async with open_log(self._settings) as log:
            fold = await self._history(log, task_id)
            shown: set[str] = set()
            for event in fold.unseen(shown):
                yield event
            if not live or fold.finished():
                return
            async for record in log.follow(fold.read_to):
                if await self._take(fold, task_id, record):
                    for event in fold.unseen(shown):
                        yield event
                    if fold.finished():
                        return
                if time.monotonic() >= deadline:
                    raise NoOutcome(task_id, timeout_s)

    async def cancel(self, task_id: str, reason: str | None = None, timeout_s: float = 10.0) -> Cancelled:
        """Cancel a task; says what came of it, at the latest after `timeout_s` seconds.

        Raises InvalidInput for an id that is none, BrokerUnavailable if Kafka did not confirm the wish in time.
        """
        deadline = time.monotonic() + timeout_s
        async with open_log(self._settings) as log:
            start = await log.ends(await self._homes(log, task_id))
            position = (await self.ask_cancel(task_id, reason)).position
            fold = TaskFold(task_id, position)
            decided = await self._until_decided(log, fold, start, position, deadline)
            if decided and not fold.decided():
                async for record in log.read(start, await log.ends(start)):
                    await self._take(fold, task_id, record)
        return cancelled(task_id, decided, fold.answer())

    async def ask_cancel(self, task_id: str, reason: str | None = None) -> Submitted:
        """Wish that a task be cancelled, and return once the broker has the wish; errors as of `cancel`."""
        return await self.send(command_of(self._source, {"task_id": task_id, "reason": reason}, CommandKind.CANCEL))

    async def cause(self, event: TaskEvent) -> TaskCommand | None:
        """The command that led to an event; None if it was another record, or one that is not kept any more."""
        topic, partition, offset = event.cause.rsplit(".", 2)
        if topic != self._requests:
            return None
        place, at = TopicPartition(topic, int(partition)), int(offset)
        async with open_log(self._settings) as log:
            if at < (await log.beginnings([place]))[place]:
                return None
            async for record in log.read({place: at}, {place: at + 1}):
                try:
                    found = await self._decode(TASK_REQUESTS.subject, record.value or b"")
                except (DecodeError, UnknownSchemaId):  # a request as JSON, say
                    return None
                return found if isinstance(found, TaskCommand) else None
        return None

    async def _history(self, log: LogReader, task_id: str) -> TaskFold:
        """All that is there now of a task."""
        fold = TaskFold(task_id, self._positions.get(task_id))
        homes = await self._homes(log, task_id)
        fold.read_to = await log.ends(homes)
        async for record in log.read(await log.beginnings(homes), fold.read_to):
            await self._take(fold, task_id, record)
        return fold

    async def _homes(self, log: LogReader, task_id: str) -> list[TopicPartition]:
        """The partitions in which the events and the outcome of a task lie."""
        return [home_of(task_id, await log.partitions(topic)) for topic in (self._events, self._results)]

    async def _take(self, fold: TaskFold, task_id: str, record: ConsumerRecord | None) -> bool:
        """Whether the record was one of the task's."""
        if record is None or record.key != task_id.encode() or record.value is None:
            return False
        is_event = record.topic == self._events
        try:
            found = await self._decode((TASK_EVENTS if is_event else TASK_RESULTS).subject, record.value)
        except (DecodeError, UnknownSchemaId):  # somebody else's record; `troupe topics tail` shows it
            return False
        if isinstance(found, TaskEvent):
            fold.add_event(found)
        elif isinstance(found, TaskResult):
            fold.add_result(found)
        return True

    async def _decode(self, subject: str, value: bytes) -> Any:
        if self._codecs is None:
            raise RuntimeError("use `async with Client(...)`")
        try:
            return self._codecs.of(subject).decode(value)
        except UnknownSchemaId:  # written by a version that was deployed after our start
            self._codecs = await load_codecs(self._settings, troupe(), SUBJECTS)
            return self._codecs.of(subject).decode(value)


def result_of(found: TaskStatus | None, task_id: str, waited_s: float) -> Any:
    """The result of a task that was waited for. Raises TaskFailed if it ended otherwise, NoOutcome if it has not ended."""
    if found is None or not found.finished:
        raise NoOutcome(task_id, waited_s)
    if not found.completed:
        raise TaskFailed(found)
    return plain(found.result)


def home_of(key: str, partitions: list[TopicPartition]) -> TopicPartition:
    """The partition of a key: murmur2, as Kafka's own clients do it."""
    return partitions[home(key, len(partitions))]
