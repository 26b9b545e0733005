"""The CloudEvents headers of edge topics, so that foreign tools can sort and trace records without reading the body.

The binary mode of the Kafka protocol binding (CloudEvents 1.0.2, kafka-protocol-binding, section 3.2). All values are made
from the body, so nothing is in a header alone. Edge topics only: the set is larger than most records inside.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from schemas.base import Envelope

Headers = tuple[tuple[str, bytes], ...]


def cloud_event(record: Envelope, subject: str) -> Headers:
    """The headers of a record: `ce_id` is its event id, `ce_type` names record and version, `ce_subject` is the key."""
    return (
        *_constant(type(record).__name__),
        ("ce_id", record.event_id.encode()),
        ("ce_source", b"/troupe/" + record.source.encode()),
        ("ce_subject", subject.encode()),
        ("ce_time", _instant(record.occurred_at)),
    )


def _instant(micros: int) -> bytes:
    return b"%s.%06dZ" % (_second(micros // 1_000_000), micros % 1_000_000)


@lru_cache(maxsize=256)  # the records of a second share it
def _second(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00").encode()


@lru_cache(maxsize=64)
def _constant(record: str) -> Headers:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", f"troupe.v1.{record}".encode()),
        ("content-type", b"application/vnd.confluent.avro"),
    )
