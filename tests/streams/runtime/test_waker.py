"""The net under delivery: it holds what stands still, and nothing that is only slow."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from faust.types import TP

from schemas.settings import Settings
from streams.runtime.partition import Partition
from streams.runtime.waker import Waker
from streams.runtime.wakes import Clock
from streams.runtime.wire import Wire
from tests.streams.runtime.tally import SPEC, codecs


class Died(Exception):
    """In the place of the process's end."""


class Net:
    """A waker whose log ends at 10 in both partitions of each input, of which 0 to 4 were taken."""

    def __init__(self) -> None:
        self.queued = 0
        self.read_again: list[tuple[str, int]] = []
        self.during_look: list[int] = []
        self.hooks = SimpleNamespace(full_at=0.0)
        consumer = SimpleNamespace(
            highwaters=self._ends, read_again=self._again, _thread=SimpleNamespace(reached=AsyncMock(return_value={}))
        )
        settings = Settings()
        app: Any = SimpleNamespace(hooks=self.hooks, consumer=consumer)
        self.waker = Waker(SPEC, app, Wire(settings, codecs()), settings, Clock(), self._die)
        seen = {topic.name: 4 for topic in SPEC.reads}
        self.owner: Any = SimpleNamespace(partitions={n: Partition(n, 0, seen=dict(seen)) for n in range(2)})

    async def look(self) -> None:
        await self.waker.look_for_stalls(self.owner, lambda: self.queued)

    async def _ends(self, *places: Any) -> dict[Any, int]:
        self.queued = self.during_look.pop(0) if self.during_look else self.queued
        return {place: 10 if place.topic == "asked" else 5 for place in places}

    async def _again(self, place: TP, offset: int) -> None:
        self.read_again.append((f"{place.topic}.{place.partition}", offset))

    def _die(self, code: int, why: str) -> Any:
        raise Died(why)


async def test_the_log_is_read_again_at_the_second_look_and_the_process_ends_at_the_third() -> None:
    net = Net()
    await net.look()
    assert net.read_again == []
    await net.look()
    assert net.read_again == [("asked.0", 5), ("asked.1", 5)]
    with pytest.raises(Died, match=r"asked\.0: 10 in the log, 4 was the last delivered"):
        await net.look()


async def test_what_came_while_the_ends_were_asked_for_is_not_read_twice() -> None:
    net = Net()
    net.during_look = [0, 5, 0, 0]
    for _ in range(3):
        await net.look()
    assert net.read_again == [], "the third is a first look again"
    await net.look()
    assert net.read_again == [("asked.0", 5), ("asked.1", 5)]


async def test_what_came_while_another_partition_was_sought_is_not_read_twice() -> None:
    net = Net()
    await net.look()

    async def sought(place: TP, offset: int) -> None:
        net.read_again.append((f"{place.topic}.{place.partition}", offset))
        net.queued = 5

    net.waker._app.consumer.read_again = sought  # type: ignore[method-assign]
    await net.look()
    assert net.read_again == [("asked.0", 5)]


def test_nothing_is_silent_while_delivery_waits_for_the_loop() -> None:
    net = Net()
    net.waker._heard_at = time.monotonic() - 60
    assert net.waker.silent_for(5)
    net.hooks.full_at = time.monotonic()
    assert not net.waker.silent_for(5)
