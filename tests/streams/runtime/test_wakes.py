"""Timers on partition time, nudges that may be lost, and a clock that is the broker's."""

from __future__ import annotations

import pytest

from schemas.partitioning import home
from streams.runtime.partition import Partition
from streams.runtime.wakes import ONCE, Clock, Wakes, partition_time, wake_records
from tests.streams.runtime.tally import MORE, SPEC, Stand, Wish, keys_at

K, L = keys_at(0, 2, home)
(L1,) = keys_at(1, 1, home)
NAMES = tuple(topic.name for topic in SPEC.reads)
TOPICS = ("asked", "more")


def ends(**given: int) -> dict[tuple[str, int], int]:
    return {(name, 0): given.get(name, 0) for name in NAMES}


def test_partition_time_is_the_clock_when_all_inputs_are_read() -> None:
    partition = Partition(0, 0, seen={"asked": 9, "more": 4}, read_at={"asked": 100, "more": 200})
    assert partition_time(partition, TOPICS, 5_000, {("asked", 0): 10, ("more", 0): 5}) == 5_000


def test_partition_time_is_the_slowest_unread_inputs_last_append() -> None:
    partition = Partition(0, 0, seen={"asked": 9, "more": 4}, read_at={"asked": 100, "more": 200})
    assert partition_time(partition, TOPICS, 5_000, {("asked", 0): 10, ("more", 0): 6}) == 200
    assert partition_time(partition, TOPICS, 5_001, {("asked", 0): 99, ("more", 0): 6}) == 200, "asked was read at 5,000"
    partition = Partition(0, 0, seen={"asked": 9, "more": 4}, read_at={"asked": 100, "more": 200})
    assert partition_time(partition, TOPICS, 5_000, {("asked", 0): 99, ("more", 0): 6}) == 100


def test_an_input_of_which_nothing_was_read_stops_time() -> None:
    assert partition_time(Partition(0, 0), TOPICS, 5_000, {("asked", 0): 1, ("more", 0): 0}) == 0


async def test_a_timer_is_due_when_partition_time_has_passed_it(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K, kind="timer", amount=500), now=1_000))
    wakes = Wakes(stand.owner, NAMES, 1.0, 10.0)
    assert not wakes.ripe(1_499) and wakes.due(1_499, ends(asked=1)) == []
    assert [each.number for each in wakes.ripe(1_500)] == [0]
    assert wakes.due(9_000, ends(asked=2)) == [], "a report may lie unread"
    assert wakes.due(1_500, ends(asked=1)) == [(0, K, 1)]


async def test_a_due_timer_is_set_again_in_case_its_wake_is_lost(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K, kind="timer", amount=500), now=1_000))
    wakes = Wakes(stand.owner, NAMES, 1.0, 10.0)
    assert wakes.due(2_000, ends(asked=1)) == [(0, K, 1)]
    assert wakes.due(2_001, ends(asked=1)) == []
    assert wakes.due(1_002_000, ends(asked=1)) == [(0, K, 1)]


async def test_a_row_that_moved_on_is_not_woken_by_its_old_timer(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K, kind="timer", amount=500), now=1_000))
    await stand.take(stand.arrival(1, Wish(key=K), now=1_001))
    assert Wakes(stand.owner, NAMES, 1.0, 10.0).due(9_000, ends(asked=2)) == []


async def test_timers_come_back_with_the_rows(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K, kind="timer", amount=500), now=1_000))
    stand.recover(dict.fromkeys(NAMES, 1), rebuilt=True)
    assert Wakes(stand.owner, NAMES, 1.0, 10.0).due(2_000, ends(asked=1)) == [(0, K, 1)]


async def test_a_row_that_could_move_is_asked_once_per_version_and_second(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K)))
    stand.tally.movable = [K, "unknown"]
    wakes = Wakes(stand.owner, NAMES, 60.0, 10.0)
    assert wakes.ready(0) == [(0, K, 1)] and wakes.ready(0) == []
    await stand.take(stand.arrival(1, Wish(key=K)))
    assert wakes.ready(0) == [(0, K, 2)]
    assert Wakes(stand.owner, NAMES, 0.0, 10.0).ready(0) == [(0, K, 2)], "asked again when it was not answered"


async def test_many_rows_are_woken_in_turns(stand: Stand) -> None:
    stand.own()
    keys = keys_at(0, ONCE + 5, home)
    await stand.take(*(stand.arrival(n, Wish(key=key)) for n, key in enumerate(keys)))
    stand.tally.movable = keys
    wakes = Wakes(stand.owner, NAMES, 60.0, 10.0)
    assert len(wakes.ready(0)) == ONCE and len(wakes.ready(0)) == 5


def test_the_clock_follows_the_brokers() -> None:
    clock = Clock(lambda: 1_000_000_000)
    clock.learn(1000.0, 1000.01, 1_007_005)
    assert clock.now() == 1_007_000_000
    clock.learn(1000.0, 1000.5, 1_099_000)
    assert clock.now() == 1_007_000_000, "a slow append says too little"
    clock.learn(1000.0, 1000.01, 1_000_004)
    assert clock.now() == 1_000_000_000, "within the step of append times the clocks are equal"


def test_a_wake_says_whether_its_timer_is_due() -> None:
    made = list(wake_records([(0, "a", 1)], [(1, "b", 2)]))
    assert [(number, wake.key, wake.version, wake.due) for number, wake in made] == [(0, "a", 1, False), (1, "b", 2, True)]


def look(stand: Stand, now: int, **unread: int) -> None:
    """All partitions are found read to their end, but for the topics of which so many are unread."""
    for partition in stand.owner.partitions.values():
        partition.look(now, {topic: partition.seen.get(topic, -1) + 1 + unread.get(topic, 0) for topic in NAMES})


async def left_behind(stand: Stand, since: int) -> Wakes:
    """A row that is stranded, on the first of two partitions."""
    stand.own()
    stand.own_too(1)
    await stand.take(stand.arrival(0, Wish(key=K), now=1_000))
    stand.tally.left_behind = {since: [K]}
    return Wakes(stand.owner, NAMES, 60.0, 10.0)


@pytest.mark.parametrize(
    ("unread", "released"),
    [
        ({}, True),
        ({"asked": 7}, True),  # a backlog of requests holds up no tasks that lost their agent
        ({"more": 1}, False),
        ({"tally.repartition": 1}, False),
        ({"tally.wakes": 1}, True),
    ],
)
async def test_a_stranded_row_is_asked_when_its_answers_are_read(
    stand: Stand, unread: dict[str, int], released: bool
) -> None:
    wakes = await left_behind(stand, 2_000)
    assert wakes.ready(2_500) == [] and [each.number for each in wakes.ripe(2_500)] == [0, 1]
    look(stand, 2_500, **unread)
    found = wakes.released(2_500)
    assert found == ([(0, K, 1)] if released else [])
    assert bool(wakes.ripe(2_600)) is not released, "as long as something is unread all are looked at again"
    assert wakes.released(2_600) == wakes.ready(2_600) == [], "asked once"


async def test_an_answer_may_lie_at_another_partition(stand: Stand) -> None:
    wakes = await left_behind(stand, 2_000)
    look(stand, 2_500)
    stand.owner.partitions[1].read_at["more"] = 1_999
    assert wakes.released(2_500) == []
    await stand.take(stand.arrival(0, Wish(key=L1), MORE, number=1, now=2_000))
    assert wakes.ready(2_600) == [(0, K, 1)], "no look was needed: what is unread is not older than what is read"


async def test_who_is_stranded_in_a_moment_is_looked_at_then(stand: Stand) -> None:
    wakes = await left_behind(stand, 2_000)
    look(stand, 1_999)
    assert (wakes.released(1_999), wakes.ripe(1_999), list(wakes.later(1_999))) == ([], [], [2_000])
    assert [each.number for each in wakes.ripe(2_000)] == [0, 1] and list(wakes.later(2_000)) == []
    look(stand, 2_000)
    assert wakes.ready(2_000) == [(0, K, 1)]


async def test_stranded_rows_are_asked_before_those_that_could_start(stand: Stand) -> None:
    wakes = await left_behind(stand, 2_000)
    await stand.take(stand.arrival(1, Wish(key=L), now=1_001))
    stand.tally.movable = [L, K]
    look(stand, 2_000)
    assert wakes.ready(2_000) == [(0, K, 1), (0, L, 1)]
