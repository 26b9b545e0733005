"""Runs the handlers of a host's mailboxes: each in an asyncio task of its own, but only if it needs one.

Most handlers that only compute never suspend, and a task object for each costs more than they do. So a *lane*, one
asyncio task, calls handlers one after the other; when one of them suspends, the lane is its task from then on and
another lane takes over the queue. A handler therefore always runs inside one task, from its first line to its last:
timeouts, task groups and cancellation work in it as anywhere.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from actors.api import Context
from actors.handlers import failure, result_text
from actors.journal import Journal
from actors.mailbox import Mailbox, Stage, Work
from actors.reports import Reporter
from actors.threads import Threads
from schemas.errors import InvalidInput, Retryable, TroupeError
from schemas.failpoint import Failpoints
from schemas.settings import Settings
from schemas.tasks import TaskError

TURN_SECONDS = 0.005
"""Longest time that handlers which never suspend keep the loop from group heartbeats and acknowledgements."""


MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What the runner needs of the settings; seconds. `max_starts`: an assignment is failed at this start."""

    report_after_seconds: float
    progress_interval_seconds: float
    stuck_seconds: float
    overdue_seconds: float
    max_starts: int
    data_dir: Path
    sources_root: Path

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that the settings give."""
        return cls(
            report_after_seconds=settings.actors.report_after_seconds,
            progress_interval_seconds=settings.actors.progress_interval_seconds,
            stuck_seconds=settings.actors.stuck_seconds,
            overdue_seconds=settings.actors.overdue_seconds,
            max_starts=settings.actors.max_starts,
            data_dir=settings.data_dir,
            sources_root=settings.sources,
        )


class BeginAnew(Retryable):
    """Handlers have left this process in a state that only another one mends: it should drain and end."""


class TaskLog:
    """A logger with the task's id in each line, bound only if a handler writes one."""

    __slots__ = ("_log", "_work")

    def __init__(self, log: Any, work: Work) -> None:
        self._log, self._work = log, work

    def _bound(self) -> Any:
        task = self._work.task
        return self._log.bind(agent=self._work.mailbox.agent_id, task=task.task_id, attempt=task.attempt)

    def debug(self, event: str, **fields: Any) -> None:
        self._bound().debug(event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        self._bound().info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._bound().warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        self._bound().error(event, **fields)


class Runner:
    """Starts what the mailboxes let start, and reports how it ended. Use within one running loop only."""

    def __init__(
        self, limits: Limits, reporter: Reporter, journal: Journal, clock: Callable[[], int], failpoints: Failpoints
    ) -> None:
        self._limits, self._reporter, self._journal, self._clock = limits, reporter, journal, clock
        self._failpoints = failpoints
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(self._loop, "handler")
        self._log = structlog.get_logger("actors")
        self._waiting: dict[str, Mailbox] = {}  # those that may have something to start
        self._wave: deque[Work] = deque()  # journalled, about to start
        self._lanes: dict[asyncio.Task[None], Work | None] = {}  # with what they work on
        self._deaf: dict[Work, str] = {}  # cancelled long ago and still running, with their agents
        self._ends: dict[Work, int] = {}  # of those that take long: when they are ended unasked, microseconds
        self._opening = False  # a lane is about to take its first step
        self._current: Work | None = None  # the handler that is being stepped right now
        self._closed = self._abandoned = False
        self.broken: asyncio.Future[None] = self._loop.create_future()
        """Fails when a lane does, which only a mistake of ours can cause: the host must end, not go on with less."""
        self.worn: asyncio.Future[BeginAnew] = self._loop.create_future()
        """Done when an agent has no slot left that will ever be free, or memory has run out."""

    def wake(self, mailboxes: Iterable[Mailbox]) -> None:
        """These mailboxes have new work."""
        for mailbox in mailboxes:
            self._waiting[mailbox.agent_id] = mailbox
        self._pump()

    def cancel(self, work: Work) -> None:
        """End a handler whose assignment was withdrawn. A thread cannot be ended: its result is dropped instead."""
        if work.timer is not None:
            work.timer.cancel()
        self._ends.pop(work, None)
        if work.handle is not None:
            work.handle.cancel()
        work.timer = self._loop.call_later(self._limits.stuck_seconds, self._still_running, work)

    def _still_running(self, work: Work) -> None:
        box = work.mailbox
        self._deaf[work] = box.agent_id
        self._log.warning(
            "handler_ignores_cancel", agent=box.agent_id, task=work.task.task_id, attempt=work.task.attempt
        )
        held = list(self._deaf.values()).count(box.agent_id)
        if held >= box.max_in_flight:
            self._wear(f"{held} cancelled handlers of agent '{box.agent_id}' do not end and hold all of its slots")

    def _wear(self, why: str) -> None:
        if not self.worn.done():
            self.worn.set_result(BeginAnew(why))

    def holder(self) -> Work | None:
        """The work whose handler has the loop at this moment; may be asked from another thread."""
        lane = asyncio.current_task(self._loop)
        return self._lanes.get(lane) if lane is not None else None

    @property
    def in_threads(self) -> int:
        """Handlers that run in threads, whose end the loop cannot foresee."""
        return self._threads.busy

    @property
    def threads_at_work(self) -> int:
        """The same, and those that were left behind by a handler that was ended."""
        return self._threads.at_work

    def close(self) -> None:
        """Start nothing more."""
        self._closed = True
        self._threads.close()

    async def abandon(self) -> None:
        """End the handlers that still run, without a report; they will be delivered again."""
        self._abandoned = True
        lanes = list(self._lanes)
        for lane in lanes:
            lane.cancel()
        if lanes:
            await asyncio.wait(lanes, timeout=1.0)

    def _pump(self) -> None:
        if self._opening or self._closed or not self._refill():
            return
        self._opening = True
        lane = self._loop.create_task(self._lane())
        self._lanes[lane] = None
        lane.add_done_callback(self._lane_ended)

    async def quiet(self) -> None:
        """Return when no handler runs whose result counts; one that was cancelled may still be there."""
        while waited := [lane for lane, work in self._lanes.items() if work is None or not work.withdrawn()]:
            await asyncio.wait(waited)

    def _lane_ended(self, lane: asyncio.Task[None]) -> None:
        self._lanes.pop(lane, None)
        if not lane.cancelled() and (error := lane.exception()) is not None and not self.broken.done():
            self.broken.set_exception(error)

    def _refill(self) -> bool:
        """Make the next wave; False if nothing may start."""
        if self._wave:
            return True
        if not self._waiting:
            return False
        now = self._clock()
        wave: list[Work] = []
        for mailbox in self._waiting.values():
            wave += mailbox.next(now)
        self._waiting.clear()
        if not wave:
            return False
        self._journal.begin(wave)
        self._failpoints.hit("journalled")
        self._wave.extend(wave)
        return True

    async def _lane(self) -> None:
        self._opening = False
        self._loop.call_soon(self._stepped)
        turn_ends = self._loop.time() + TURN_SECONDS
        lane = asyncio.current_task()
        assert lane is not None
        while (self._wave or self._refill()) and not self._closed:
            work = self._wave.popleft()
            if work.stage is Stage.DROPPED:
                self._over(work)
                continue
            self._current = self._lanes[lane] = work
            work.handle = lane
            await self._perform(work)
            if self._current is not work:  # it suspended, so the queue is another lane's by now
                self._pump()
                return
            if lane.cancelling() or self._loop.time() > turn_ends:
                break  # `_stepped` is due and opens the next lane after the loop had its turn
        self._current = None

    def _stepped(self) -> None:
        """The lane gave the loop back: it ended, or its handler suspended and the next lane is due."""
        work, self._current = self._current, None
        if work is not None and work.stage is Stage.RUNNING:  # a cancelled one has a timer of its own
            work.timer = self._loop.call_later(self._limits.report_after_seconds, self._started, work)
        self._pump()

    def _started(self, work: Work) -> None:
        """Say so, and see to the end of it: a withdrawal comes once, and a start that was delivered again may come after."""
        self._reporter.started(work)
        now = self._clock()
        at = self._ends[work] = max(now, work.task.deadline_at) + int(self._limits.overdue_seconds * MICROS)
        work.timer = self._loop.call_later((at - now) / MICROS, self._overdue, work)

    @property
    def next_end(self) -> int | None:
        """When the first of the handlers that take long is ended unasked, microseconds."""
        return min(self._ends.values(), default=None)

    def _overdue(self, work: Work) -> None:
        if work.stage is Stage.RUNNING:
            told = {"agent": work.mailbox.agent_id, "task": work.task.task_id, "attempt": work.task.attempt}
            self._log.warning("handler_overdue", **told, meaning="its deadline is long over; it is ended, and tells nothing")
            work.stage = Stage.DROPPED
            self.cancel(work)

    async def _perform(self, work: Work) -> None:
        """Run one handler and report. Whatever the handler raises is a failed attempt, never an end of the host."""
        error: TaskError | None = None
        text = ""
        try:
            if self._journal.left and self._ended_the_process_before(work):
                error = _ended_the_process(work)
            else:
                operation, value = work.mailbox.operations.pick(work.task.payload)
                context = self._context(work)
                if operation.is_async:
                    text = result_text(await operation.handler(value, context))
                else:
                    work.handle = None  # nothing can end a thread
                    text = result_text(await self._threads.run(operation.handler, value, context))
        except BaseException as raised:  # a handler may raise anything, KeyboardInterrupt too
            if isinstance(raised, GeneratorExit) or self._abandoned:
                raise
            if work.stage is not Stage.DROPPED:
                error = self._failure(raised, work)
        self._failpoints.hit("handled")
        if work.stage is not Stage.DROPPED:
            if error is None:
                self._reporter.completed(work, text)
            else:
                self._reporter.failed(work, error)
        self._over(work)

    def _failure(self, raised: BaseException, work: Work) -> TaskError:
        error = failure(raised, work.mailbox.agent_id, work.task.attempt)
        if isinstance(raised, InvalidInput):  # the caller's mistake, who is told it; nothing is wrong here
            told = {"agent": error.agent_id, "task": work.task.task_id, "attempt": error.attempt}
            self._log.info("input_refused", **told, error=error.message)
            return error
        surprise = None if isinstance(raised, (TroupeError, asyncio.CancelledError)) else raised
        self._log.warning(
            "handler_failed", agent=error.agent_id, task=work.task.task_id, attempt=error.attempt,
            error=error.message, exc_info=surprise,
        )  # fmt: skip
        if isinstance(raised, MemoryError):  # what else of the process failed to get memory, nobody knows
            self._wear(f"agent '{error.agent_id}' found no memory")
        return error

    def _over(self, work: Work) -> None:
        if work.timer is not None:
            work.timer.cancel()
        if work.pacer is not None:
            work.pacer.cancel()
        if self._deaf:
            self._deaf.pop(work, None)
        if self._ends:
            self._ends.pop(work, None)
        if not work.mailbox.finish(work):
            self._journal.end((work,))
        self._waiting[work.mailbox.agent_id] = work.mailbox

    def _ended_the_process_before(self, work: Work) -> bool:
        starts = self._journal.starts(work.identity)
        return starts > 0 and starts + 1 >= self._limits.max_starts

    def _context(self, work: Work) -> Context:
        task, limits = work.task, self._limits

        def send_progress(fraction: float, note: str) -> None:
            self._loop.call_soon_threadsafe(self._progress, work, fraction, note)

        return Context(
            task.task_id, task.attempt, task.epoch, task.deadline_at, task.last_attempt, TaskLog(self._log, work),
            limits.data_dir, limits.sources_root, send_progress, task.pattern, task.type, task.description,
            _mapping(task.context), _mapping(task.metadata), work.withdrawn,
        )  # fmt: skip

    def _progress(self, work: Work, fraction: float, note: str) -> None:
        """Send the first at once, then at most one an interval, always the latest."""
        if work.stage is Stage.RUNNING:
            work.progress = (fraction, note)
            if work.pacer is None:
                self._send_progress(work)

    def _send_progress(self, work: Work) -> None:
        work.pacer = None
        if work.progress is not None and work.stage is Stage.RUNNING:
            self._reporter.progress(work, *work.progress)
            work.progress = None
            work.pacer = self._loop.call_later(self._limits.progress_interval_seconds, self._send_progress, work)


def _mapping(text: str) -> Mapping[str, Any]:
    if text == "{}":
        return {}
    value = json.loads(text)
    return value if isinstance(value, dict) else {}


def _ended_the_process(work: Work) -> TaskError:
    return TaskError(
        code="agent_error", message="handler ended the process", retryable=True,
        agent_id=work.mailbox.agent_id, attempt=work.task.attempt,
    )  # fmt: skip
