"""From fetched records to arrivals: the record decoded once, with the place it first came from.

Decoding happens before a batch is stepped, because a schema id that nobody has seen yet may ask for a look at `_schemas`,
and no step may wait for anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from schemas.errors import DecodeError, UnknownSchemaId
from schemas.topics import Topic
from streams.processor import ProcessorSpec, filled
from streams.runtime.batch import Turn
from streams.runtime.partition import Arrival
from streams.runtime.wire import Delivery, Unreadable, Wire


class Schemas(Protocol):
    """What decoding may ask for."""

    async def refresh_schemas(self, schema_id: int) -> None:
        """Look for this id in `_schemas` and admit what is new; throttled."""


class Arrivals:
    """Makes the arrivals of one processor."""

    def __init__(self, spec: ProcessorSpec, wire: Wire, schemas: Schemas) -> None:
        self.topics = {wire.real(topic.name): topic for topic in spec.reads}
        self._inputs = {wire.real(topic.name): topic for topic in spec.inputs}
        self._copies = spec.repartition.name
        self._wire = wire
        self._schemas = schemas

    async def of(self, records: Sequence[Any], turn: Turn) -> list[Arrival]:
        """The arrivals of fetched records; `turn` is asked after each."""
        arrivals = []
        for record in records:
            headers = tuple([(name, value or b"") for name, value in record.headers])  # null is legal, and means nothing more
            delivery = filled(
                Delivery,
                (
                    self.topics[record.topic],
                    record.partition,
                    record.offset,
                    record.key,
                    record.value,
                    record.timestamp * 1000,
                    headers,
                    record,
                ),
            )
            try:
                arrivals.append(self.decoded(delivery))
            except UnknownSchemaId as unknown:
                await self._schemas.refresh_schemas(unknown.schema_id)
                arrivals.append(self.decoded(delivery, is_last_try=True))
            if (others := turn()) is not None:
                await others
        return arrivals

    def decoded(self, delivery: Delivery, is_last_try: bool = False) -> Arrival:
        """A delivered record, decoded. Raises UnknownSchemaId, but at the last try, when that is the record's failure."""
        is_copy = delivery.topic.name == self._copies
        source = None
        try:
            source = self._wire.source(delivery, is_copy)
            topic: Topic = self._wire.topic_of_origin(source, self._inputs) if is_copy else delivery.topic
            return Arrival(delivery, self._wire.decode(topic, delivery.value, source, source.now), source)
        except DecodeError as error:
            return Arrival(delivery, Unreadable(str(error)), source)
        except UnknownSchemaId as error:
            if not is_last_try:
                raise
            return Arrival(delivery, Unreadable(str(error)), source)
