"""What could not be decoded, handled or finished, kept with its original bytes and its reason."""

from __future__ import annotations

from schemas.base import Enum, Envelope, Int, Json, Micros, Record
from schemas.tasks import TaskError


class DeadLetterKind(Enum):
    """`task`: a task that ran out of retries; `poison`: a record that no rule could take."""

    TASK = "task"
    POISON = "poison"
    UNKNOWN = "unknown"


class HeaderPair(Record):
    """One Kafka header of the record."""

    key: str
    value: bytes


class DeadLetter(Envelope):
    """The record that failed, where it lay, and why."""

    deadletter_id: str
    kind: DeadLetterKind = DeadLetterKind.UNKNOWN
    task_id: str | None = None
    source_topic: str
    partition: Int
    offset: int
    original_key: bytes | None = None
    original_value: bytes
    headers: list[HeaderPair] = []
    error: TaskError
    attempts: Int = 0
    failed_step: str | None = None
    first_failed_at: Micros
    created_at: Micros
    details: Json = "{}"
