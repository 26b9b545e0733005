"""Is a submit's body sound, and is it the same as another's?

Two submits of one id are the same if the client's fields are, whatever tool wrote them: compared by a hash over their
canonical JSON, defaults filled in, without the id and without what merely accompanied the request.
"""

from __future__ import annotations

from json.encoder import encode_basestring as quoted
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from schemas.canonical import canonical, canonical_object, digest
from schemas.errors import InvalidInput
from schemas.policies import RetryPolicy
from schemas.tasks import TaskCommand
from streams.faults import Fault, fault
from streams.processor import Headers

MAX_NAME = 255
"""Characters of a pattern, a type or a capability."""

MAX_TTL_SECONDS = 315_360_000
"""Ten years; instants must fit their field."""

MAX_CAPABILITIES = 100

_JSON_FIELDS = frozenset({"context", "metadata", "payload"})
_EMPTY_HASH = digest(b"{}")
_NOT_THE_CLIENTS = frozenset(
    {"event_id", "occurred_at", "source", "actor", "correlation_id", "causation_id", "task_id", "kind"}
)
_HASHED = tuple(sorted(TaskCommand.model_fields.keys() - _NOT_THE_CLIENTS))  # canonical order
_DEFAULTS = tuple(TaskCommand.model_fields[name].get_default(call_default_factory=True) for name in _HASHED)
_values = itemgetter(*_HASHED)


class Body(NamedTuple):
    """What was found: both hashes, the first fault or None, and the request as its first event tells it.

    told: JSON text; without the payload, whose hash is in the event, and without fields at their defaults.
    """

    body_hash: str
    payload_hash: str
    fault: Fault | None
    told: str


def examine(command: TaskCommand, value: bytes, headers: Headers, max_record_bytes: int) -> Body:
    """Read a submit's body once.

    A field at its default is no part of the hash: it is the same request whether the field was sent or not, and whether
    this version knows the field already or not.
    """
    wrong: Fault | None = None
    members: list[str] = []
    payload_hash = _EMPTY_HASH
    values = zip(_HASHED, _values(command.__dict__), _DEFAULTS, strict=True)
    changed = [(name, field) for name, field, default in values if field is not default and field != default]
    for name, field in changed:
        if name not in _JSON_FIELDS:
            members.append(f'"{name}":{_canonical_field(field)}')
            continue
        try:
            body = canonical_object(field, name)
        except InvalidInput as error:
            wrong = wrong or fault("invalid_request", error)
            body = quoted(field).encode()
        if name == "payload":
            payload_hash = digest(body)  # most of the body, and its hash is wanted anyway
            body = payload_hash.encode()
        members.append(f'"{name}":{body.decode()}')
    size = len(value)
    for key, content in headers:
        size += len(key) + len(content)
    if size > max_record_bytes:
        wrong = fault("payload_too_large", size, max_record_bytes)
    body_hash = digest(f"{{{','.join(members)}}}".encode())
    return Body(body_hash, payload_hash, wrong or _range_fault(command), _told(command, changed))


def _told(command: TaskCommand, changed: list[tuple[str, Any]]) -> str:
    fields: dict[str, Any] = {"event_id": command.event_id, "occurred_at": command.occurred_at, "source": command.source}
    if command.actor is not None:
        fields["actor"] = command.actor
    if command.correlation_id is not None:
        fields["correlation_id"] = command.correlation_id
    if command.causation_id is not None:
        fields["causation_id"] = command.causation_id
    fields["task_id"] = command.task_id
    fields.update(changed)
    fields.pop("payload", None)
    try:
        return orjson.dumps(fields, default=_plain).decode()
    except TypeError:  # a number of more than 64 bits, which is refused later
        return command.model_dump_json(exclude={"payload"}, exclude_defaults=True)


def _plain(value: RetryPolicy) -> Any:
    return value.model_dump(mode="json", exclude_defaults=True)


def _canonical_field(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return canonical(value.model_dump(mode="json") if isinstance(value, RetryPolicy) else value)


def _range_fault(command: TaskCommand) -> Fault | None:
    """The first field whose value is out of range."""
    if command.priority is not None and not 1 <= command.priority <= 5:
        return fault("invalid_request", "priority must be between 1 and 5")
    if command.timeout_seconds is not None and command.timeout_seconds < 1:
        return fault("invalid_request", "timeout_seconds must be at least 1")
    if command.ttl_seconds is not None and not 1 <= command.ttl_seconds <= MAX_TTL_SECONDS:
        return fault("invalid_request", f"ttl_seconds must be between 1 and {MAX_TTL_SECONDS}")
    if command.reply_partition is not None and command.reply_partition < 0:
        return fault("invalid_request", "reply_partition must be at least 0")
    if len(command.required_capabilities) > MAX_CAPABILITIES:
        return fault("invalid_request", f"required_capabilities: at most {MAX_CAPABILITIES}")
    if len(command.pattern or "") > MAX_NAME:
        return _too_long("pattern")
    if len(command.type) > MAX_NAME:
        return _too_long("type")
    if len(command.agent_id or "") > MAX_NAME:
        return _too_long("agent_id")
    if any(len(word) > MAX_NAME for word in command.required_capabilities):
        return _too_long("required_capabilities")
    return None


def _too_long(name: str) -> Fault:
    return fault("invalid_request", f"{name}: at most {MAX_NAME} characters")
