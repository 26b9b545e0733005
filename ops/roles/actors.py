"""The role `actors`: a process that hosts Python actors until it is told to stop.

It reads the schemas itself, so it needs nothing but the broker, and the coordinator's answer to its registrations.
Handlers are somebody else's code, so the process also sees to its own end: one that a handler keeps from stopping is
ended by its watch, and what handlers leave behind at the end is not waited for.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import structlog
from aiokafka.errors import KafkaError

from actors.api import Actor
from actors.runner import BeginAnew
from actors.runtime.kafka import DrainTimeout, now_micros, run_host
from actors.watch import Patience, Watch
from ops.codecs import NewerSchemas, load_codecs
from schemas.codec import Codecs
from schemas.errors import BrokerUnavailable, OperatorError
from schemas.failpoint import VARIABLE, Failpoints
from schemas.settings import Settings, process_environment
from topology import troupe

CLEAN, KAFKA_FAILED, STOP_TIMEOUT = 0, 70, 75
"""Exit codes: 70 (EX_SOFTWARE) and 75 (EX_TEMPFAIL) ask the supervisor for another start."""

_STOP_MARGIN_S = 4.0
"""What reports, commits and clients may take after the drain; a supervisor kills a second later."""

_SECOND_SIGNAL_S = 0.5
"""A terminal's signal reaches a process and its parent, who passes it on; only a later one is a second wish."""

_LEFT_BEHIND_S = 1.0


async def run_actors(settings: Settings, actors: Sequence[Actor], ready_file: Path | None) -> int:
    """Host the actors until SIGTERM or SIGINT; returns the exit code. `ready_file` is touched when they are up.

    A second signal ends the process at once; what ran is delivered again. Raises OperatorError if the process cannot
    start as things are: no broker, no topics, a refused registration.
    """
    log = structlog.get_logger("actors")
    stop = asyncio.Event()
    watch = Watch(_patience(settings, supervised=ready_file is not None), now_micros, end_now)
    _stop_by_signal(stop, watch)
    watch.start()
    _limit_memory(settings.actors.memory_limit_mb)
    codecs = await _codecs(settings)

    def ready() -> None:
        gc.collect()
        gc.freeze()  # what is loaded by now stays, and assignments leave no cycles behind: the collector finds nothing
        gc.set_threshold(50_000, 20, 100)
        log.info("ready", agents=[actor.agent_id for actor in actors])
        if ready_file is not None:
            ready_file.touch()

    failpoints = Failpoints(process_environment().get(VARIABLE, ""))
    try:
        newer = NewerSchemas(settings, codecs)
        await run_host(settings, actors, codecs, ready, stop, failpoints=failpoints, refresh=newer, watch=watch)
    except (KafkaError, BrokerUnavailable, TimeoutError) as error:
        log.error("kafka_failed", error=f"{type(error).__name__}: {error}")
        return await _leave(KAFKA_FAILED)
    except DrainTimeout as error:
        log.warning("stop_timeout", error=str(error))
        return await _leave(STOP_TIMEOUT)
    except BeginAnew as error:
        log.error("host_worn_out", error=str(error))
        return await _leave(STOP_TIMEOUT)
    return await _leave(CLEAN)


def end_now(event: str, fields: dict[str, object], code: int = STOP_TIMEOUT) -> None:
    """End the process without a word to Kafka: what it had in hand is delivered again, and the journal knows it."""
    structlog.get_logger("actors").error(event, **fields)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _patience(settings: Settings, *, supervised: bool) -> Patience:
    """Only a supervised process may end itself when it is frozen: another may just have been suspended by its user."""
    return Patience(
        told_after=settings.actors.held_seconds,
        unknown_after=float(settings.tasks.timeout_seconds),
        drain=settings.actors.drain_seconds + _STOP_MARGIN_S,
        frozen_after=settings.actors.frozen_seconds if supervised else None,
    )


def _stop_by_signal(stop: asyncio.Event, watch: Watch) -> None:
    """Not by the loop's own handlers: they wait for the loop, and a handler may hold it."""
    loop, asked = asyncio.get_running_loop(), 0.0

    def wished(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        now = time.monotonic()
        if asked and now - asked > _SECOND_SIGNAL_S:
            end_now("stop_forced", {"reason": "asked to stop a second time"})
        if not asked:
            asked = now
            watch.stop_asked()
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, wished)


def _limit_memory(limit_mb: int | None) -> None:
    """Let an allocation beyond the limit raise MemoryError in whoever asks for it."""
    if limit_mb is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_mb << 20, resource.getrlimit(resource.RLIMIT_DATA)[1]))


async def _leave(code: int, end: Callable[[str, dict[str, object], int], None] = end_now) -> int:
    """The exit code, if the interpreter can end by itself; else this ends it.

    asyncio waits for every task and Python for every thread, and handlers may have left some that never end.
    """
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=_LEFT_BEHIND_S)
    mine = threading.main_thread()
    threads = [each.name for each in threading.enumerate() if not each.daemon and each is not mine]
    if tasks or threads:
        left: dict[str, object] = {"tasks": [repr(task.get_coro()) for task in tasks][:10], "threads": threads[:10]}
        end("left_behind", left, code)
    return code


async def _codecs(settings: Settings) -> Codecs:
    try:
        return await load_codecs(settings, troupe())
    except BrokerUnavailable as error:
        raise OperatorError(str(error), hint=error.hint) from error
