"""What every record on a topic has in common, so that a reader who knows one record knows the head of all.

Ids are strings and instants integer microseconds (`Micros`): a logical uuid or timestamp in fastavro costs more than the
rest of a small record (measured in the codec's notes). Free-form JSON travels as JSON text in a string field (`Json`),
so that any Kafka tool shows it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from schemas.avro import Avro, Int, Micros

__all__ = ["Avro", "Enum", "Envelope", "Int", "Json", "Micros", "Record"]

Json = str
"""JSON text."""

Enum = StrEnum
"""Enums on the wire are lower case words and have the member `unknown`, else no symbol could ever be added."""


class Record(BaseModel):
    """A frozen value that can be written to a topic or a table; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Self:
        """The record of fields that a codec has read, all of them and none checked again; enums stay their words."""
        record = cls.__new__(cls)
        put = object.__setattr__
        put(record, "__dict__", fields)
        put(record, "__pydantic_fields_set__", set(fields))
        put(record, "__pydantic_extra__", None)
        put(record, "__pydantic_private__", None)
        return record


class Envelope(Record):
    """The first fields of every record on a public topic."""

    event_id: str
    occurred_at: Micros
    source: str
    actor: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
