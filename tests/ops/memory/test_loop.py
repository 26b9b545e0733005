"""Virtual time in a running loop. It leans on private parts of asyncio, so each of them is tried here by what it does."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable

import pytest

from ops.memory.clock import VirtualClock
from ops.memory.loop import MICROS, VirtualTime


class Nothing:
    """An agenda without a date; `dates` may be filled."""

    def __init__(self) -> None:
        self.running, self.in_threads, self.awaited = 0, 0, False
        self.dates: list[int] = []
        self.worked: list[int] = []
        self.idles: list[int | None] = []
        self.when_idle: Callable[[], bool] = lambda: False
        self.clock = VirtualClock()

    def due(self) -> int | None:
        return min(self.dates, default=None)

    def work(self) -> None:
        self.worked.append(self.clock.now)
        self.dates = [each for each in self.dates if each > self.clock.now]

    def idle(self, until: int | None) -> bool:
        self.idles.append(until)
        return self.when_idle()


async def test_a_sleep_moves_the_clock_by_its_length_to_the_microsecond() -> None:
    agenda = Nothing()
    real, start = time.monotonic(), agenda.clock.now
    with VirtualTime(agenda.clock, agenda, 1.0):
        for seconds in (0.1, 0.2, 0.3, 1e-6, 3600, 0.25):
            before = agenda.clock.now
            await asyncio.sleep(seconds)
            assert agenda.clock.now - before == round(seconds * MICROS)
    assert agenda.clock.now - start == 3_600_850_001
    assert time.monotonic() - real < 5


async def test_sleeps_of_one_instant_end_in_the_order_in_which_they_began() -> None:
    agenda, ended = Nothing(), []

    async def sleep(name: str, *naps: float) -> None:
        for nap in naps:
            await asyncio.sleep(nap)
        ended.append((name, agenda.clock.now))

    start = agenda.clock.now
    with VirtualTime(agenda.clock, agenda, 1.0):
        await asyncio.gather(sleep("a", 0.3), sleep("b", 0.1, 0.2), sleep("c", 0.2, 0.1), sleep("d", 0.1, 0.1, 0.1))
    assert ended == [("a", start + 300_000), ("c", start + 300_000), ("b", start + 300_000), ("d", start + 300_000)]


async def test_time_outs_and_the_loops_own_clock_are_virtual() -> None:
    agenda, loop = Nothing(), asyncio.get_running_loop()
    with VirtualTime(agenda.clock, agenda, 1.0):
        began = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(86_400 * 2):
                await asyncio.Event().wait()
        assert loop.time() - began == pytest.approx(86_400 * 2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 5)
    assert loop.time() == pytest.approx(time.monotonic(), abs=1)


async def test_dates_of_the_agenda_are_kept_on_the_way() -> None:
    agenda = Nothing()
    start = agenda.clock.now
    agenda.dates = [start + 2 * MICROS, start + 4 * MICROS, start + 9 * MICROS]
    with VirtualTime(agenda.clock, agenda, 1.0):
        await asyncio.sleep(5)
    assert agenda.worked == [start + 2 * MICROS, start + 4 * MICROS]


async def test_idle_is_asked_before_time_moves_and_may_make_something_runnable() -> None:
    agenda, told = Nothing(), asyncio.get_running_loop().create_future()

    def tell() -> bool:
        told.set_result("told")
        agenda.when_idle = lambda: False
        return True

    agenda.when_idle = tell
    start = agenda.clock.now
    with VirtualTime(agenda.clock, agenda, 1.0):
        async with asyncio.timeout(100):
            assert await told == "told"
        assert agenda.clock.now == start
    assert agenda.idles == [start + 100 * MICROS]


async def test_jobs_in_the_executor_are_waited_for_in_real_time() -> None:
    agenda = Nothing()
    start = agenda.clock.now
    with VirtualTime(agenda.clock, agenda, 5.0):
        async with asyncio.timeout(0.001):
            await asyncio.to_thread(time.sleep, 0.1)
    assert agenda.clock.now == start


async def test_after_the_patience_time_goes_on_once_and_for_all() -> None:
    agenda, gate, waits = Nothing(), threading.Event(), []
    with VirtualTime(agenda.clock, agenda, 0.1) as virtual:
        select = virtual._select

        def counted(timeout: float | None) -> object:
            waits.append(timeout)
            return select(timeout)

        virtual._select = counted
        job = asyncio.ensure_future(asyncio.to_thread(gate.wait, 60))
        for _ in range(20):
            await asyncio.sleep(60)
        assert [each for each in waits if each] == [0.1]
        gate.set()
        await job


async def test_whoever_waits_for_the_world_outside_alone_moves_no_clock() -> None:
    agenda = Nothing()
    agenda.dates = [agenda.clock.now + MICROS]
    start, loop = agenda.clock.now, asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with VirtualTime(agenda.clock, agenda, 5.0), ours, theirs:
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 10))
        await asyncio.sleep(0)
        threading.Timer(0.1, theirs.send, (b"hello",)).start()
        assert await receiving == b"hello"
    assert agenda.clock.now == start


async def test_a_handlers_sockets_are_waited_for_whatever_was_open_before() -> None:
    agenda, loop = Nothing(), asyncio.get_running_loop()
    agenda.running = 1
    start = agenda.clock.now
    old, other = socket.socketpair()
    loop.add_reader(old, lambda: None)
    with VirtualTime(agenda.clock, agenda, 5.0), old, other:
        await asyncio.sleep(0.001)
        loop.remove_reader(old)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            threading.Timer(0.1, theirs.send, (b"hello",)).start()
            async with asyncio.timeout(0.5):
                assert await loop.sock_recv(ours, 10) == b"hello"
    assert agenda.clock.now == start + 1000
