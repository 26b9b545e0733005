"""The in-memory log is like Kafka's in what our runtimes lean on."""

from __future__ import annotations

import pytest

from ops.memory.clock import VirtualClock
from ops.memory.log import MemoryLog, New
from schemas.errors import OperatorError


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_000_000)


@pytest.fixture
def log(clock: VirtualClock) -> MemoryLog:
    made = MemoryLog(clock)
    made.create("plain", 2)
    made.create("rows", 1, compacted=True)
    return made


def record(key: str | None, value: str | None = "v") -> New:
    return key.encode() if key else None, value.encode() if value else None, (("h", b"1"),)


def test_a_batch_lies_together_under_the_time_of_its_append(log: MemoryLog, clock: VirtualClock) -> None:
    assert log.append("plain", 0, [record("a"), record(None, None)]) == 0
    clock.advance(1_999)
    assert log.append("plain", 0, [record("b")]) == 2
    found = log.read("plain", 0, 0, 10)
    assert [(each.offset, each.timestamp, each.key, each.value) for each in found] == [
        (0, 1_000_000, b"a", b"v"),
        (1, 1_000_000, None, None),
        (2, 1_001_000, b"b", b"v"),  # a broker counts milliseconds
    ]
    assert found[0].headers == (("h", b"1"),)
    assert (log.start("plain", 0), log.end("plain", 0), log.end("plain", 1)) == (0, 3, 0)


def test_reading_begins_where_asked_and_ends_at_the_limit(log: MemoryLog) -> None:
    log.append("plain", 0, [record(str(n)) for n in range(5)])
    assert [each.offset for each in log.read("plain", 0, 2, 2)] == [2, 3]
    assert log.read("plain", 0, 5, 2) == [] == log.read("plain", 1, 0, 2)


def test_compaction_keeps_the_last_of_each_key_where_it_lies(log: MemoryLog) -> None:
    log.append("rows", 0, [record("a"), record("b"), record("a", None), record("c"), record("b", "w")])
    log.compact("rows")
    log.compact("rows")
    assert [(each.offset, each.key, each.value) for each in log.read("rows", 0, 0, 10)] == [
        (2, b"a", None), (3, b"c", b"v"), (4, b"b", b"w"),
    ]  # fmt: skip
    assert [each.offset for each in log.read("rows", 0, 3, 10)] == [3, 4]
    assert [each.offset for each in log.read("rows", 0, 1, 1)] == [2]
    assert (log.start("rows", 0), log.end("rows", 0)) == (0, 5)
    assert log.append("rows", 0, [record("a")]) == 5
    assert [each.offset for each in log.read("rows", 0, 4, 10)] == [4, 5]


def test_compaction_leaves_what_is_young_alone(log: MemoryLog, clock: VirtualClock) -> None:
    log.append("rows", 0, [record("a", "1"), record("a", "2"), record("b")])
    clock.advance(5_000)
    log.append("rows", 0, [record("a", "3"), record("b", None)])
    log.compact("rows", lag=5_000)
    assert [each.offset for each in log.read("rows", 0, 0, 10)] == [1, 2, 3, 4]
    clock.advance(5_000)
    log.compact("rows", lag=5_000)
    assert [each.offset for each in log.read("rows", 0, 0, 10)] == [3, 4]


def test_only_compacted_topics_are_compacted_and_only_they_need_keys(log: MemoryLog) -> None:
    with pytest.raises(OperatorError, match="not compacted"):
        log.compact("plain")
    with pytest.raises(ValueError, match="need keys"):
        log.append("rows", 0, [record("a"), record(None)])
    assert log.end("rows", 0) == 0, "all or none"


def test_retention_takes_the_oldest(log: MemoryLog) -> None:
    log.append("plain", 0, [record("a"), record("b"), record("c")])
    log.trim("plain", 0, 2)
    assert (log.start("plain", 0), [each.key for each in log.read("plain", 0, 0, 9)]) == (2, [b"c"])
    log.trim("plain", 0, 99)
    assert (log.start("plain", 0), log.end("plain", 0), log.read("plain", 0, 0, 9)) == (3, 3, [])
    assert log.append("plain", 0, [record("d")]) == 3


def test_a_topic_is_made_once(log: MemoryLog) -> None:
    log.create("plain", 2)
    assert dict(log.topics()) == {"plain": 2, "rows": 1}
    for partitions, compacted in ((3, False), (2, True)):
        with pytest.raises(OperatorError, match="plain is there with 2 partitions"):
            log.create("plain", partitions, compacted=compacted)
    with pytest.raises(OperatorError, match="no topic other"):
        log.append("other", 0, [])
    with pytest.raises(OperatorError, match="no partition 2"):
        log.read("plain", 2, 0, 1)


def test_a_group_goes_on_where_it_committed(log: MemoryLog) -> None:
    assert log.committed("g", "plain", 0) is None
    log.commit("g", "plain", 0, 3, "beyond: 5")
    log.commit("g", "plain", 1, 1)
    assert (log.committed("g", "plain", 0), log.committed("g", "plain", 1)) == ((3, "beyond: 5"), (1, ""))
    assert log.committed("h", "plain", 0) is None


def test_time_only_passes(clock: VirtualClock) -> None:
    assert clock.advance(5) == clock.now == 1_000_005
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)
