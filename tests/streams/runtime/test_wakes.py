"""Timers on partition time, nudges that may be lost, and a clock that is the broker's."""

from __future__ import annotations

from schemas.partitioning import home
from streams.runtime.partition import Partition
from streams.runtime.wakes import ONCE, Clock, Wakes, partition_time, wake_records
from tests.streams.runtime.tally import SPEC, Stand, Wish, keys_at

K, L = keys_at(0, 2, home)
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
