"""What an owner keeps of a partition, and when its tails are read."""

from __future__ import annotations

from heapq import heapify, heappop
from types import SimpleNamespace

from schemas.changelog import ChangelogHeader, InputOffset, NoteRecord, Origin
from streams.runtime.partition import RECORD_ROOM_BYTES, SPARE_TIMERS, ChangelogRecord, Flush, Partition, size_of

NOTE = NoteRecord(topic="asked", offset=3, position="p.asked.0.3", kind="refused", error="no", at=5, seq=6)
HEADER = ChangelogHeader(
    base=10, count=2, instance="a", seq=7,
    inputs=[InputOffset(topic="asked", offset=4), InputOffset(topic="more", offset=0)],
    origins=[Origin(topic="p.asked", partition=3, offset=9)], notes=[NOTE], finished=12,
)  # fmt: skip


def test_a_header_comes_back_as_it_was() -> None:
    partition = Partition.recovered(0, 13, HEADER)
    assert partition.header(10, 2, "a", 7, [NOTE]) == HEADER
    assert partition.notes == {("asked", 3): NOTE}


def test_a_partition_without_a_header_has_no_tail() -> None:
    partition = Partition.recovered(0, 0, None)
    partition.positioned({"asked": 0, "more": 0})
    assert not partition.left and partition.next == 0


def test_tails_are_what_lies_between_the_first_read_and_the_header() -> None:
    partition = Partition.recovered(0, 13, HEADER)
    partition.positioned({"asked": 4, "more": 1, "wakes": 0})
    assert partition.left == {"asked"}
    partition.positioned({"asked": 5, "more": 1})
    assert not partition.left
    partition.positioned({"asked": 0, "more": 0})
    assert partition.left == {"asked", "more"}


def test_an_input_that_is_not_read_has_no_tail() -> None:
    partition = Partition.recovered(0, 13, HEADER)
    partition.positioned({"more": 0})
    assert partition.left == {"more"}


def test_timers_of_rows_that_moved_on_do_not_pile_up() -> None:
    partition = Partition(0, 0)
    for number in range(10):
        partition.open[f"open-{number}"] = SimpleNamespace(version=2)  # type: ignore[assignment]
        partition.wake_at(5_000 + number, f"open-{number}", 1)
        partition.wake_at(9_000 - number, f"open-{number}", 2)
    for number in range(20 * SPARE_TIMERS):
        partition.wake_at(number, f"gone-{number}", 1)
    assert len(partition.timers) <= 2 * 10 + SPARE_TIMERS + 1
    partition.timers = [timer for timer in partition.timers if not timer[1].startswith("gone")]
    heapify(partition.timers)
    assert [heappop(partition.timers) for _ in range(10)] == [
        (9_000 - number, f"open-{number}", 2) for number in reversed(range(10))
    ]


def test_a_batch_counts_its_bytes() -> None:
    part = Flush().part(1)
    part.add(ChangelogRecord(b"key", b"value", (("finished", b"12345678"),)))
    part.add(ChangelogRecord(b"key", None))
    assert part.size == size_of(part.records[0]) + size_of(part.records[1])
    assert part.size == 3 + 5 + 8 + 8 + 4 + RECORD_ROOM_BYTES + 3 + RECORD_ROOM_BYTES


def test_a_part_is_made_once() -> None:
    flush = Flush()
    assert flush.part(2) is flush.part(2)
