"""Threads for plain handlers, which must neither stop the host's loop nor keep the process from ending.

The standard pool joins its threads when the interpreter ends, so one handler that hangs would hang the whole host after
its last word. These are daemons: what still runs when the process ends is delivered again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Job = tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]


class Threads:
    """As many threads as jobs run at once, kept for the next; the mailboxes' own limits bound them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop, self._name = loop, name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.busy = 0
        """Jobs whose end the loop has not seen yet."""
        self._idle = 0
        self._count = 0
        self._lock = threading.Lock()

    def run(self, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Start the call in a thread. The future must not be cancelled: nothing can end a thread."""
        future = self._loop.create_future()
        self.busy += 1
        future.add_done_callback(self._ended)
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._count += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._count}", daemon=True).start()
        self._jobs.put((future, call, args))
        return future

    @property
    def at_work(self) -> int:
        """Threads that have not come back, also those whose job nobody waits for any more."""
        with self._lock:
            return self._count - self._idle

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self.busy -= 1

    def close(self) -> None:
        """Let the idle threads end; busy ones end after their job."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call, args = job
            error: BaseException | None = None
            result: Any = None
            try:
                result = call(*args)
            except StopIteration as stop:  # a future cannot hold it
                error = RuntimeError(f"the handler raised {stop!r}")
            except BaseException as raised:  # the loop decides what it means
                error = raised
            with self._lock:
                self._idle += 1
            if self._loop.is_closed():
                return
            self._loop.call_soon_threadsafe(_resolve, future, result, error)
            del job, future, call, args, result, error  # an idle thread must not keep a task's data alive


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
