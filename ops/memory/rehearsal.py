"""A whole system in one process, without Kafka: for tests of one's own agents, and for a tour without a network.

    async with Rehearsal(agents()) as troupe:
        task = await troupe.submit("risk_assessment", {"applicant_id": "a-17", "loan_amount": 9000, "credit_score": 700})
        assert (await troupe.result(task))["grade"] == "B"

The coordinator, the mailboxes, the codec and the topics are those of the real thing; the log lies in memory and time is
virtual. Handlers run in the test's own loop, so fixtures, events and mocks work in them as anywhere. Retries, time-outs and
hour-long sleeps pass at once, and the same test makes the same records in the same order (as long as no handler's thread or
socket has a say in it).
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from actors.api import Actor
from actors.runtime.memory import MemoryHost
from ops.client import NoOutcome, TaskFailed
from ops.memory.client import MemoryClient
from ops.memory.clock import DAWN, VirtualClock
from ops.memory.installation import create_topics, memory_codecs
from ops.memory.log import MemoryLog
from ops.memory.logs import plain_logs
from ops.memory.loop import MICROS, VirtualTime
from ops.memory.plight import Scene, Stuck, plight
from ops.processors import processors
from ops.views.cancel import Cancelled
from ops.views.tasks import TaskStatus
from schemas.settings import Kafka, Settings
from schemas.tasks import TaskEvent
from streams.runtime.memory import MemoryCoordinator
from streams.runtime.memory_group import Group
from streams.runtime.memory_table import Disk
from topology import troupe

__all__ = ["NoOutcome", "Rehearsal", "Stuck", "TaskFailed"]

HOUR_S = 3600.0
PARTITIONS = 2


class Rehearsal:
    """A system of these agents; `async with` starts it. One at a time in a loop, and only asyncio's own loop will do.

    settings: of the installation; its data directory is always a fresh one, which is removed at the end. patience_seconds:
    real seconds for which the clock stands still while threads, programs or sockets work. longest_seconds: virtual time
    after which a test that goes on and on is ended. start: microseconds since 1970 at which the clock begins; `time.time()`
    stays real in handlers, so one that compares it with `ctx.deadline_at` needs `start=time.time_ns() // 1000`.
    """

    def __init__(
        self,
        actors: Sequence[Actor],
        *,
        settings: Settings | None = None,
        patience_seconds: float = 5.0,
        longest_seconds: float = 7 * 24 * HOUR_S,
        start: int = DAWN,
    ) -> None:
        self._actors, self._patience, self._longest = list(actors), patience_seconds, longest_seconds
        self._given = settings or Settings(kafka=Kafka(partitions=PARTITIONS))
        self._stack = ExitStack()
        self._group: Group = Group(self._given.kafka.partitions)
        self._disk = Disk()
        self._coordinator: MemoryCoordinator | None = None
        self._host: MemoryHost | None = None
        self._open = self._nudged = False
        self._failed: Exception | None = None
        self._owner: asyncio.Task[Any] | None = None
        self._cancelled = False  # whether we cancelled the owner, who waits for what will never come
        self.clock = VirtualClock(start)
        self.log = MemoryLog(self.clock)

    async def __aenter__(self) -> Self:
        """Raises OperatorError if an agent cannot be registered, or for a loop that is not asyncio's own.

        What ends a host on Kafka ends the rehearsal: BeginAnew tells of handlers that ignore their cancellation until no
        slot is left, or that ran out of memory.
        """
        if self._owner is not None:
            raise RuntimeError("a rehearsal is held once; make another Rehearsal")
        self._owner, self._began = asyncio.current_task(), self.clock.now
        place = self._stack.enter_context(_folder())
        try:
            self.settings = self._given.model_copy(update={"data_dir": Path(place)})
            self.codecs = memory_codecs(self.settings)
            create_topics(self.log, self.settings, troupe())
            self.client = MemoryClient(self.settings, self.codecs, self.log, self._nudge, "rehearsal")
            self._stack.enter_context(plain_logs())
            self._stack.enter_context(VirtualTime(self.clock, self, self._patience))
            self.restart_coordinator()
            self.restart_actors()
            self._open = True
        except BaseException:
            self._stack.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Handlers that still run are ended. Raises what broke the system itself, or Stuck where nothing could go on."""
        self._open = False
        self._give_up(RuntimeError("the rehearsal is over, and with it whatever was waited for"))
        try:
            await self.crash_actors()
            self.crash_coordinator()
        finally:
            self._stack.close()
        if self._cancelled and self._owner is not None:
            self._owner.uncancel()
        if self._failed is not None and (kind is None or (self._cancelled and kind is asyncio.CancelledError)):
            raise self._failed from None

    # --- what a client does

    async def submit(self, word: str | None = None, payload: Any = None, **fields: Any) -> str:
        """Submit a task and return its id. `word` is a pattern or a capability, as in `troupe submit WORD`; the other fields
        are those of TaskCommand (`agent_id`, `required_capabilities`, `timeout_seconds`, `task_id`, `retry`, …).

        Raises InvalidInput for fields that make no command, PayloadTooLarge.
        """
        self._check()
        return await self.client.submit(pattern=word, payload=payload, **fields)

    async def wait(self, task_id: str, timeout_s: float = HOUR_S) -> TaskStatus:
        """What became of a task, as soon as it is finished, at the latest after `timeout_s` of virtual time.

        Raises Stuck as soon as nothing can come of it in that time: for want of an agent or a coordinator, for a handler
        that waits for what nobody brings, for an id that nobody submitted.
        """
        self._check()
        found = await self.client.wait(task_id, timeout_s)
        if found is None:
            raise Stuck(f"Nothing is known of task '{task_id}' after {timeout_s:g} s", hint="submit it first")
        return found

    async def result(self, task_id: str, timeout_s: float = HOUR_S) -> Any:
        """The result of a task as a JSON value, as soon as it has one. Raises TaskFailed if it ended otherwise, NoOutcome if
        it is not finished in time, Stuck as `wait` does.
        """
        self._check()
        return await self.client.result(task_id, timeout_s)

    async def cancel(self, task_id: str, reason: str | None = None) -> Cancelled:
        """Cancel a task; says what came of it. Raises Stuck without a coordinator."""
        self._check()
        return await self.client.cancel(task_id, reason)

    async def status(self, task_id: str) -> TaskStatus | None:
        """What is known of a task now, None if nothing is."""
        return await self.client.status(task_id)

    def events(self, task_id: str, *, live: bool = True, timeout_s: float = HOUR_S) -> AsyncIterator[TaskEvent]:
        """The events of a task, each once: those that are there, then new ones as they are written, until it is finished;
        with `live=False` only those that are there. Raises NoOutcome after `timeout_s`, Stuck as `wait` does.
        """
        return self.client.events(task_id, live=live, timeout_s=timeout_s)

    def follow(self, told: Callable[[TaskEvent], None]) -> None:
        """Call `told` with each event of any task from now on, as soon as it is written."""
        self.client.seen("")  # what is there already is no news
        self.client.follower = told

    # --- time

    @property
    def now(self) -> int:
        """Virtual time, microseconds since 1970."""
        return self.clock.now

    async def advance(self, seconds: float) -> None:
        """Let virtual time pass, with all that happens in it; `asyncio.sleep` does the same."""
        self._check()
        await asyncio.sleep(seconds)
        self._check()

    # --- what may go wrong

    def crash_coordinator(self) -> None:
        """End the coordinator as `kill -9` does: what it had not written is gone."""
        if self._coordinator is not None:
            self._coordinator.kill()
            self._coordinator = None

    def restart_coordinator(self) -> None:
        """Start the coordinator again: it recovers from its changelog and goes on where the log says."""
        self.crash_coordinator()
        self._coordinator = MemoryCoordinator(
            self.settings, processors(self.settings, troupe(), self.codecs), self.codecs, self.log,
            lambda: self.clock.now, self._group, self._disk,
        )  # fmt: skip
        self._turn()

    async def crash_actors(self) -> None:
        """End the agents' host as `kill -9` does: handlers stop where they are, and nothing more is reported."""
        host, self._host = self._host, None
        if host is not None:
            await host.kill()

    def restart_actors(self, actors: Sequence[Actor] | None = None) -> None:
        """Start the host again, with the same agents or with others; with a coordinator they are up when this returns.

        Raises RuntimeError while a host runs, OperatorError if an agent is refused.
        """
        if self._host is not None:
            raise RuntimeError("the agents' host runs; end it first with `await crash_actors()`")
        if actors is not None:
            self._actors = list(actors)
        seat = self.settings.data_dir / "hosts" / self.settings.actors.host
        host = MemoryHost(
            self.settings, self._actors, self.codecs, self.log, lambda: self.clock.now, seat, self._nudge
        )
        host.start()
        self._host = host
        self._turn()

    # --- the agenda of virtual time

    @property
    def running(self) -> int:
        """Handlers that run now."""
        return 0 if self._host is None else self._host.running

    @property
    def in_threads(self) -> int:
        """Those of them that run in threads."""
        return 0 if self._host is None else self._host.in_threads

    def due(self) -> int | None:
        """When anything of the system happens by itself, microseconds."""
        if self._failed is not None:
            return None
        times = (
            self.client.due(),
            None if self._coordinator is None else self._coordinator.due(),
            None if self._host is None else self._host.due(),
        )
        return min((each for each in times if each is not None), default=None)

    def work(self) -> None:
        """Do what is due."""
        self._nudge()

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for a task."""
        return bool(self.client.waiters)

    def idle(self, until: int | None) -> bool:
        """Tell those who wait in vain why they do."""
        if self._failed is not None:
            return False
        if self.clock.now - self._began > self._longest * MICROS:
            self._fail(Stuck(f"{self._longest:g} s of virtual time went by", hint="longest_seconds allows more"))
            return True
        ends = self._host.next_end if self._host is not None else None
        if until is not None and (ends is None or abs(until - ends) > 1):  # being ended one day is not sleeping
            return False
        next_row, waiters = self.next_row(), [each for each in self.client.waiters if not each.told.done()]
        if not waiters and next_row is None:
            self._fail(Stuck("Nothing can happen any more: no task is open, no handler runs and nobody sleeps"))
            return True
        vain = [each for each in waiters if next_row is None or next_row >= each.until]
        for waiter in vain:
            waiter.told.set_exception(plight(waiter.task_id, self.client.seen(waiter.task_id), self._scene(next_row)))
        return bool(vain)

    def _scene(self, next_row: int | None) -> Scene:
        seconds = None if next_row is None else (next_row - self.clock.now) / MICROS
        return Scene(self._coordinator is not None, self._host is not None, seconds)

    def next_row(self) -> int | None:
        """When the first open task wants to be woken (a retry, a time-out, the end of a life), microseconds."""
        if self._coordinator is None:
            return None
        runner = next(each for each in self._coordinator.runners if each.spec.name == "tasks")
        if runner.owner is None:
            return None
        dues = [
            runner.owner.processor.due(row)
            for partition in runner.owner.partitions.values()
            for row in partition.open.values()
        ]
        return min((each for each in dues if each is not None), default=None)

    # --- turning the wheel

    def _nudge(self) -> None:
        if not self._nudged:
            self._nudged = True
            asyncio.get_running_loop().call_soon(self._turn_safely)

    def _turn_safely(self) -> None:
        """A failure in here belongs to whoever uses the rehearsal, not to the loop's handler of exceptions."""
        try:
            self._turn()
        except Exception as error:
            self._fail(error)

    def _turn(self) -> None:
        """Coordinator and host in turns, until neither has anything to do at this instant."""
        self._nudged, moved = False, True
        while moved:
            if self._coordinator is not None:
                self._coordinator.run()
            moved = self._host is not None and self._host.poll()
        self.client.tell()

    def _fail(self, error: Exception) -> None:
        """Tell whoever waits for a task; else end the block, which waits for something else."""
        self._failed = error
        if not self._give_up(error) and self._owner is not None:
            self._cancelled = True
            self._owner.cancel()

    def _give_up(self, error: Exception) -> bool:
        """Tell all who wait; whether there were any."""
        waiters = [each for each in self.client.waiters if not each.told.done()]
        for waiter in waiters:
            waiter.told.set_exception(error)
        return bool(waiters)

    def _check(self) -> None:
        if not self._open:
            raise RuntimeError("the rehearsal is not open; use it inside of `async with Rehearsal(...) as troupe:`")
        if self._failed is not None:
            raise self._failed


def _folder() -> tempfile.TemporaryDirectory[str]:
    """A data directory; a thread that was left behind may still write there when it is removed."""
    return tempfile.TemporaryDirectory(prefix="troupe-rehearsal-", ignore_cleanup_errors=True)
