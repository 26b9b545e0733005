"""Somebody outside of the host's loop, who sees when a handler holds it and ends a process that nothing else can end.

A handler that computes or sleeps without `await` stops every agent of its host. That is said, with the agent, the task
and the line; and once the attempt's deadline is over, so that nobody waits for its result any more, the process ends.
Its supervisor starts it again, and the journal knows which assignments it had begun. A thread sees this as long as the
interpreter takes turns; code that keeps the interpreter itself (a regular expression can) is left to `faulthandler`,
which needs no turn.
"""

from __future__ import annotations

import asyncio
import faulthandler
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

import structlog

from actors.mailbox import Work

LOOKS = 4
"""Looks within the time after which a hold is told; the loop gives its sign of life as often."""

End = Callable[[str, dict[str, object]], None]
"""Ends the process at once. Takes the event to log and its fields; does not return in a process of its own."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. told_after: a hold is logged. unknown_after: a hold by no handler that we know ends the process.
    drain: a stop that takes longer than this, and a little, has failed. frozen_after: without a turn of the interpreter
    the process ends; None to leave that alone.
    """

    told_after: float
    unknown_after: float
    drain: float
    frozen_after: float | None


class Watch:
    """One thread. `holder` names the work whose handler has the loop, and is asked from the thread."""

    def __init__(self, patience: Patience, clock: Callable[[], int], end: End, stderr: TextIO = sys.stderr) -> None:
        """`clock` gives microseconds; `stderr`, a real file, takes what faulthandler writes."""
        self._patience, self._clock, self._end, self._stderr = patience, clock, end, stderr
        self._period = patience.told_after / LOOKS
        self._holder: Callable[[], Work | None] = lambda: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._sign = 0.0  # monotonic seconds of the loop's last sign of life
        self._looked = 0.0  # monotonic seconds of the last look
        self._told = 0.0  # seconds of the present hold that were told
        self._stop_by: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._log = structlog.get_logger("actors")
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Be there, so that a stop has its limit from now on; the loop is not watched yet."""
        self._looked = time.monotonic()
        self._thread.start()

    def begin(self, holder: Callable[[], Work | None]) -> None:
        """Watch the running loop from now on; call it within the loop, once, after `start`."""
        self._holder, self._loop, self._loop_thread = holder, asyncio.get_running_loop(), threading.get_ident()
        self._give_sign()

    def stop_asked(self) -> None:
        """The process was asked to stop; it is ended when it has not within its time."""
        self._stop_by = time.monotonic() + self._patience.drain

    def close(self) -> None:
        """Watch no more; the stop's own limit is kept."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None

    def _give_sign(self) -> None:
        self._sign = time.monotonic()
        if self._loop is not None:
            self._timer = self._loop.call_later(self._period, self._give_sign)

    def _run(self) -> None:
        while True:  # a daemon: it ends with the process
            time.sleep(self._period)
            if self._patience.frozen_after is not None:
                faulthandler.dump_traceback_later(self._patience.frozen_after, exit=True, file=self._stderr)
            before, self._looked = self._looked, time.monotonic()
            if self._looked - before > self._patience.told_after:
                continue  # the whole process was stopped, not its loop alone, which gets its turn first
            self.look()

    def look(self) -> None:
        """See how long the loop has been held, tell it, and end the process where there is no other way."""
        now = time.monotonic()
        if self._stop_by is not None and now > self._stop_by:
            self._end("stop_forced", {"reason": "the stop took longer than its limit"})
        if self._loop is None:
            return
        held = now - self._sign - self._period
        if held < self._patience.told_after:
            if self._told:
                self._log.warning("loop_free_again", held_seconds=round(self._told, 1))
                self._told = 0.0
            return
        work = self._holder()
        if held > 2 * self._told:  # told at first, and then each time it has doubled
            self._told = held
            self._log.warning("loop_held", **self._facts(work, held))
        over = self._clock() > work.task.deadline_at if work is not None else held > self._patience.unknown_after
        if over:
            self._end("loop_held_for_good", self._facts(work, held))

    def _facts(self, work: Work | None, held: float) -> dict[str, object]:
        frame = sys._current_frames().get(self._loop_thread)
        facts: dict[str, object] = {"seconds": round(held, 1), "where": _place(frame)}
        if work is not None:
            facts |= {"agent": work.mailbox.agent_id, "task": work.task.task_id, "attempt": work.task.attempt}
        return facts


def _place(frame: FrameType | None) -> str:
    """The innermost line of the loop's thread."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" if frame else "unknown"
