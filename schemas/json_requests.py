"""A task in plain JSON, so that any tool that can write a line to Kafka can submit one.

A value on `tasks.requests` that begins with `{` is read here and becomes the fields of a `TaskCommand`. JSON is
looser than Avro, and what a lenient reader repairs silently two readers repair differently; so a key given twice, a
number that is none, or a string where a number belongs is refused with the path of the field. What we do not know is
kept: it goes to `metadata.extra`. Objects may also be given as text, as the Avro records carry them, so that a record
that some tool printed as JSON can be submitted again.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import types
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import NAMESPACE_URL, uuid5

from pydantic.fields import FieldInfo

from schemas.avro import Avro
from schemas.canonical import canonical
from schemas.errors import DecodeError, InvalidInput
from schemas.policies import POLICY_A, POLICY_B, RetryPolicy
from schemas.tasks import CommandKind, TaskCommand

ALIASES = {"input_data": "payload", "task_data": "payload", "task_type": "type", "timeout": "timeout_seconds"}
"""Other names of fields, from the dialects."""

JSON_FIELDS = ("payload", "context", "metadata")
"""Fields given as JSON objects, or as text that holds one, and carried as canonical JSON text."""

INSTANT_FIELDS = ("occurred_at", "not_before")
"""Fields given as ISO 8601 or integer microseconds and carried as the latter."""

_RETRY_ALIASES = {
    "MaxRetries": "max_retries",
    "InitialDelay": "retry_delay",
    "BackoffMultiplier": "backoff_multiplier",
    "MaxDelay": "max_delay",
}
_RETRY_POLICIES = {"A": POLICY_A, "B": POLICY_B}
_MAX_DEPTH = 64  # levels of nesting; every later reader of the payload recurses over it
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHOSEN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")  # `~` joins the parts of ids that we derive


def parse_request(value: bytes, position: str, max_record_bytes: int = 1_000_000) -> dict[str, Any]:
    """Return the fields of a TaskCommand that a JSON value states, with `kind` and `task_id` filled in.

    `position` is `<topic>.<partition>.<offset>` of the record; the id of a task without one follows from it, so that a
    redelivered record means the same task. The caller adds the envelope and validates with TaskCommand. A null counts
    as absent. Raises DecodeError with the field's path.
    """
    if len(value) > max_record_bytes:
        raise DecodeError(f"JSON request of {len(value)} bytes exceeds {max_record_bytes} bytes")
    fields, extra = _sorted_out(_load(value))
    metadata = _object("metadata", fields.get("metadata", {}))
    if extra:
        fields["metadata"] = metadata | {"extra": _object("metadata.extra", metadata.get("extra", {})) | extra}
    command = {name: _converted(name, given) for name, given in fields.items()}
    command.setdefault("kind", CommandKind.SUBMIT.value)
    command.setdefault("task_id", str(uuid5(NAMESPACE_URL, f"troupe:{position}")))
    _check_chosen(command)
    return command


# --- text -> object


def _load(value: bytes) -> dict[str, Any]:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as wrong:
        raise DecodeError(f"JSON request: not UTF-8 at byte {wrong.start}") from wrong
    found = _parsed("JSON request", text)
    if not isinstance(found, dict):
        raise DecodeError("JSON request: expected one object")
    return found


def _parsed(path: str, text: str) -> Any:
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
    except RecursionError as wrong:
        raise DecodeError(f"{path}: nested more than {_MAX_DEPTH} levels deep") from wrong
    except ValueError as wrong:
        raise DecodeError(f"{path}: {wrong}") from wrong
    _check_tree(path, found)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def _finite(text: str) -> float:
    number = float(text)  # 1e999 is legal JSON and infinite in every reader that uses doubles
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _check_tree(path: str, root: Any) -> None:
    """Refuse depth, and text that has no UTF-8 form (half of a surrogate pair, written as an escape)."""
    waiting: list[tuple[Any, int]] = [(root, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise DecodeError(f"{path}: nested more than {_MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            waiting.extend((child, depth + 1) for pair in value.items() for child in pair)
        elif isinstance(value, list):
            waiting.extend((child, depth + 1) for child in value)
        elif isinstance(value, str):
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as wrong:
                raise DecodeError(f"{path}: {value!r} is not valid text") from wrong


# --- object -> fields of the command


def _sorted_out(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split into known fields under their own names, and the rest."""
    fields: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in given.items():
        own = ALIASES.get(name, name)
        if own not in TaskCommand.model_fields:
            extra[name] = value
        elif value is not None:
            if own in fields:
                raise DecodeError(f"{name}: '{own}' is given twice, under two names")
            fields[own] = value
    return fields, extra


def _converted(name: str, value: Any) -> Any:
    if name in JSON_FIELDS:
        try:
            return canonical(_object(name, value))
        except InvalidInput as wrong:
            raise DecodeError(f"{name}: {wrong}") from wrong
    if name in INSTANT_FIELDS and isinstance(value, str):
        return _instant(name, value)
    if name == "retry":
        return _retry(value)
    return _typed(name, value, _hint(TaskCommand.model_fields[name]))


def _object(path: str, value: Any) -> dict[str, Any]:
    found = _parsed(path, value) if path in JSON_FIELDS and isinstance(value, str) and value[:1] == "{" else value
    if not isinstance(found, dict):
        raise DecodeError(f"{path}: expected an object, not {_shown(value)}")
    return found


def _check_chosen(command: dict[str, Any]) -> None:
    """An id that a submit brings is its client's choice, but that of a redrive is derived from the first task's."""
    chosen = command["kind"] == CommandKind.SUBMIT.value and "redrive_of" not in command
    if chosen and not _CHOSEN_ID.fullmatch(command["task_id"]):
        shown = _shown(command["task_id"])
        raise DecodeError(f"task_id: 1 to 128 letters, digits, dots, underscores and hyphens, not {shown}")


def _instant(path: str, text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise DecodeError(f"{path}: {text!r} has no zone; end it with Z or an offset")
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError) as wrong:
        raise DecodeError(f"{path}: {text!r} is not an ISO 8601 instant") from wrong


def _retry(value: Any) -> dict[str, Any]:
    """Return the fields of a RetryPolicy, given by its letter or by its fields under either name."""
    if isinstance(value, str):
        if value not in _RETRY_POLICIES:
            raise DecodeError(f"retry: expected a policy object, 'A' or 'B', not {_shown(value)}")
        return _RETRY_POLICIES[value].model_dump(mode="json")
    policy: dict[str, Any] = {}
    for name, part in _object("retry", value).items():
        own = _RETRY_ALIASES.get(name, name)
        if own not in RetryPolicy.model_fields:
            raise DecodeError(f"retry.{name}: no such field")
        if own in policy:
            raise DecodeError(f"retry.{name}: '{own}' is given twice, under two names")
        if part is not None:
            policy[own] = _typed(f"retry.{name}", part, _hint(RetryPolicy.model_fields[own]))
    return policy


def _hint(field: FieldInfo) -> Any:
    """The field's type with its annotations, which pydantic keeps apart."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _typed(path: str, value: Any, hint: Any, bits: int = 64) -> Any:
    """Return the value if its JSON type is the field's; ranges are for the model and the rules to judge."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        short = any(isinstance(mark, Avro) and mark.type == "int" for mark in args[1:])
        return _typed(path, value, args[0], 32 if short else bits)
    if origin in (Union, types.UnionType):
        return _typed(path, value, next(arg for arg in args if arg is not types.NoneType), bits)
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise DecodeError(f"{path}: expected an array, not {_shown(value)}")
        return [_typed(f"{path}.{n}", item, args[0]) for n, item in enumerate(value)]
    if inspect.isclass(hint) and issubclass(hint, Enum):
        words = [member.value for member in hint if member.value != "unknown"]
        if value not in words:
            raise DecodeError(f"{path}: expected one of {', '.join(words)}, not {_shown(value)}")
        return value
    if hint is int and type(value) is int and not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise DecodeError(f"{path}: {_shown(value)} does not fit {bits} bits")
    accepted = {str: (str,), int: (int,), float: (float, int), bool: (bool,)}[hint]
    if type(value) not in accepted:  # `isinstance` would take true for 1
        raise DecodeError(f"{path}: expected {hint.__name__}, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}..."
