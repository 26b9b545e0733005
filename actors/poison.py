"""The dead letter of an inbox record that cannot be worked on: its bytes and headers as they lay, and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from schemas.deadletters import DeadLetter, DeadLetterKind, HeaderPair
from schemas.tasks import TaskError

Headers = Sequence[tuple[str, bytes]]


class Found(NamedTuple):
    """A record as it lay in the log; `at` is its append time in microseconds."""

    topic: str
    partition: int
    offset: int
    at: int
    key: bytes | None
    value: bytes
    headers: Headers

    @property
    def position(self) -> str:
        return f"{self.topic}.{self.partition}.{self.offset}"


def dead_letter(found: Found, error: Exception, agent_id: str, now: int) -> DeadLetter:
    """The letter about a record; its id follows from the position, so a re-run writes the same."""
    code = getattr(error, "code", "internal_error")
    return DeadLetter(
        event_id=f"{found.position}.0", occurred_at=now, source=agent_id, causation_id=found.position,
        deadletter_id=f"{found.position}.0", kind=DeadLetterKind.POISON, source_topic=found.topic,
        partition=found.partition, offset=found.offset, original_key=found.key, original_value=found.value,
        headers=[HeaderPair(key=name, value=value) for name, value in found.headers],
        error=TaskError(code=code, message=str(error)[:2000], agent_id=agent_id), failed_step="decode",
        first_failed_at=found.at, created_at=now,
    )  # fmt: skip


def headers(letter: DeadLetter, error: Exception) -> Headers:
    """CloudEvents attributes and Kafka Connect's `__connect.errors.*`, which other tools look for."""
    time = datetime.fromtimestamp(letter.created_at / 1e6, UTC).isoformat()
    texts = {
        "ce_specversion": "1.0", "ce_id": letter.event_id, "ce_type": "troupe.v1.DeadLetter",
        "ce_source": letter.source, "ce_time": time,
        "__connect.errors.topic": letter.source_topic, "__connect.errors.partition": str(letter.partition),
        "__connect.errors.offset": str(letter.offset), "__connect.errors.stage": "VALUE_CONVERTER",
        "__connect.errors.exception.class.name": type(error).__name__,
        "__connect.errors.exception.message": letter.error.message,
    }  # fmt: skip
    return [(name, text.encode()) for name, text in texts.items()]
