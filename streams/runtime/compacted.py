"""Copies of compacted topics, as far as no Kafka is in them: what a record does to a view.

A paused owner may publish late, so the last record of a key is not always the newest. What a row publishes never goes back
in time, and its versions rise: the newest by both stays. What was removed is remembered, so that a late record brings nobody
back, for as long as the topic itself keeps what came before a tombstone: who reads it afresh knows no more. A tombstone that
comes late says when it was true, and leaves a newer life of its key alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from schemas.codec import Codecs
from schemas.errors import DecodeError, UnknownSchemaId
from schemas.topics import COMPACT_LAG_MICROS, Topic
from streams.processor import REMOVED_AT, Headers

log = structlog.get_logger("views")
Changed = Callable[[Topic, str], None]
Place = tuple[int, int]
"""Of a record in the history of its key: when it happened, microseconds, and its version."""


class Compacted:
    """The views of one process; implements `streams.processor.Views`."""

    def __init__(self, topics: tuple[Topic, ...], codecs: Codecs, prefix: str, partitions: int) -> None:
        """`partitions` is the installation's count, which these topics have too."""
        self.partitions = partitions
        self.topics = {prefix + topic.name: topic for topic in topics}
        self._codecs = codecs
        self._records: dict[str, dict[str, Any]] = {topic.name: {} for topic in topics}
        self.reached: dict[str, dict[int, int]] = {topic.name: {} for topic in topics}
        self._removed: dict[str, dict[str, tuple[Place, int]]] = {topic.name: {} for topic in topics}
        """Where the last life of each key ended, and when that was seen, by the log's own time; the oldest first."""
        self._newest = 0
        self._text: str | None = None
        self.listeners: list[Changed] = []

    def get(self, topic: Topic, key: str) -> Any:
        """The record of a key, or None."""
        return self._records[topic.name].get(key)

    def items(self, topic: Topic) -> Mapping[str, Any]:
        """All records by key; none of a topic that nobody here looks at."""
        return self._records.get(topic.name, {})

    def offsets(self) -> str:
        """The next offset of each partition read, as JSON text `{topic: [offset, ...]}`."""
        if self._text is None:
            reached = {name: [at for _, at in sorted(parts.items())] for name, parts in self.reached.items()}
            self._text = json.dumps(reached, separators=(",", ":"))
        return self._text

    def apply(
        self, topic: Topic, partition: int, offset: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> None:
        """Take one record. One that cannot be read is logged and passed over: the key keeps what it had."""
        self.reached[topic.name][partition] = offset + 1
        self._text = None
        if key is None:
            return
        name, records, removed = key.decode(errors="replace"), self._records[topic.name], self._removed[topic.name]
        if value is None:
            gone, at = records.get(name), _removed_at(headers)
            self._newest = max(self._newest, at or 0)
            if gone is None or (at is not None and at < gone.occurred_at):
                return
            del records[name]
            self._remember(removed, name, (gone.occurred_at, gone.version))
        else:
            try:
                record = self._codecs.of(topic.subject).decode(value)
            except (DecodeError, UnknownSchemaId) as error:
                log.error("view_record_unreadable", topic=topic.name, offset=offset, error=str(error))
                return
            self._newest = max(self._newest, record.occurred_at)
            ended, _ = removed.get(name, (None, 0))
            if self._is_late(record, records.get(name), ended):
                return
            records[name] = record
        for changed in self.listeners:
            changed(topic, name)

    def _remember(self, removed: dict[str, tuple[Place, int]], name: str, place: Place) -> None:
        removed.pop(name, None)
        removed[name] = place, self._newest
        while removed[oldest := next(iter(removed))][1] < self._newest - COMPACT_LAG_MICROS:
            del removed[oldest]

    @staticmethod
    def _is_late(record: Any, known: Any, removed: Place | None) -> bool:
        """Whether something newer is known. Within its last instant only a first version tells of a new life.

        A key that begins anew with a record older than its end (a command that came by a detour) is seen from its next one.
        """
        place = record.occurred_at, record.version
        if known is not None:
            return place < (known.occurred_at, known.version)
        return removed is not None and place <= removed and place != (removed[0], 1)


def _removed_at(headers: Headers) -> int | None:
    for name, value in headers:
        if name == REMOVED_AT and value.isdigit():
            return int(value)
    return None
