"""When a finished row leaves, and what keeps it: its id must be known while a repeat of its task may still come."""

from __future__ import annotations

import pytest

from schemas.partitioning import home
from streams.runtime.wakes import Wakes
from tests.streams.runtime.tally import SPEC, Stand, Wish, keys_at

K, L, M = keys_at(0, 3, home)
(OTHERS,) = keys_at(1, 1, home)
START = {topic.name: 0 for topic in SPEC.reads}


async def test_a_finished_row_leaves_with_its_tombstone_when_its_time_is_over(stand: Stand) -> None:
    partition = stand.own()
    await stand.take(stand.arrival(0, Wish(key=K, kind="close"), now=5_000_000))
    assert stand.row(K).state == "closed" and partition.finished == 1 and K not in partition.open
    await stand.take(stand.arrival(1, Wish(key=L), now=5_900_000))
    assert stand.row(K) is not None, "its second is not over"
    await stand.take(stand.arrival(2, Wish(key=L), now=6_000_001))
    assert stand.row(K) is not None, "a repeat of it may lie unread in another input"
    partition.look(6_000_001, {topic: 0 for topic in START if topic != "asked"})
    await stand.take(stand.arrival(3, Wish(key=L), now=6_000_002))
    assert stand.row(K) is None and partition.finished == 0
    assert [(message.key.decode(), message.value is None) for message in stand.changelog[0][-3:]] == [
        (L, False), (K, True), ("\x00header", False),
    ]  # fmt: skip
    assert stand.header().count == 2


async def test_no_row_leaves_while_any_partition_here_is_behind(stand: Stand) -> None:
    """A repeat that another client's partitioner put elsewhere comes home late."""
    first = stand.own()
    second = stand.own_too(1)
    await stand.take(stand.arrival(0, Wish(key=K, kind="close"), now=5_000_000))
    first.look(9_000_000, dict.fromkeys(START, 0))
    second.look(9_000_000, dict.fromkeys(START, 0) | {"more": 1})
    await stand.take(stand.arrival(1, Wish(key=L), now=9_000_000))
    assert stand.row(K) is not None
    second.look(9_000_000, dict.fromkeys(START, 0))
    await stand.take(stand.arrival(2, Wish(key=L), now=9_000_001))
    assert stand.row(K) is None


async def test_no_row_leaves_while_a_record_is_on_its_way_home(stand: Stand) -> None:
    """Its own partition is read by then, and the topic of copies was looked at before."""
    first, second = stand.own(), stand.own_too(1)
    copies = SPEC.repartition
    await stand.take(stand.arrival(0, Wish(key=K, kind="close"), now=5_000_000))
    stand.clock = 9_000_000
    for partition in (first, second):
        partition.look(9_000_000, dict.fromkeys(START, 0) | {"asked": 2})
    repeat = Wish(key=K, kind="close")
    await stand.take(
        stand.arrival(0, repeat, number=1, now=5_500_000), stand.arrival(1, Wish(key=OTHERS), number=1, now=9_000_000),
        stand.arrival(1, Wish(key=L), now=9_000_000),
    )  # fmt: skip
    await stand.take(stand.arrival(0, repeat, copies, now=9_000_500, origin="p.asked.1.0"))
    assert (stand.row(K).version, stand.row(K).cause) == (2, "p.asked.1.0"), "the row was there, and the rule saw it"
    assert stand.owner.read_until() == 5_500_000
    for partition in (first, second):
        partition.look(9_000_000 + 20_000_000 - 1, dict.fromkeys(START, 0))
    assert stand.owner.read_until() == 5_500_000
    for partition in (first, second):
        partition.look(9_000_000 + 20_000_000, dict.fromkeys(START, 0))
    assert stand.owner.read_until() > 9_000_000, "it has come, or the process would be dead"


async def test_a_partition_without_rows_holds_up_no_other(stand: Stand) -> None:
    stand.own()
    stand.own_too(1)
    await stand.take(stand.arrival(0, Wish(key=K, kind="close"), now=5_000_000))
    wakes, now = Wakes(stand.owner, tuple(START), 1.0, 10.0), 40_000_000
    ripe = wakes.ripe(now)
    assert [each.number for each in Wakes(stand.owner, tuple(START), 1.0, 41.0).ripe(now)] == []
    assert [each.number for each in ripe] == [0, 1]
    assert wakes.due(now, {(topic, each.number): 0 for topic in START for each in ripe}) == []
    assert stand.owner.read_until() == now and wakes.ripe(now) == []


async def test_rows_are_looked_for_once_a_second_and_by_each_flush_while_there_may_be_more(stand: Stand) -> None:
    partition = stand.own()
    partition.look(9_000_000, dict.fromkeys([topic for topic in START if topic != "asked"], 0))
    stand.leave_per_flush = 2
    rows = keys_at(0, 5, home)

    async def left_at(now: int, offset: int) -> list[str]:
        """What leaves with a flush of a record that is appended now."""
        before = {key for key in rows if stand.row(key) is not None}
        await stand.take(stand.arrival(offset, Wish(key=rows[4]), now=now))
        return sorted(rows.index(key) for key in before if stand.row(key) is None)

    for offset, (key, now) in enumerate(zip(rows, (5_000_000, 5_000_001, 5_000_002, 5_500_000), strict=False)):
        await stand.take(stand.arrival(offset, Wish(key=key, kind="close"), now=now))
    assert await left_at(6_100_000, 4) == [0, 1], "two may"
    assert await left_at(6_100_001, 5) == [2], "and there may be more"
    assert await left_at(6_600_000, 6) == [], "all were found; the time of the last one came since"
    assert await left_at(7_100_001, 7) == [3]
    assert partition.finished == 0


async def test_too_many_finished_rows_leave_oldest_first(stand: Stand) -> None:
    stand.own()
    stand.keep_rows = 1
    first, second, third = keys_at(0, 3, home)
    for offset, key in enumerate((first, second)):
        await stand.take(stand.arrival(offset, Wish(key=key, kind="close"), now=1_000 + offset))
    await stand.take(stand.arrival(2, Wish(key=third), now=1_010))
    assert stand.row(first) is None


async def test_an_ended_row_stays_until_its_outputs_are_acked_and_leaves_with_the_next_flush(stand: Stand) -> None:
    partition = stand.own()
    await stand.take(stand.arrival(0, Wish(key=K)))
    await stand.take(stand.arrival(1, Wish(key=K, kind="end")))
    assert K not in partition.open
    stand.recover(START)
    before = len(stand.outputs)
    await stand.take(stand.arrival(0, Wish(key=K)), stand.arrival(1, Wish(key=K, kind="end")))
    assert stand.outputs[before:] == [stand.outputs[1]], "after a crash its last outputs are said again"
    assert stand.said()[-1] == "farewell 2: 1 ended at 1000"
    await stand.take(stand.arrival(2, Wish(key=L)))
    assert stand.changelog[0][-2].key == K.encode() and stand.changelog[0][-2].value is None
    assert stand.row(K) is None


async def test_a_key_that_ended_begins_anew_even_before_its_tombstone(stand: Stand) -> None:
    partition = stand.own()
    await stand.take(stand.arrival(0, Wish(key=K, amount=9)))
    await stand.take(stand.arrival(1, Wish(key=K, kind="end")))
    await stand.take(stand.arrival(2, Wish(key=K, amount=7)))
    assert (stand.row(K).version, stand.row(K).total, partition.finished) == (1, 7, 0)


@pytest.mark.parametrize("rebuilt", [False, True])
async def test_a_key_that_ended_and_opens_again_does_not_leave(stand: Stand, rebuilt: bool) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=L, kind="close"), now=90_000_000))
    await stand.take(stand.arrival(1, Wish(key=K, kind="end"), now=90_000_001))
    await stand.take(stand.arrival(2, Wish(key=K, amount=7), now=90_000_002))
    await stand.take(stand.arrival(3, Wish(key=keys_at(0, 3, home)[2])))
    if rebuilt:
        stand.recover(dict.fromkeys(START, 4), rebuilt=True)
    await stand.take(stand.arrival(4, Wish(key=keys_at(0, 4, home)[3])))
    assert stand.row(K).total == 7
    stand.recover(dict.fromkeys(START, 5), rebuilt=True)
    assert stand.row(K).total == 7


async def test_an_id_that_left_and_came_again_stays_its_full_time_in_a_rebuilt_store(stand: Stand) -> None:
    others = {topic: 0 for topic in START if topic != "asked"}
    stand.own().look(9_000_000, others)
    await stand.take(stand.arrival(0, Wish(key=K, kind="close"), now=1_000_000))
    await stand.take(stand.arrival(1, Wish(key=L), now=2_000_001))
    assert stand.row(K) is None
    await stand.take(stand.arrival(2, Wish(key=K, kind="close"), now=3_000_000))
    stand.recover(dict.fromkeys(START, 3), rebuilt=True).look(9_000_000, others)
    await stand.take(stand.arrival(3, Wish(key=L), now=3_500_000))
    assert stand.row(K) is not None
    await stand.take(stand.arrival(4, Wish(key=L), now=4_500_000))
    assert stand.row(K) is None
