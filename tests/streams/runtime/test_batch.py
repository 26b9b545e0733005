"""The order of a batch: the tail before anything newer, its outputs acked before another header, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.partitioning import home
from tests.streams.runtime.tally import MORE, SPEC, Stand, Wish, keys_at

K, L, M = keys_at(0, 3, home)
START = {topic.name: 0 for topic in SPEC.reads}


async def _two_topics(stand: Stand) -> None:
    """A past with a tail in both inputs: asked up to 1, more up to 0."""
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K)), stand.arrival(1, Wish(key=L)), stand.arrival(0, Wish(key=M), MORE))


async def test_a_newer_record_waits_until_the_tails_of_all_inputs_are_read(stand: Stand) -> None:
    await _two_topics(stand)
    partition = stand.recover(START)
    assert partition.left == {"asked", "more"}
    said = len(stand.outputs)
    await stand.take(stand.arrival(0, Wish(key=K)), stand.arrival(1, Wish(key=L)), stand.arrival(2, Wish(key=K)))
    assert partition.left == {"more"} and stand.waiting == ["asked.0.2"]
    assert len(stand.outputs) == said + 2, "the tail's outputs"
    await stand.take(stand.arrival(0, Wish(key=M), MORE))
    assert not partition.left and not stand.waiting
    assert stand.row(K).total == 2


async def test_the_tails_outputs_are_written_before_a_newer_changelog_batch(stand: Stand) -> None:
    await _two_topics(stand)
    stand.recover(START)
    flushes = len(stand.flushes)
    await stand.take(
        stand.arrival(0, Wish(key=M), MORE),
        stand.arrival(0, Wish(key=K)), stand.arrival(1, Wish(key=L)), stand.arrival(2, Wish(key=K)),
    )  # fmt: skip
    tail, newer = stand.flushes[flushes:]
    assert not tail.parts and len(tail.outputs) == 3 and tail.tail == {0}
    assert list(newer.parts) == [0] and not newer.tail


async def test_a_tail_that_ends_with_a_record_that_never_comes_counts_as_read_once_passed(stand: Stand) -> None:
    await _two_topics(stand)
    partition = stand.recover(START)
    await stand.take(stand.arrival(0, Wish(key=M), MORE), stand.arrival(0, Wish(key=K)))
    assert partition.left == {"asked"}
    await stand.take(stand.arrival(2, Wish(key=L)))  # the log has no 1 any more
    assert not partition.left and stand.row(L).total == 2


async def test_a_partition_whose_commits_are_past_its_header_has_no_tail(stand: Stand) -> None:
    await _two_topics(stand)
    partition = stand.recover({"asked": 2, "more": 1} | {topic.name: 0 for topic in SPEC.reads[2:]})
    assert not partition.left
    await stand.take(stand.arrival(2, Wish(key=K)))
    assert stand.row(K).total == 2


async def test_held_records_keep_their_order(stand: Stand) -> None:
    await _two_topics(stand)
    stand.recover(START)
    await stand.take(
        stand.arrival(0, Wish(key=K)), stand.arrival(1, Wish(key=L)),
        stand.arrival(2, Wish(key=K, amount=10)), stand.arrival(3, Wish(key=K, kind="close")),
    )  # fmt: skip
    assert stand.waiting == ["asked.0.2", "asked.0.3"]
    await stand.take(stand.arrival(0, Wish(key=M), MORE), stand.arrival(1, Wish(key=M), MORE))
    assert (stand.row(K).total, stand.row(K).state, stand.row(M).total) == (11, "closed", 2)
    assert stand.covered[-4:] == ["more.0.0", "asked.0.2", "asked.0.3", "more.0.1"]


async def test_a_record_of_a_revoked_partition_is_left_to_its_next_owner(stand: Stand) -> None:
    stand.own(0)
    foreign = keys_at(1, 1, home)[0]
    await stand.take(stand.arrival(0, Wish(key=foreign), number=1), stand.arrival(0, Wish(key=K)))
    assert stand.covered == ["asked.0.0"]


async def test_a_record_that_comes_twice_or_out_of_order_stops_the_process(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K)), stand.arrival(1, Wish(key=K)))
    with pytest.raises(AssertionError, match="0 came after 1"):
        await stand.take(stand.arrival(0, Wish(key=K)))


@pytest.mark.parametrize("crash_after", range(4))
async def test_whatever_flush_the_process_dies_after_all_outputs_come_and_are_the_same(
    tmp_path: Path, crash_after: int
) -> None:
    """The changelog has the flush, its outputs are lost; the next process says them again and goes on."""
    todo = [("add", K), ("refuse", K), ("add", L), ("add", K), ("raise", L), ("add", M), ("close", K)]
    whole = await _run(Stand(tmp_path / "whole"), todo, None)
    broken = await _run(Stand(tmp_path / "broken"), todo, crash_after)
    assert sorted({(each.key, each.value) for each in broken.outputs}) == sorted(
        {(each.key, each.value) for each in whole.outputs}
    )
    assert {key: broken.row(key) for key in (K, L, M)} == {key: whole.row(key) for key in (K, L, M)}


async def _run(stand: Stand, todo: list[tuple[str, str]], crash_after: int | None) -> Stand:
    stand.directory.mkdir()
    arrivals = [stand.arrival(n, Wish(key=key, kind=kind)) for n, (kind, key) in enumerate(todo)]
    stand.own()
    for batch in (arrivals[:2], arrivals[2:4], arrivals[4:6], arrivals[6:]):
        stand.refuse_outputs = crash_after == len(stand.flushes)
        await stand.take(*batch)
        if stand.refuse_outputs:
            stand.refuse_outputs = False
            crash_after = None
            await _restart(stand, arrivals[: batch[-1].delivery.offset + 1])
    return stand


async def _restart(stand: Stand, read: list) -> None:
    """The next process reads from the last commit: here, to be hard on it, from the beginning."""
    stand.recover(START, rebuilt=True)
    await stand.take(*read)
