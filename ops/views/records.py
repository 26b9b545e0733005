"""Any record of any topic as something a person can read, without knowing beforehand what it is.

The value says which schema wrote it, and `_schemas` has every schema; so this needs no model, and shows records of
other versions and of foreign subjects as well. What cannot be decoded is shown as bytes with the reason: hiding it
would hide exactly what one is looking for.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka import ConsumerRecord
from fastavro import parse_schema, schemaless_reader

from ops.views.tasks import instant, plain
from schemas.avro import Schema, check_safe, runtime_schema
from schemas.errors import DecodeError, SchemaError
from schemas.registry import SchemaView

JSON_FIELDS = frozenset(
    {
        "accepts",
        "brain_config",
        "config",
        "context",
        "decision",
        "details",
        "metadata",
        "payload",
        "registry_at",
        "result",
        "task",
    }
)
"""Fields of our records that hold JSON text (`schemas.base.Json`); shown as the values that they are."""

_FRAME = struct.Struct(">bI")


@dataclass(frozen=True, slots=True)
class Written:
    """A schema of the registry: the subject and version under which it was found first."""

    schema_id: int
    subject: str
    name: str
    parsed: Schema

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {"id": self.schema_id, "subject": self.subject, "name": self.name}


class Decoder:
    """Decodes values by the schema id in front of them."""

    def __init__(self, view: SchemaView) -> None:
        self._known: dict[int, Written | str] = {}
        for subject in view.subjects():
            for schema_id, schema in view.ids(subject).items():
                if schema_id not in self._known:
                    self._known[schema_id] = _written(schema_id, subject, schema)

    def document(self, record: ConsumerRecord) -> dict[str, Any]:
        """The JSON form of a record: `{topic, partition, offset, key, timestamp, headers, schema, value}`.

        A value that cannot be decoded is `{base64, reason}`, a tombstone null.
        """
        schema, value = self.value(record.value)
        return {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "key": _text(record.key),
            "timestamp": instant(record.timestamp * 1000),
            "headers": {name: _text(content) for name, content in record.headers},
            "schema": None if schema is None else schema.document(),
            "value": value,
        }

    def value(self, data: bytes | None) -> tuple[Written | None, Any]:
        """The schema of a value, None if it has none, and its content."""
        if data is None:
            return None, None
        if data[:1] in (b"{", b"["):
            try:
                return None, json.loads(data)
            except (ValueError, RecursionError):
                return None, _bytes(data, "begins like JSON and is none")
        if len(data) < _FRAME.size or data[0] != 0:
            return None, _bytes(data, "no schema frame")
        schema_id = _FRAME.unpack(data[: _FRAME.size])[1]
        written = self._known.get(schema_id, f"schema id {schema_id} is not registered")
        if isinstance(written, str):
            return None, _bytes(data, written)
        try:
            return written, _readable(_body(data, written), "")
        except DecodeError as wrong:
            return written, _bytes(data, str(wrong))


def _written(schema_id: int, subject: str, schema: dict[str, Any]) -> Written | str:
    """A schema to decode with, or why it may not be used: a hostile one turns a few bytes into gigabytes."""
    try:
        check_safe(schema)
        return Written(schema_id, subject, str(schema.get("name", "")), parse_schema(runtime_schema(schema)))
    except (SchemaError, ValueError, KeyError, TypeError) as wrong:
        return f"schema id {schema_id} of '{subject}' is not used: {wrong}"


def _body(data: bytes, written: Written) -> Any:
    body = BytesIO(data)
    body.seek(_FRAME.size)
    try:
        found = schemaless_reader(body, written.parsed, None)
    except MemoryError:  # tells of us and not of the record
        raise
    except Exception as wrong:  # whatever the library raises on damaged bytes
        raise DecodeError(f"the body is damaged: {type(wrong).__name__}") from wrong
    if body.tell() != len(data):
        raise DecodeError(f"{len(data) - body.tell()} bytes are left over after the record")
    return found


def _readable(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _readable(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_readable(item, name) for item in value]
    if isinstance(value, bytes):
        return _bytes_or_text(value)
    if isinstance(value, str) and name in JSON_FIELDS:
        return plain(value)
    return value


def _bytes_or_text(data: bytes) -> Any:
    """Bytes in a record are often text (a header, a JSON request)."""
    shown = _text(data)
    if isinstance(shown, str) and all(letter.isprintable() or letter.isspace() for letter in shown):
        return shown
    return {"base64": base64.b64encode(data).decode()}


def _text(data: bytes | None) -> Any:
    """Keys and headers are UTF-8 by our rules; anything else is shown as bytes."""
    if data is None:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _bytes(data: bytes, reason: str) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode(), "reason": reason}
