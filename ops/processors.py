"""The processors of the wiring, ready to be made: one list for the coordinator on Kafka and the one in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from schemas.codec import Codecs
from schemas.settings import Settings
from schemas.tasks import TaskCommand
from streams.processor import Processor, ProcessorSpec, Share
from streams.registry import AgentsProcessor
from streams.runtime.wire import Wire
from streams.tasks.processor import TasksProcessor
from topology import Topology

Make = Callable[[Share], Processor[Any]]


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
