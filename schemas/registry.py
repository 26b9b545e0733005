"""What the `_schemas` topic says, as a fold over its records, without any I/O.

The records are those of Confluent's registry, so that such a registry can take the topic over. Kinds of records that
only a full registry writes are read and left alone.

Rules of change: every version of a subject must be readable by every other (FULL_TRANSITIVE), because logs are
replayed and roll-outs overlap. The compatibility checker of the `avro` package judges that, but it looks at bytes and
not at their meaning; a timestamp that turns from micros to millis passes it and moves time by a thousand, so we look
at logical types.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException
from fastavro import parse_schema

from schemas.avro import Schema, check_safe
from schemas.errors import DecodeError, SchemaError

LEVEL = "FULL_TRANSITIVE"
"""Compatibility level of our subjects, in the registry's own word."""

NOOP_KEY = b'{"keytype":"NOOP","magic":0}'
"""Key of a record that says nothing; its offset marks the end of the log for whoever wrote it."""


@dataclass(frozen=True)
class Version:
    """One version of a subject; `text` is the schema as stored, `deleted` hides it but keeps its id readable."""

    number: int
    schema_id: int
    text: str
    schema: dict[str, Any] | None  # None: not Avro, which only a foreign registry writes
    deleted: bool = False


class SchemaView:
    """Subjects, versions, ids and levels, as far as records have been applied."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, Version]] = {}
        self._levels: dict[str | None, str] = {}
        self._last_id = 0

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Fold one record in; None is a tombstone. Raises DecodeError if the record is not one of a registry."""
        try:
            name = json.loads(key)
            said = json.loads(value) if value else None
            self._fold(name["keytype"], name, said)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as wrong:
            raise DecodeError(f"not a registry record: {type(wrong).__name__}: {wrong}") from wrong

    def _fold(self, kind: str, key: dict[str, Any], value: dict[str, Any] | None) -> None:
        if kind == "SCHEMA":
            versions = self._versions.setdefault(key["subject"], {})
            if value is None:
                versions.pop(key["version"], None)
                return
            versions[key["version"]] = _version(value)
            self._last_id = max(self._last_id, value["id"])
        elif kind == "DELETE_SUBJECT" and value is not None:
            versions = self._versions.get(key["subject"], {})
            for number, version in versions.items():
                if number <= value["version"]:
                    versions[number] = Version(number, version.schema_id, version.text, version.schema, deleted=True)
        elif kind == "CONFIG" and value is not None:
            self._levels[key.get("subject")] = value["compatibilityLevel"]
        elif kind == "CONFIG":
            self._levels.pop(key.get("subject"), None)

    def subjects(self) -> list[str]:
        """Return the subjects that have a version which is not deleted, sorted."""
        return sorted(subject for subject in self._versions if any(self._live(subject)))

    def versions(self, subject: str) -> list[Version]:
        """Return the versions of a subject that are not deleted, oldest first."""
        return list(self._live(subject))

    def level(self, subject: str) -> str | None:
        """Return the compatibility level stored for a subject, None if it has none of its own."""
        return self._levels.get(subject)

    def ids(self, subject: str) -> dict[int, dict[str, Any]]:
        """Return `{id: schema}` of all versions, deleted ones too: records written with them are still in the logs."""
        known = sorted(self._versions.get(subject, {}).items())
        return {version.schema_id: version.schema for _, version in known if version.schema is not None}

    def where(self, schema_id: int) -> list[tuple[str, Version]]:
        """Return (subject, version) of everything stored under an id, deleted ones too, sorted; empty if unknown."""
        return [
            (subject, version)
            for subject, versions in sorted(self._versions.items())
            for _, version in sorted(versions.items())
            if version.schema_id == schema_id
        ]

    def id_of(self, subject: str, schema: Mapping[str, Any]) -> int | None:
        """Return the id of exactly this schema under this subject, None if it is not registered there."""
        return next((version.schema_id for version in self._live(subject) if version.schema == schema), None)

    def next_entry(self, subject: str, schema: Mapping[str, Any]) -> tuple[bytes, bytes, int]:
        """Return (key, value, id) of the record that registers a schema as the subject's next version.

        Equal text keeps one id over all subjects; versions and new ids only grow. The caller must be the only writer.
        """
        text = _compact(schema)
        version = max(self._versions.get(subject, {}), default=0) + 1
        schema_id = self._id_of_text(text) or self._last_id + 1
        key = {"keytype": "SCHEMA", "subject": subject, "version": version, "magic": 1}
        value = {"subject": subject, "version": version, "id": schema_id, "schema": text, "deleted": False}
        return _compact(key).encode(), _compact(value).encode(), schema_id

    def level_entry(self, subject: str) -> tuple[bytes, bytes]:
        """Return (key, value) of the record that sets our level for a subject, for registries other than ours."""
        key = {"keytype": "CONFIG", "subject": subject, "magic": 0}
        return _compact(key).encode(), _compact({"compatibilityLevel": LEVEL}).encode()

    def problems(self, subject: str, schema: Mapping[str, Any]) -> list[str]:
        """Say why a schema may not follow the subject's versions; empty when it may."""
        try:
            check_safe(dict(schema))
            new = avro.schema.parse(_compact(schema))
        except (SchemaError, AvroException) as wrong:
            return [str(wrong)]
        return [
            f"version {version.number}: {problem}"
            for version in self._live(subject)
            for problem in _conflicts(new, schema, version)
        ]

    def _live(self, subject: str) -> Iterator[Version]:
        return (version for _, version in sorted(self._versions.get(subject, {}).items()) if not version.deleted)

    def _id_of_text(self, text: str) -> int | None:
        every = (version for versions in self._versions.values() for version in versions.values())
        return next((version.schema_id for version in every if version.text == text), None)


def _version(value: dict[str, Any]) -> Version:
    is_avro = value.get("schemaType", "AVRO") == "AVRO"
    schema = json.loads(value["schema"]) if is_avro else None
    return Version(
        number=int(value["version"]),
        schema_id=int(value["id"]),
        text=value["schema"],
        schema=schema if isinstance(schema, dict) else None,
        deleted=bool(value.get("deleted", False)),
    )


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# --- may one schema stand beside another?


def _conflicts(new: avro.schema.Schema, new_schema: Mapping[str, Any], version: Version) -> Iterator[str]:
    if version.schema is None:
        yield "is not an Avro record"
        return
    old = avro.schema.parse(version.text)
    for reader, writer, way in ((new, old, "the new one cannot read it"), (old, new, "it cannot read the new one")):
        result = ReaderWriterCompatibilityChecker().get_compatibility(reader, writer)
        if result.compatibility is not SchemaCompatibilityType.compatible:
            # The checker answers with sets; sorted, so that the same conflict is told in the same words.
            yield f"{way}: {'; '.join(sorted(result.messages))} at {', '.join(sorted(result.locations))}"
    yield from changed_logical_types(version.schema, new_schema)


def changed_logical_types(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name the fields present in both schemas whose logical type differs."""
    before, after = _logical_types(dict(old)), _logical_types(dict(new))
    return [
        f"field {path} changes its logical type from {before[path]} to {after[path]}"
        for path in before
        if path in after and before[path] != after[path]
    ]


def _logical_types(schema: dict[str, Any]) -> dict[str, str | None]:
    """Return the logical type of each leaf by the path `<record>.<field>`; a nullable leaf counts as its value."""
    found: dict[str, str | None] = {}
    _collect(parse_schema(schema), "", found)
    return found


def _collect(schema: Schema, path: str, found: dict[str, str | None]) -> None:
    if isinstance(schema, list):
        for branch in schema:
            if branch != "null":
                _collect(branch, path, found)
    elif isinstance(schema, str):
        found.setdefault(path, None)
    elif schema["type"] in ("record", "error"):
        for field in schema["fields"]:
            _collect(field["type"], f"{schema['name']}.{field['name']}", found)
    elif schema["type"] in ("array", "map"):
        _collect(schema["items" if schema["type"] == "array" else "values"], f"{path}[]", found)
    elif isinstance(schema["type"], (dict, list)):
        _collect(schema["type"], path, found)
    else:
        found[path] = schema.get("logicalType")
