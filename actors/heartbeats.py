"""Signs of life from a thread of their own, so that a handler which blocks the host's loop does not take it offline.

The thread has its own event loop and its own connection. It reads two numbers per agent from objects of the other
thread, each in one step, so no lock is needed. A heartbeat that cannot be sent is only logged: the next one follows.
The last one says that it is the last, so that nobody waits for the next; it comes from the same connection, so that
none of the others can come after it.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import structlog

from schemas.agents import AgentCommand, AgentCommandKind
from schemas.codec import Codec

Send = Callable[[str, bytes], Awaitable[None]]
"""Append a value under a key to `agents.commands`; returns when acknowledged, raises if that fails."""

AGAIN_SECONDS = 1.0
"""Pause before another connection after one was lost."""

LONGEST_SLEEP_SECONDS = 3600.0
"""Longest interval of an agent; the loop's clock takes no infinity."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """One agent's heartbeat. `read` gives (load, inbox_lag or None), or None as long as its inbox is not ours."""

    agent_id: str
    interval_seconds: float
    read: Callable[[], tuple[int, int | None] | None]


class Heartbeats:
    """Beats for some agents until stopped. `connect` opens the thread's own connection, inside the thread."""

    def __init__(
        self,
        pulses: Sequence[Pulse],
        codec: Codec[AgentCommand],
        connect: Callable[[], AbstractAsyncContextManager[Send]],
        clock: Callable[[], int],
    ) -> None:
        self._pulses = {pulse.agent_id: pulse for pulse in pulses}
        self._codec, self._connect, self._clock = codec, connect, clock
        self._due = dict.fromkeys(self._pulses, math.inf)  # monotonic seconds; the first beat is asked for
        self._log = structlog.get_logger("actors")
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._stopping = False
        self._leaving: Sequence[str] = ()
        self._incarnation = str(uuid.uuid4())
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def now(self, agent_ids: Sequence[str]) -> None:
        """Beat for these at once, and then at their intervals; from any thread."""
        for agent_id in agent_ids:
            self._due[agent_id] = 0.0
        self._call(self._wake.set)

    def stop(self, timeout_seconds: float, leaving: Sequence[str] = ()) -> None:
        """End the thread, with a goodbye for those whom nobody works for from now on; waits at most so long."""
        self._leaving, self._stopping = leaving, True
        self._call(self._wake.set)
        self._thread.join(timeout_seconds)

    def _call(self, function: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._connected())
        finally:
            self._loop.close()

    async def _connected(self) -> None:
        while not self._stopping:
            try:
                async with self._connect() as send:
                    await self._beat(send)
            except Exception as error:  # whatever the client raises, the next heartbeat must come
                self._log.warning("heartbeat_failed", error=f"{type(error).__name__}: {error}")
                await self._sleep(AGAIN_SECONDS)

    async def _beat(self, send: Send) -> None:
        while not self._stopping:
            self._wake.clear()
            now = time.monotonic()
            beats = []
            for agent_id, pulse in self._pulses.items():
                if self._due[agent_id] > now:
                    continue
                self._due[agent_id] = now + pulse.interval_seconds
                if (state := pulse.read()) is not None:
                    beats.append(send(agent_id, self._codec.encode(self._command(agent_id, *state))))
            if beats:
                await asyncio.gather(*beats)
            await self._sleep(min(self._due.values()) - time.monotonic())
        last = [self._command(each, 0, None, goodbye=True) for each in self._leaving]
        await asyncio.gather(*(send(each.agent_id, self._codec.encode(each)) for each in last))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(min(seconds, LONGEST_SLEEP_SECONDS)):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _command(self, agent_id: str, load: int, lag: int | None, *, goodbye: bool = False) -> AgentCommand:
        return AgentCommand(
            event_id=str(uuid.uuid4()), occurred_at=self._clock(), source=agent_id,
            kind=AgentCommandKind.HEARTBEAT, agent_id=agent_id, load=load, inbox_lag=lag,
            goodbye=goodbye, incarnation=self._incarnation,
        )  # fmt: skip
