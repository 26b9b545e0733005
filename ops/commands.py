"""Commands about tasks as a client makes them: from a caller's fields to a record, or to an error that names the field."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from pydantic import ValidationError

from schemas.cloudevents import cloud_event
from schemas.errors import InvalidInput
from schemas.tasks import CommandKind, TaskCommand

JSON_FIELDS = ("payload", "context", "metadata")
"""Fields that `submit` takes as JSON values."""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def command_of(source: str, fields: Mapping[str, Any], kind: CommandKind = CommandKind.SUBMIT) -> TaskCommand:
    """A command from a caller's fields; a submit without a task_id gets one.

    Raises InvalidInput naming the first field that is wrong.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    for name in JSON_FIELDS:
        if name in given:
            given[name] = json_text(given[name], name)
    if kind is CommandKind.SUBMIT:
        given = {"task_id": str(uuid.uuid4())} | given
    now = time.time_ns() // 1000
    envelope = {"event_id": token_hex(16), "occurred_at": now, "source": source, "kind": kind}
    try:
        return TaskCommand.model_validate(given | envelope)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{where}: {first['msg']}", code="invalid_request") from wrong


def json_text(value: Any, where: str) -> str:
    """JSON text of a value. Raises InvalidInput where it has none (NaN, an object that is no JSON)."""
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError) as wrong:
        raise InvalidInput(f"{where}: {wrong}", code="invalid_request") from wrong


def cloud_event_headers(command: TaskCommand) -> list[tuple[str, bytes]]:
    """The CloudEvents headers of a request, as aiokafka takes them."""
    return list(cloud_event(command, command.task_id))
