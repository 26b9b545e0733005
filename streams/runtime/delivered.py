"""Fetched records on their way to a processor's loop: chunks as they were fetched, never one by one.

Faust hands each record over as a message, an event and a queue entry of its own, and follows each with an ack; at a few
thousand records a second that costs more than deciding about some of them. A chunk is one entry, whatever it holds, and
what was done is told as one offset per partition.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Chunk(NamedTuple):
    """Records of one partition, in order, as one fetch took them. generation: of the group, when it was taken."""

    generation: int
    records: Sequence[Any]


class Delivered:
    """The records of one processor's inputs that its loop has not taken yet: how many, and the bytes of their values."""

    def __init__(self, current: Callable[[], int | None]) -> None:
        """`current` is the group's generation, None while the flow is stopped; older chunks are dropped."""
        self._current = current
        self._chunks: deque[Chunk] = deque()
        self._arrived = asyncio.Event()
        self.count = self.bytes = 0

    def put(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self._chunks.append(chunk)
        self.count += len(chunk.records)
        self.bytes += _bytes(chunk.records)
        self._arrived.set()

    async def take(self, limit: int, timeout: float) -> list[Any]:
        """At most `limit` records; [] after `timeout` seconds without any."""
        if not self._chunks:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        else:
            await asyncio.sleep(0)  # the loop's other tasks (acks, heartbeats) get their turn between two batches
        current, batch = self._current(), list[Any]()
        while self._chunks and len(batch) < limit:
            chunk = self._chunks.popleft()
            self.count -= len(chunk.records)
            self.bytes -= _bytes(chunk.records)
            if chunk.generation != current:
                continue  # of an older assignment: its next owner reads it
            room = limit - len(batch)
            batch += chunk.records[:room]
            if len(chunk.records) > room:
                rest = Chunk(chunk.generation, chunk.records[room:])
                self._chunks.appendleft(rest)
                self.count += len(rest.records)
                self.bytes += _bytes(rest.records)
        return batch


def _bytes(records: Sequence[Any]) -> int:
    return sum([len(record.value or b"") for record in records])
