"""A long batch lets heartbeats and acks have their turn, and what waits for the rules is bounded in bytes."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.partitioning import home
from schemas.settings import Settings
from streams.runtime.arrivals import Arrivals
from streams.runtime.batch import alone, run_batch
from streams.runtime.coordinator import Coordinator
from streams.runtime.delivered import Chunk, Delivered
from streams.runtime.turns import Turns
from tests.streams.runtime.tally import Stand, Wish, keys_at

WORK_S, SLICE_S, RECORDS = 0.005, 0.02, 100


def slow(function: Any) -> Any:
    def working(*args: Any) -> Any:
        time.sleep(WORK_S)
        return function(*args)

    return working


async def turns_of_others(work: Any) -> int:
    """How often another task of the loop had its turn meanwhile."""
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    ticking = asyncio.ensure_future(tick())
    await work
    ticking.cancel()
    return turns


@pytest.mark.parametrize("stage", ["prepare", "step"])
async def test_heartbeats_go_out_in_the_midst_of_a_long_batch(stand: Stand, stage: str) -> None:
    stand.own()
    setattr(stand.owner.processor, stage, slow(getattr(stand.owner.processor, stage)))
    arrivals = [stand.arrival(n, Wish(key=key)) for n, key in enumerate(keys_at(0, RECORDS, home))]
    turn = Turns(SLICE_S).over
    others = await turns_of_others(run_batch(stand.owner, arrivals, stand.write, lambda handle, waiting: None, turn))
    least = RECORDS * WORK_S / SLICE_S / 4 if stage == "prepare" else 1  # steps are taken in groups
    assert others >= least, others


async def test_heartbeats_go_out_while_a_long_batch_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = object.__new__(Arrivals)
    made.topics = {"asked": "a topic"}
    made.decoded = slow(lambda delivery: delivery)
    record = SimpleNamespace(topic="asked", partition=0, offset=1, key=b"k", value=b"v", timestamp=1, headers=())
    others = await turns_of_others(made.of([record] * RECORDS, Turns(SLICE_S).over))
    assert others >= RECORDS * WORK_S / SLICE_S / 4, others
    assert await turns_of_others(made.of([record] * 10, alone)) <= 1


async def test_a_turn_is_not_over_before_its_time() -> None:
    now = 10.0
    turns = Turns(0.5, lambda: now)
    assert turns.over() is None
    now = 10.5
    others = turns.over()
    assert others is not None
    await others
    assert turns.over() is None
    now = 11.0
    others = turns.over()
    assert others is not None
    await others


async def test_what_waits_is_known_by_count_and_bytes() -> None:
    generation = 1
    delivered = Delivered(lambda: generation)
    record = SimpleNamespace(value=b"12345")
    delivered.put(Chunk(1, [record] * 4))
    delivered.put(Chunk(1, [SimpleNamespace(value=None), record]))
    assert (delivered.count, delivered.bytes) == (6, 25)
    assert len(await delivered.take(3, 1.0)) == 3
    assert (delivered.count, delivered.bytes) == (3, 10)
    generation = 2
    delivered.put(Chunk(2, [record]))
    assert len(await delivered.take(9, 1.0)) == 1, "those of an older generation are dropped"
    assert (delivered.count, delivered.bytes) == (0, 0)


@pytest.mark.parametrize(
    ("counts", "sizes", "full"),
    [((0, 0), (0, 0), False), ((19_999, 0), (0, 0), False), ((0, 20_000), (0, 0), True), ((1, 1), (0, 2**26), True)],
)
def test_nothing_more_is_delivered_while_one_processor_has_enough(counts: Any, sizes: Any, full: bool) -> None:
    coordinator: Any = object.__new__(Coordinator)
    coordinator._settings = Settings()
    waiting = [SimpleNamespace(count=count, bytes=size) for count, size in zip(counts, sizes, strict=True)]
    coordinator._runners = [SimpleNamespace(delivered=each) for each in waiting]
    assert coordinator._is_full() is full
