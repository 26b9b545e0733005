"""Between the log and the rules: real topic names, decoding of what came, encoding of what goes, homes and origins.

Everything here is a function of bytes, so both runtimes share it. A value that cannot be read is not an error of the
runtime but a fact about the record: it becomes `Unreadable`, and the record ends as a dead letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from schemas.base import Envelope, Record
from schemas.cloudevents import cloud_event
from schemas.codec import Codec, Codecs
from schemas.errors import DecodeError, PayloadTooLarge
from schemas.json_requests import parse_request
from schemas.partitioning import home
from schemas.settings import Settings
from schemas.tasks import TaskCommand
from schemas.topics import TASK_REQUESTS, Topic
from streams.processor import Headers, Output, filled

ORIGIN = "x-origin"
"""Header of a re-produced record: where it was found, and when it was appended there, `<position>@<microseconds>`.

Believed on repartition topics only. The time travels with it because a record may be re-produced twice: what follows
from either copy must be the same bytes.
"""


class Delivery(NamedTuple):
    """One record as it came: `now` is its append time in microseconds."""

    topic: Topic
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    now: int
    headers: Headers
    handle: Any


class Unreadable(NamedTuple):
    """Why a value is no record of its topic."""

    error: str


class Source(NamedTuple):
    """Where a record came from first: its position as text and in parts, under the topic's real name.

    now: its append time there, microseconds.
    """

    position: str
    topic: str
    partition: int
    offset: int
    now: int

    def header(self) -> tuple[str, bytes]:
        """The header of a copy."""
        return ORIGIN, f"{self.position}@{self.now}".encode()


class Encoded(NamedTuple):
    """An output ready to be sent. partition: -1 for the one that its key has among those that the topic turns out to have.

    fallback: takes its place if a user's topic refuses.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    users: bool = False
    fallback: Encoded | None = None


class Wire:
    """Names, codecs and homes of one installation."""

    def __init__(self, settings: Settings, codecs: Codecs) -> None:
        self._prefix = settings.kafka.topic_prefix
        self._limit = settings.limits.max_record_bytes
        self.partitions = settings.kafka.partitions
        self.codecs = codecs
        self._codecs: dict[str, Codec[Any]] = {}

    def real(self, name: str) -> str:
        """Name of a topic on the cluster."""
        return self._prefix + name

    def source(self, delivery: Delivery, is_copy: bool) -> Source:
        """Position of a record; of its origin where it is a re-produced copy. Raises DecodeError for a bad origin."""
        if not is_copy:
            name = self.real(delivery.topic.name)
            position = f"{name}.{delivery.partition}.{delivery.offset}"
            return filled(Source, (position, name, delivery.partition, delivery.offset, delivery.now))
        for header, value in delivery.headers:
            if header == ORIGIN:
                try:
                    position, now = value.decode().rsplit("@", 1)
                    topic, partition, offset = position.rsplit(".", 2)
                    return Source(position, topic, int(partition), int(offset), int(now))
                except ValueError as error:
                    raise DecodeError(f"header {ORIGIN} is no position: {value[:100]!r}") from error
        raise DecodeError(f"a record of {self.real(delivery.topic.name)} without the header {ORIGIN}")

    def topic_of_origin(self, source: Source, inputs: Mapping[str, Topic]) -> Topic:
        """The input topic that a copy came from, by real name. Raises DecodeError for a foreign one."""
        try:
            return inputs[source.topic]
        except KeyError:
            raise DecodeError(f"header {ORIGIN} names {source.topic}, which is no input here") from None

    def decode(self, topic: Topic, value: bytes | None, source: Source, now: int) -> Record:
        """The record of a value. Raises DecodeError for bytes that are none, UnknownSchemaId for a schema not seen."""
        if value is None:
            raise DecodeError(f"{topic.name}: a record without a value")
        if topic is TASK_REQUESTS:
            return self.decode_request(value, source.position, now)
        record: Record = self.codecs.of(topic.subject).decode(value)
        return record

    def decode_request(self, value: bytes, position: str, now: int = 0) -> TaskCommand:
        """A request, Avro or JSON. Raises DecodeError, UnknownSchemaId."""
        if value[:1] != b"{":
            command: TaskCommand = self.codecs.of(TASK_REQUESTS.subject).decode(value)
            return command
        if len(value) > self._limit:
            raise DecodeError(f"{len(value)} bytes exceed {self._limit} bytes")
        fields = {"event_id": position, "occurred_at": now, "source": "json"} | parse_request(value, position)
        try:
            return TaskCommand.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DecodeError(f"{where}: {first['msg']}") from error

    def encode(self, output: Output, event_key: str, event_partition: int) -> Encoded:
        """An output as bytes, with the headers of its topic.

        Raises PayloadTooLarge over the topic's limit, SchemaError for a value that does not fit.
        """
        topic = output.topic
        codec = self._codecs.get(topic.name)
        if codec is None:
            codec = self._codecs[topic.name] = self.codecs.of(topic.subject)
        value = None if output.record is None else codec.encode(output.record)
        name = output.name or topic.name
        users = topic.family and topic.name == "<reply_to>"
        fallback = self.encode(output.fallback, event_key, event_partition) if output.fallback else None
        headers = output.headers
        if headers:  # the codec looks at the value alone
            _refuse_large(len(value or b""), headers, codec.max_record_bytes)
        if topic.edge and isinstance(output.record, Envelope):
            headers += cloud_event(output.record, output.key)
        partition = self._partition(output, event_key, event_partition)
        real = name if users else self._prefix + name
        return filled(Encoded, (real, partition, output.key.encode(), value, headers, users, fallback))

    def _partition(self, output: Output, event_key: str, event_partition: int) -> int:
        if output.partition is not None:
            return output.partition
        if output.topic.family:
            return -1  # by key, among the partitions that an inbox or a user's topic turns out to have
        return event_partition if output.key == event_key else home(output.key, self.partitions)


def _refuse_large(size: int, headers: Headers, limit: int) -> None:
    size += sum(len(name) + len(data) for name, data in headers)
    if size > limit:
        raise PayloadTooLarge(size, limit)
