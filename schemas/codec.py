"""Records to bytes and back, framed as every Kafka tool expects: a zero, four bytes of schema id, the Avro body.

A codec belongs to one subject and holds only that subject's schema ids, so a record of another topic is refused by its
first five bytes, and the hot path does no I/O and no lookup elsewhere. Instants stay integers and fields are taken from
the model's own dictionary, because logical types and `model_dump` cost more than all the rest.

Avro has no checksum. A damaged body either fails, as DecodeError and as nothing else, or is another valid record.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from fastavro import parse_schema, schemaless_reader
from fastavro.read import SchemaResolutionError
from pydantic import BaseModel, ValidationError

from schemas.avro import Schema, avro_schema, check_safe, runtime_schema
from schemas.compiled import DAMAGES, MISFITS, compile_reader, compile_writer
from schemas.errors import DecodeError, PayloadTooLarge, SchemaError, UnknownSchemaId

M = TypeVar("M", bound=BaseModel)

_FRAME = struct.Struct(">bI")  # magic byte 0, schema id
_FRAME_BYTES = _FRAME.size

# What fastavro lets through on damaged input, by family: EOFError, UnicodeDecodeError (ValueError), IndexError and
# KeyError (LookupError), OverflowError (ArithmeticError). MemoryError stays out: it tells of us and not of the record.
_BROKEN_BODY = (EOFError, ValueError, LookupError, ArithmeticError, TypeError, RecursionError, SchemaResolutionError)


class Codec(Generic[M]):
    """Encodes and decodes the values of one subject."""

    def __init__(
        self, model: type[M], schema: dict[str, Any], schema_id: int, subject: str, max_record_bytes: int
    ) -> None:
        """`schema` is the model's own, registered as `schema_id`; the limit holds for framed values, both ways."""
        check_safe(schema)
        self.model = model
        self.subject = subject
        self.max_record_bytes = max_record_bytes
        self._validate: Callable[[Any], M] = model.__pydantic_validator__.validate_python
        plain = runtime_schema(schema)
        self._schema = parse_schema(plain)
        self._prefix = _FRAME.pack(0, schema_id)
        self._write, self._read = compile_writer(plain), compile_reader(plain)
        # Schemas of other writers; None is our own, which needs no resolution.
        self._writers: dict[bytes, Schema | None] = {self._prefix: None}

    def admit(self, schema_id: int, schema: dict[str, Any]) -> None:
        """Accept records written with another version of the subject. Raises SchemaError if that one is unsafe."""
        check_safe(schema)
        self._writers.setdefault(_FRAME.pack(0, schema_id), parse_schema(runtime_schema(schema)))

    def encode(self, record: M) -> bytes:
        """Return the framed bytes.

        Raises PayloadTooLarge over the limit, SchemaError if a value does not fit its field (an unvalidated copy).
        """
        return self.encode_fields(record.__dict__)

    def encode_fields(self, fields: Mapping[str, Any]) -> bytes:
        """The same for a record that was never made: all its fields by name, for who writes thousands a second."""
        out = bytearray(self._prefix)
        try:
            self._write(out, fields)
        except MISFITS as wrong:
            raise SchemaError(f"{self.model.__name__} does not fit its schema: {wrong}") from wrong
        if len(out) > self.max_record_bytes:
            raise PayloadTooLarge(len(out), self.max_record_bytes)
        return bytes(out)

    def decode(self, data: bytes) -> M:
        """Return the record.

        Raises UnknownSchemaId if the frame is sound but its id is not known for this subject, else DecodeError.
        """
        try:
            return self._validate(self.decode_fields(data))
        except ValidationError as invalid:
            raise DecodeError(f"{self.subject}: {_first_error(invalid)}") from invalid

    def decode_fields(self, data: bytes) -> dict[str, Any]:
        """The same without making the record: its fields, of the types that the schema gives and with no other check;
        enums are their words. Raises as `decode` does.
        """
        size = len(data)
        if size > self.max_record_bytes:
            raise DecodeError(f"{self.subject}: {size} bytes exceed {self.max_record_bytes} bytes")
        frame = data[:_FRAME_BYTES]
        if frame == self._prefix:
            try:
                fields = self._read(data, _FRAME_BYTES)
            except DAMAGES as broken:
                raise DecodeError(f"{self.subject}: the body is damaged: {type(broken).__name__}: {broken}") from broken
        else:
            fields = self._resolved(data, self._writers.get(frame))
        return fields

    def _resolved(self, data: bytes, writer: Schema | None) -> dict[str, Any]:
        """The fields of a record that was written with another version of the schema."""
        if writer is None:
            raise self._unknown_frame(data)
        body = BytesIO(data)
        body.seek(_FRAME_BYTES)
        try:
            fields: Any = schemaless_reader(body, writer, self._schema)
        except _BROKEN_BODY as broken:
            raise DecodeError(f"{self.subject}: the body is damaged: {type(broken).__name__}") from broken
        if body.tell() != len(data):
            raise DecodeError(f"{self.subject}: {len(data) - body.tell()} bytes are left over after the record")
        return dict(fields)

    def _unknown_frame(self, data: bytes) -> DecodeError | UnknownSchemaId:
        if len(data) < _FRAME_BYTES or data[0] != 0:
            found = f"the value begins with {data[:_FRAME_BYTES]!r}" if data else "the value is empty"
            return DecodeError(f"{self.subject}: no schema frame (a zero and the schema's id in four bytes), {found}")
        return UnknownSchemaId(_FRAME.unpack(data[:_FRAME_BYTES])[1], self.subject)


class Codecs:
    """The codecs of one process, by subject. Fixed once built; single codecs may still admit other versions."""

    def __init__(self, codecs: Mapping[str, Codec[Any]]) -> None:
        self._codecs = MappingProxyType(dict(codecs))

    @classmethod
    def build(
        cls,
        models: Mapping[str, type[BaseModel]],
        ids: Mapping[str, Mapping[int, dict[str, Any]]],
        max_record_bytes: int,
        larger: Mapping[str, int] | None = None,
    ) -> Codecs:
        """Build a codec per subject from its model and the registered schemas `{subject: {id: schema}}`.

        `larger` names subjects with another limit in bytes. Raises SchemaError if a model's schema has no id.
        """
        limits = larger or {}
        return cls(
            {
                subject: _codec(subject, model, ids.get(subject, {}), limits.get(subject, max_record_bytes))
                for subject, model in models.items()
            }
        )

    def of(self, subject: str) -> Codec[Any]:
        """Return the codec of a subject. Raises SchemaError if the process has none."""
        try:
            return self._codecs[subject]
        except KeyError:
            raise SchemaError(f"no codec for subject '{subject}'") from None

    def subjects(self) -> tuple[str, ...]:
        """Return the subjects in the order they were given."""
        return tuple(self._codecs)


def _codec(subject: str, model: type[BaseModel], known: Mapping[int, dict[str, Any]], limit: int) -> Codec[Any]:
    own = avro_schema(model)
    own_id = max((schema_id for schema_id, schema in known.items() if schema == own), default=None)
    if own_id is None:
        raise SchemaError(
            f"the schema of {model.__name__} is not registered under '{subject}'", hint="run `troupe topology apply`"
        )
    codec = Codec(model, own, own_id, subject, limit)
    for schema_id, schema in known.items():
        codec.admit(schema_id, schema)
    return codec


def _first_error(invalid: ValidationError) -> str:
    first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
    more = f" (and {invalid.error_count() - 1} more)" if invalid.error_count() > 1 else ""
    return f"{'.'.join(map(str, first['loc'])) or invalid.title}: {first['msg']}{more}"
