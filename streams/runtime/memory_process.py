"""What one processor in memory asks of the process that it runs in."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NoReturn, Protocol

from schemas.settings import Settings
from streams.runtime.compacted import Compacted
from streams.runtime.memory_log import Log, Producer
from streams.runtime.memory_strands import Strand
from streams.runtime.memory_table import MemoryTable
from streams.runtime.wire import Wire


class Process(Protocol):
    """See `memory.py`. group: name of the consumer group; instance: this member's."""

    settings: Settings
    wire: Wire
    log: Log
    producer: Producer
    views: Compacted
    group: str
    instance: str

    def clock(self) -> int:
        """Microseconds."""

    def table(self, name: str, number: int) -> MemoryTable:
        """The local store of a partition."""

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> Strand:
        """Start a strand."""

    def refuse_if_paused(self) -> None:
        """Stop if the group has not heard of this process for a session."""

    def die(self, code: int, why: str) -> NoReturn:
        """Stop at once."""

    async def refresh_schemas(self, schema_id: int) -> None:
        """Decoding asks nobody here: all schemas are known from the start."""
