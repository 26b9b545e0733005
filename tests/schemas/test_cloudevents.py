"""The CloudEvents headers of a request: all from its body, and an instant that any tool can read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schemas.cloudevents import cloud_event
from schemas.tasks import TaskCommand

MOST = 4_102_444_800_000_000
"""The year 2100 in microseconds."""


def command(at: int) -> TaskCommand:
    return TaskCommand(event_id="e-1", occurred_at=at, source="cli", task_id="t-1")


def test_the_headers_are_whole() -> None:
    assert dict(cloud_event(command(1_700_000_000_000_042), "t-1")) == {
        "ce_specversion": b"1.0",
        "ce_type": b"troupe.v1.TaskCommand",
        "content-type": b"application/vnd.confluent.avro",
        "ce_id": b"e-1",
        "ce_source": b"/troupe/cli",
        "ce_subject": b"t-1",
        "ce_time": b"2023-11-14T22:13:20.000042Z",
    }


@given(st.integers(0, MOST))
def test_every_microsecond_is_kept(at: int) -> None:
    text = dict(cloud_event(command(at), "t-1"))["ce_time"].decode()
    assert (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == at
