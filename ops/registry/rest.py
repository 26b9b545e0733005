"""The registry's HTTP dialect as a function: a view and a request give a status and a document.

Every Kafka tool that knows Avro asks a schema registry over HTTP, in the paths and error codes of Confluent's. What it
asks is all in `_schemas`, so answering needs no store and no state. Only reading is answered: schemas are registered by
`troupe topology apply`, which checks them against each other first. Registering what is there already is reading too,
since serializers that register on first use ask in that way for an id.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from schemas.registry import LEVEL, SchemaView, Version

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"

_READ_ONLY = "This registry is read only; `troupe topology apply` registers the schemas of the records"


class Answer(NamedTuple):
    """An HTTP status and the document of the body."""

    status: int
    document: Any


class _Missing(Exception):
    """Something that was asked for by name is not there; ends as an error document."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.answer = error(code, message)


def error(code: int, message: str) -> Answer:
    """An answer with the registry's error code, whose first three digits are the status."""
    return Answer(int(str(code)[:3]), {"error_code": code, "message": message})


def answer(view: SchemaView, method: str, target: str, body: bytes = b"") -> Answer:
    """Answer one request; `target` is the path with its query, the options in which are not looked at."""
    path = tuple(unquote(part) for part in urlsplit(target).path.split("/") if part)
    try:
        if method == "GET":
            return _read(view, path)
        if method == "POST" and len(path) in (2, 3) and path[0] == "subjects" and path[2:] in ((), ("versions",)):
            return _look_up(view, path, body)
    except _Missing as missing:
        return missing.answer
    return error(40501, _READ_ONLY)


def _read(view: SchemaView, path: tuple[str, ...]) -> Answer:
    for pattern, reply in _READS.items():
        words = pattern.split("/")
        if len(words) == len(path) and all(want in ("*", has) for want, has in zip(words, path, strict=True)):
            names = [has for want, has in zip(words, path, strict=True) if want == "*"]
            return Answer(200, reply(view, *names))
    return error(404, f"No such path: /{'/'.join(path)}")


def _look_up(view: SchemaView, path: tuple[str, ...], body: bytes) -> Answer:
    """Say under which id exactly this schema is known."""
    try:
        schema = json.loads(json.loads(body)["schema"])
    except (ValueError, LookupError, TypeError) as wrong:
        return error(42201, f"Invalid schema: {type(wrong).__name__}: {wrong}")
    subject, registers = path[1], path[2:] == ("versions",)
    found = next((each for each in view.versions(subject) if each.schema == schema), None)
    if found is None and registers:
        return error(42205, _READ_ONLY)
    if found is None:
        _versions(view, subject)
        return error(40403, "Schema not found")
    return Answer(200, {"id": found.schema_id} if registers else _document(subject, found))


def _versions(view: SchemaView, subject: str) -> list[Version]:
    versions = view.versions(subject)
    if not versions:
        raise _Missing(40401, f"Subject '{subject}' not found.")
    return versions


def _version(view: SchemaView, subject: str, wanted: str) -> Version:
    versions = _versions(view, subject)
    if wanted in ("latest", "-1"):
        return versions[-1]
    found = next((each for each in versions if str(each.number) == wanted), None)
    if found is None:
        raise _Missing(40402, f"Version {wanted} not found.")
    return found


def _stored(view: SchemaView, schema_id: str) -> list[tuple[str, Version]]:
    found = view.where(int(schema_id)) if schema_id.isdecimal() and schema_id.isascii() else []
    if not found:
        raise _Missing(40403, f"Schema {schema_id} not found")
    return found


def _document(subject: str, version: Version) -> Mapping[str, Any]:
    number, schema_id = version.number, version.schema_id
    return {"subject": subject, "version": number, "id": schema_id, "schemaType": "AVRO", "schema": version.text}


def _level(view: SchemaView, subject: str) -> Mapping[str, Any]:
    return {"compatibilityLevel": view.level(subject) or LEVEL}


_READS: Mapping[str, Callable[..., Any]] = {
    "subjects": lambda view: view.subjects(),
    "subjects/*/versions": lambda view, subject: [each.number for each in _versions(view, subject)],
    "subjects/*/versions/*": lambda view, subject, number: _document(subject, _version(view, subject, number)),
    "subjects/*/versions/*/schema": lambda view, subject, number: json.loads(_version(view, subject, number).text),
    "schemas/types": lambda view: ["AVRO"],
    "schemas/ids/*": lambda view, schema_id: {"schema": _stored(view, schema_id)[0][1].text},
    "schemas/ids/*/schema": lambda view, schema_id: json.loads(_stored(view, schema_id)[0][1].text),
    "schemas/ids/*/subjects": lambda view, schema_id: [subject for subject, _ in _stored(view, schema_id)],
    "schemas/ids/*/versions": lambda view, schema_id: [
        {"subject": subject, "version": version.number} for subject, version in _stored(view, schema_id)
    ],
    "config": lambda view: {"compatibilityLevel": LEVEL},
    "config/*": _level,
    "mode": lambda view: {"mode": "READONLY"},
    "mode/*": lambda view, subject: {"mode": "READONLY"},
}
"""Paths that are read, `*` for a name; what is not found ends as `_Missing`."""
