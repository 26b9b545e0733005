"""The coordinator as a process: settings in, signals in, an exit code out."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock, Timeout

from ops.codecs import NewerSchemas, load_codecs
from schemas.codec import Codecs
from schemas.errors import OperatorError
from schemas.failpoint import VARIABLE, Failpoints
from schemas.settings import Settings, process_environment
from schemas.tasks import TaskCommand
from streams.processor import ProcessorSpec, Share
from streams.registry import AgentsProcessor
from streams.runtime.coordinator import Coordinator
from streams.runtime.kafka import Make
from streams.runtime.wire import Wire
from streams.tasks.processor import TasksProcessor
from topology import Topology, troupe


def processors(settings: Settings, topology: Topology, codecs: Codecs) -> Sequence[tuple[ProcessorSpec, Make]]:
    """Each processor of the topology with what makes an instance of it."""
    wire, ours = Wire(settings, codecs), product_version()

    def decode(value: bytes, position: str) -> TaskCommand:
        return wire.decode_request(value, position)

    def tasks(share: Share) -> TasksProcessor:
        return TasksProcessor(settings, share, decode, ours)

    def agents(share: Share) -> AgentsProcessor:
        return AgentsProcessor(settings)

    makers: dict[str, Make] = {"tasks": tasks, "agents": agents}
    return [(spec, makers[spec.name]) for spec in topology.processors]


def product_version() -> str:
    """Version of the installed product, `0` from a bare checkout."""
    try:
        return version("troupe")
    except PackageNotFoundError:
        return "0"


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
    sys.setswitchinterval(settings.coordinator.switch_interval_seconds)  # the fetch thread waits for the interpreter
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
        gc.set_threshold(50_000, 20, 100)
        if ready_file is not None:
            ready_file.touch()

    return await coordinator.run(stop, on_ready)
