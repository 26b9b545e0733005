"""Dead letters: what failed, with its original bytes, so that nothing is lost and all can be sent again.

Two makers share this: the tasks processor, for tasks that ran out of retries, and the runtime, for records that no rule
could take. Besides the record there are the headers that Kafka Connect gives its own dead letters, which tools know.
"""

from __future__ import annotations

import json

from schemas.deadletters import DeadLetter, DeadLetterKind, HeaderPair
from schemas.headers import unpack_headers
from schemas.task_row import TaskRow
from schemas.tasks import TaskError
from schemas.topics import DEAD_LETTERS
from streams.processor import Event, Headers, Output

SOURCE = "coordinator"
_CONNECT = "__connect.errors."


def of_task(row: TaskRow, event: Event, n: int, trace: Headers) -> Output:
    """The dead letter of a task whose row keeps its request; `n` numbers the output, `trace` heads its headers."""
    topic, partition, offset = row.position.rsplit(".", 2)
    error = row.error or TaskError(code="internal_error", message="no error was kept")
    letter = DeadLetter(
        event_id=event.id(n),
        occurred_at=event.now,
        source=SOURCE,
        correlation_id=row.correlation_id or row.task_id,
        causation_id=event.position,
        deadletter_id=event.id(n),
        kind=DeadLetterKind.TASK,
        task_id=row.task_id,
        source_topic=topic,
        partition=int(partition),
        offset=int(offset),
        original_key=row.task_id.encode(),
        original_value=row.request,
        headers=_pairs(unpack_headers(row.headers)),
        error=error,
        attempts=row.attempts,
        failed_step=f"attempt {row.attempts}" if row.attempts else "admission",
        first_failed_at=row.first_failed_at or event.now,
        created_at=event.now,
        details=json.dumps({"errors": [each.model_dump(mode="json") for each in row.errors]}),
    )
    return Output(DEAD_LETTERS, row.task_id, letter, headers=trace + _connect_headers(letter))


def of_record(event: Event, key: bytes | None, error: TaskError, n: int, failed_step: str) -> Output:
    """The dead letter of a record that could not be decoded, or on which a rule raised.

    key: as it lay in the log. failed_step: `decode`, or the rule's name. The place it names is its origin.
    """
    topic, partition, offset = event.position.rsplit(".", 2)
    letter = DeadLetter(
        event_id=event.id(n),
        occurred_at=event.now,
        source=SOURCE,
        correlation_id=None,
        causation_id=event.position,
        deadletter_id=event.id(n),
        kind=DeadLetterKind.POISON,
        task_id=None,
        source_topic=topic,
        partition=int(partition),
        offset=int(offset),
        original_key=key,
        original_value=event.value,
        headers=_pairs(event.headers),
        error=error,
        failed_step=failed_step,
        first_failed_at=event.now,
        created_at=event.now,
    )
    return Output(DEAD_LETTERS, event.position, letter, headers=_connect_headers(letter))


def _pairs(headers: Headers) -> list[HeaderPair]:
    return [HeaderPair(key=name, value=value) for name, value in headers]


def _connect_headers(letter: DeadLetter) -> Headers:
    """As Kafka Connect's errors.deadletterqueue.context.headers.enable writes them, all as text."""
    told = {
        "topic": letter.source_topic,
        "partition": str(letter.partition),
        "offset": str(letter.offset),
        "stage": letter.failed_step or "",
        "exception.class.name": letter.error.code,
        "exception.message": letter.error.message,
    }
    return tuple((_CONNECT + name, value.encode()) for name, value in told.items())
