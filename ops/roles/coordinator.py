"""The coordinator as a process: settings in, signals in, an exit code out."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ops.codecs import NewerSchemas, load_codecs
from schemas.codec import Codecs
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
    """Serve until SIGTERM or SIGINT; returns the exit code (0 clean, 70 Kafka, 71 a bug, 72 fenced, 75 stop too slow).

    Raises OperatorError, BrokerUnavailable or SchemaError if it cannot start.
    """
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
