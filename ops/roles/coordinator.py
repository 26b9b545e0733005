"""The coordinator as a process: settings in, signals in, an exit code out."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ops.codecs import NewerSchemas, load_codecs
from ops.processors import processors
from schemas.errors import OperatorError
from schemas.failpoint import VARIABLE, Failpoints
from schemas.settings import Settings, process_environment
from streams.runtime.coordinator import Coordinator
from topology import troupe


async def run_coordinator(settings: Settings, ready_file: Path | None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code (0 clean; the others are in `streams/runtime/exits.py`).

    Raises OperatorError, BrokerUnavailable or SchemaError if it cannot start.
    """
    async with own_name(settings):
        return await _serve(settings, ready_file)


@asynccontextmanager
async def own_name(settings: Settings) -> AsyncIterator[None]:
    """Be the only coordinator of this name in this data directory: both would write to one local store.

    One that is about to end gets `coordinator.stop_seconds` for it. Raises OperatorError if it goes on. On another
    machine nothing is seen of it; there the group finds it out.
    """
    limits, data = settings.coordinator, settings.data_dir
    place = data / "tables" / f"{settings.kafka.topic_prefix}coordinator"
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f"{limits.instance}.lock", thread_local=False)
    try:
        await asyncio.to_thread(lock.acquire, timeout=limits.stop_seconds)
    except Timeout:
        raise OperatorError(
            f"A coordinator named '{limits.instance}' already runs on {data}",
            hint="let that one do the work, or give this one another name (`--instance NAME`, coordinator.instance)",
        ) from None
    try:
        yield
    finally:
        lock.release()


async def _serve(settings: Settings, ready_file: Path | None) -> int:
    topology = troupe()
    topology.validate()
    codecs = await load_codecs(settings, topology)

    failpoints = Failpoints(process_environment().get(VARIABLE, ""))
    rules, newer = processors(settings, topology, codecs), NewerSchemas(settings, codecs)
    coordinator = Coordinator(settings, rules, codecs, newer, failpoints)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def on_ready() -> None:
        # What is loaded by now stays. Records leave no cycles behind, so the collector finds next to nothing, but it
        # walked the open rows again and again for it (8 % of a task's cost).
        gc.collect()
        gc.freeze()
        gc.set_threshold(200_000, 20, 100)
        if ready_file is not None:
            ready_file.touch()

    return await coordinator.run(stop, on_ready)
