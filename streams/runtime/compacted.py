"""Copies of compacted topics, as far as no Kafka is in them: what a record does to a view.

Of two records of one key the higher version stays, because a paused owner may publish an old one late.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from schemas.codec import Codecs
from schemas.errors import DecodeError, UnknownSchemaId
from schemas.topics import Topic

log = structlog.get_logger("views")
Changed = Callable[[Topic, str], None]


class Compacted:
    """The views of one process; implements `streams.processor.Views`."""

    def __init__(self, topics: tuple[Topic, ...], codecs: Codecs, prefix: str, partitions: int) -> None:
        """`partitions` is the installation's count, which these topics have too."""
        self.partitions = partitions
        self.topics = {prefix + topic.name: topic for topic in topics}
        self._codecs = codecs
        self._records: dict[str, dict[str, Any]] = {topic.name: {} for topic in topics}
        self.reached: dict[str, dict[int, int]] = {topic.name: {} for topic in topics}
        self._text: str | None = None
        self.listeners: list[Changed] = []

    def get(self, topic: Topic, key: str) -> Any:
        """The record of a key, or None."""
        return self._records[topic.name].get(key)

    def items(self, topic: Topic) -> Mapping[str, Any]:
        """All records by key."""
        return self._records[topic.name]

    def offsets(self) -> str:
        """The next offset of each partition read, as JSON text `{topic: [offset, ...]}`."""
        if self._text is None:
            reached = {name: [at for _, at in sorted(parts.items())] for name, parts in self.reached.items()}
            self._text = json.dumps(reached, separators=(",", ":"))
        return self._text

    def apply(self, topic: Topic, partition: int, offset: int, key: bytes | None, value: bytes | None) -> None:
        """Take one record. One that cannot be read is logged and passed over: the key keeps what it had."""
        self.reached[topic.name][partition] = offset + 1
        self._text = None
        if key is None:
            return
        name, records = key.decode(errors="replace"), self._records[topic.name]
        if value is None:
            records.pop(name, None)
        else:
            try:
                record = self._codecs.of(topic.subject).decode(value)
            except (DecodeError, UnknownSchemaId) as error:
                log.error("view_record_unreadable", topic=topic.name, offset=offset, error=str(error))
                return
            known = records.get(name)
            if known is not None and known.version > record.version:
                return
            records[name] = record
        for changed in self.listeners:
            changed(topic, name)
