"""The Python client: submits tasks over Kafka and finds out what became of them.

A submit counts once the broker has it on all in-sync replicas. Its caller may choose the task_id; then a submit that
was not confirmed can be made again without the work being done twice.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from ops.codecs import load_codecs
from ops.views.log import LogReader, Offsets, open_log
from ops.views.tasks import TaskFold, TaskStatus
from schemas.cloudevents import cloud_event
from schemas.codec import Codecs
from schemas.errors import BrokerUnavailable, DecodeError, InvalidInput, PayloadTooLarge, UnknownSchemaId
from schemas.partitioning import home
from schemas.settings import Settings
from schemas.tasks import CommandKind, TaskCommand, TaskEvent, TaskResult
from schemas.topics import TASK_EVENTS, TASK_REQUESTS, TASK_RESULTS
from topology import troupe

JSON_FIELDS = ("payload", "context", "metadata")
"""Fields that `submit` takes as JSON values."""

SUBJECTS = tuple(topic.subject for topic in (TASK_REQUESTS, TASK_EVENTS, TASK_RESULTS))
"""What a client must be able to read and write; it need not know the system's own rows."""

_RESULT_S = 5.0  # the outcome is written in the same moment as the last event; after a crash it may be repeated later
_BATCH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Submitted:
    """A confirmed submit. position: `<topic>.<partition>.<offset>` of its record."""

    task_id: str
    position: str


class Client:
    """`async with Client(settings) as client`; raises BrokerUnavailable or OperatorError if there is nothing to use."""

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
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        self._codecs = await load_codecs(self._settings, troupe(), SUBJECTS)
        async with open_log(self._settings) as log:
            await log.partitions(self._requests)  # a producer would wait half a minute for a topic that is not there
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
            await producer.start()
        except (KafkaError, OSError) as error:
            raise BrokerUnavailable.at(kafka.bootstrap_servers) from error
        self._producer = producer
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def submit(self, *, watched: bool = False, **fields: Any) -> str:
        """Submit a task; return its id once the broker has confirmed it.

        The fields are those of TaskCommand; `payload`, `context` and `metadata` are JSON values. `watched` remembers
        where the logs end, so that a `wait` for this id need not read what was before. Raises InvalidInput for fields
        that make no command, PayloadTooLarge, BrokerUnavailable if it was not confirmed in time.
        """
        command = command_of(self._source, fields)
        if watched and "task_id" not in fields:
            async with open_log(self._settings) as log:
                self._marks[command.task_id] = await log.ends(await self._homes(log, command.task_id))
        submitted = await self.send(command)
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
                    self._requests, value, key=command.task_id.encode(), headers=headers
                )
        except (KafkaError, TimeoutError) as error:
            raise BrokerUnavailable(
                f"Kafka at {self._settings.kafka.bootstrap_servers} did not confirm task '{command.task_id}'",
                hint=f"submit it again with the same id (--task-id {command.task_id}): a repeat changes nothing",
            ) from error
        return Submitted(command.task_id, f"{sent.topic}.{sent.partition}.{sent.offset}")

    async def wait(self, task_id: str, timeout_s: float) -> TaskStatus | None:
        """What became of a task, as soon as it is finished, at the latest after `timeout_s`; None if nothing is known.

        For an id that `submit` just sent, a refusal of that very submit is the answer, and what an earlier submit of the
        id came to is no answer before this one was decided; if that did not happen in time, None.
        """
        position = self._positions.get(task_id)
        fold = TaskFold(task_id, position)
        deadline = time.monotonic() + timeout_s
        async with open_log(self._settings) as log:
            homes = await self._homes(log, task_id)
            start = self._marks.get(task_id) or await log.beginnings(homes)
            if position is not None and task_id not in self._marks:
                if not await self._until_decided(log, fold, start, position, deadline):
                    return None
                async for record in log.read(start, await log.ends(homes)):
                    await self._take(fold, task_id, record)
            if not fold.answered():
                await self._until_answered(log, fold, start, deadline)
        return fold.status()

    async def _until_decided(
        self, log: LogReader, fold: TaskFold, start: Offsets, position: str, deadline: float
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
        return False

    async def _until_answered(self, log: LogReader, fold: TaskFold, start: Offsets, deadline: float) -> None:
        """Follow the events until the task is finished and its outcome is here, or time is over."""
        finished: float | None = None
        async for record in log.follow(start):
            if await self._take(fold, fold.task_id, record) and fold.answered():
                return
            if time.monotonic() >= deadline:
                return
            found = fold.status() if record is None else None
            if found is not None and found.finished:
                finished = finished or time.monotonic()
                if time.monotonic() - finished > _RESULT_S:
                    return

    async def status(self, task_id: str) -> TaskStatus | None:
        """What is known of a task now, None if nothing is. Reads its home partition from the beginning."""
        fold = TaskFold(task_id, self._positions.get(task_id))
        async with open_log(self._settings) as log:
            homes = await self._homes(log, task_id)
            async for record in log.read(await log.beginnings(homes), await log.ends(homes)):
                await self._take(fold, task_id, record)
        return fold.status()

    async def events(self, task_id: str) -> list[TaskEvent]:
        """The events of a task, each once, in the order of its versions."""
        found = await self.status(task_id)
        return [] if found is None else found.history

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


def home_of(key: str, partitions: list[TopicPartition]) -> TopicPartition:
    """The partition of a key: murmur2, as Kafka's own clients do it."""
    return partitions[home(key, len(partitions))]


def command_of(source: str, fields: Mapping[str, Any]) -> TaskCommand:
    """A submit from a caller's fields. Raises InvalidInput naming the first field that is wrong."""
    now = time.time_ns() // 1000
    given = {name: value for name, value in fields.items() if value is not None}
    for name in JSON_FIELDS:
        if name in given:
            given[name] = json_text(given[name], name)
    envelope = {"event_id": str(uuid.uuid4()), "occurred_at": now, "source": source, "kind": CommandKind.SUBMIT}
    try:
        return TaskCommand.model_validate({"task_id": str(uuid.uuid4())} | given | envelope)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{where}: {first['msg']}", code="invalid_request") from wrong


def json_text(value: Any, where: str) -> str:
    """JSON text of a value. Raises InvalidInput where it has none (NaN, an object that is no JSON)."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as wrong:
        raise InvalidInput(f"{where}: {wrong}", code="invalid_request") from wrong


def cloud_event_headers(command: TaskCommand) -> list[tuple[str, bytes]]:
    """The CloudEvents headers of a request, as aiokafka takes them."""
    return list(cloud_event(command, command.task_id))
