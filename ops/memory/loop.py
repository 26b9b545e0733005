"""Virtual time for a running asyncio loop: an hour of waiting costs nothing, and the same run gives the same instants.

Handlers are real coroutines and may sleep, time out and make tasks as they like, so time has to be virtual where they look
at it: in the loop. Whatever is runnable runs; only when nothing is, the clock moves to the next thing that is due. Work
that the loop cannot see the end of (threads, programs, sockets) is waited for in real time, within a limit.

asyncio has no door for this. So some methods of the loop, and `select` of its selector, are replaced on the instances as
long as the block lasts; a test fails loudly should a Python version ask for time in another way.

Timers are kept on whole microseconds: sums of floats differ in their last bits from one machine's uptime to the next, and
would fire timers of one instant in another order. The loop's time is half a microsecond ahead, so that rounding is safe.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from ops.memory.clock import VirtualClock
from schemas.errors import OperatorError

MICROS = 1_000_000


class Agenda(Protocol):
    """What happens in virtual time besides the loop's own timers."""

    @property
    def running(self) -> int:
        """Handlers that run; sockets are waited for only while there are some."""

    @property
    def in_threads(self) -> int:
        """Those that run in threads."""

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for what comes of `work`; else time moves for the loop's own timers only."""

    def due(self) -> int | None:
        """When `work` wants to be called next, microseconds of the clock."""

    def work(self) -> None:
        """Do what is due."""

    def idle(self, until: int | None) -> bool:
        """Nothing is runnable before `until`, the loop's next timer, and nobody outside is at work; called each time
        before the clock moves. Whether it made something runnable.
        """


class VirtualTime:
    """`with VirtualTime(...)`: the running loop lives on `clock`. One at a time for a loop.

    patience_seconds: real seconds for which the clock stands still while threads, programs or sockets are at work and nothing
    comes of it.
    """

    def __init__(self, clock: VirtualClock, agenda: Agenda, patience_seconds: float) -> None:
        self._clock, self._agenda, self._patience = clock, agenda, patience_seconds
        self._jobs = 0
        self._programs: list[asyncio.SubprocessTransport] = []
        self._gave_up: tuple[int, int, int] | None = None  # the jobs that were waited for in vain

    def __enter__(self) -> Self:
        """Raises OperatorError for a loop that is not asyncio's own, or that is virtual already."""
        loop = asyncio.get_running_loop()
        selector: Any = getattr(loop, "_selector", None)
        if not isinstance(loop, asyncio.SelectorEventLoop) or selector is None:
            raise OperatorError(
                f"Virtual time needs asyncio's own event loop, not {type(loop).__name__}",
                hint="run this test without uvloop or another loop of its own",
            )
        if "select" in vars(selector):
            raise OperatorError("This event loop runs on virtual time already", hint="one rehearsal at a time")
        self._loop, self._selector = loop, selector
        self._select, self._execute, self._schedule = selector.select, loop.run_in_executor, loop.call_at
        self._open_before = set(selector.get_map())
        self._loop_began, self._began = loop.time(), self._clock.now
        self._replaced = {
            "time": self._time, "call_at": self._call_at, "run_in_executor": self._run_in_executor,
            "subprocess_exec": partial(self._subprocess, loop.subprocess_exec),
            "subprocess_shell": partial(self._subprocess, loop.subprocess_shell),
        }  # fmt: skip
        vars(loop).update(self._replaced)
        vars(selector).update(select=self._next)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._replaced:
            del vars(self._loop)[name]
        del vars(self._selector)["select"]

    def _time(self) -> float:
        return self._loop_began + (self._clock.now - self._began + 0.5) / MICROS

    def _call_at(self, when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        micros = math.floor((when - self._loop_began) * MICROS)
        return self._schedule(self._loop_began + micros / MICROS, *args, **kwargs)

    def _run_in_executor(self, *args: Any) -> asyncio.Future[Any]:
        future = self._execute(*args)
        self._jobs += 1
        future.add_done_callback(self._job_ended)
        return future

    def _job_ended(self, future: asyncio.Future[Any]) -> None:
        self._jobs -= 1

    async def _subprocess(self, start: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        transport, protocol = await start(*args, **kwargs)
        self._programs.append(transport)
        return transport, protocol

    def _outside(self) -> tuple[int, int, int]:
        """Jobs in the executor, programs, handlers in threads: of each of them the loop hears at its end."""
        self._programs = [each for each in self._programs if each.get_returncode() is None]
        return self._jobs, len(self._programs), self._agenda.in_threads

    def _next(self, timeout: float | None = None) -> Any:
        """In the place of `select`: events, or a step of the clock."""
        events = self._select(0)
        if events:
            self._gave_up = None
        if events or (timeout is not None and timeout <= 0):
            return events
        opened = self._selector.get_map()
        self._open_before &= opened.keys()
        sockets = len(opened) > len(self._open_before)
        jobs = self._outside()
        if (any(jobs) and jobs != self._gave_up) or (sockets and self._agenda.running):
            events = self._select(self._patience)
            if events:
                self._gave_up = None
                return events
            self._gave_up = jobs
        now, own = self._clock.now, self._agenda.due()
        until = None if timeout is None else now + max(1, math.ceil(timeout * MICROS))
        if not any(jobs) and not sockets:
            if self._agenda.idle(until):
                return []
        elif until is None and not self._agenda.awaited:
            return self._select(None)  # somebody waits for the world outside, and for nothing else
        times = [each for each in (own, until) if each is not None]
        if not times:
            return self._select(None)
        self._clock.advance(max(0, min(times) - now))
        if own is not None and own <= self._clock.now:
            self._loop.call_soon(self._agenda.work)
        return []
