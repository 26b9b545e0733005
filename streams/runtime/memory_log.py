"""What the runtime in memory asks of a log, and how it sends to it.

What was sent lies in a queue until it lands: at once, unless somebody plays the network and lets it land late, in parts,
or after the process that sent it is dead. Batches for one partition land in their order, as an idempotent producer's do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from schemas.partitioning import home
from streams.processor import Headers
from streams.runtime.memory_strands import Point
from streams.runtime.wire import Encoded

New = tuple[bytes | None, bytes | None, Headers]


class Lying(Protocol):
    """A record as it lies in the log; `timestamp` in microseconds."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class Log(Protocol):
    """Topics by real name, and groups' commits. `appended` grows with every append."""

    @property
    def appended(self) -> int: ...

    def create(self, topic: str, partitions: int) -> None:
        """Idempotent."""

    def topics(self) -> Mapping[str, int]:
        """Partition counts."""

    def append(self, topic: str, partition: int, records: Sequence[New]) -> int:
        """One atomic batch; returns the offset of its first record."""

    def read(self, topic: str, partition: int, offset: int, limit: int) -> Sequence[Lying]:
        """Records from an offset on."""

    def start(self, topic: str, partition: int) -> int:
        """The first offset."""

    def end(self, topic: str, partition: int) -> int:
        """The next offset."""

    def commit(self, group: str, topic: str, partition: int, offset: int) -> None:
        """Remember where a group goes on."""

    def committed(self, group: str, topic: str, partition: int) -> tuple[int, str] | None:
        """(offset, metadata)."""


class Sending:
    """A batch on its way; `offset` is that of its first record once it has landed."""

    __slots__ = ("offset", "partition", "records", "topic")

    def __init__(self, topic: str, partition: int, records: Sequence[New]) -> None:
        self.topic, self.partition, self.records = topic, partition, records
        self.offset: int | None = None


class Producer:
    """Sends batches to a log."""

    def __init__(self, log: Log, at_once: bool) -> None:
        """`at_once`: what is sent lands before `send` returns; else when `land` is called."""
        self._log, self._at_once = log, at_once
        self.queue: list[Sending] = []

    def send(self, topic: str, partition: int, records: Sequence[New]) -> Sending:
        """Hand over a batch."""
        sending = Sending(topic, partition, records)
        self.queue.append(sending)
        if self._at_once:
            self.land(sending)
        return sending

    def send_outputs(self, outputs: Iterable[Encoded]) -> list[Sending]:
        """Hand outputs over, one batch for each partition; for a user's topic that is not there its fallback."""
        batches: dict[tuple[str, int], list[New]] = {}
        for each in outputs:
            output = self._placed(each) if each.users or each.partition < 0 else each
            if output is not None:
                place = output.topic, output.partition
                batches.setdefault(place, []).append((output.key, output.value, output.headers))
        return [self.send(*place, records) for place, records in batches.items()]

    def _placed(self, output: Encoded) -> Encoded | None:
        count = self._log.topics().get(output.topic, 0)
        number = output.partition if output.partition >= 0 else home((output.key or b"").decode(), count or 1)
        return output.fallback if output.users and number >= count else output._replace(partition=number)

    def next(self) -> list[Sending]:
        """Those that may land now: the first for each partition."""
        first: dict[tuple[str, int], Sending] = {}
        for sending in self.queue:
            first.setdefault((sending.topic, sending.partition), sending)
        return list(first.values())

    def land(self, sending: Sending) -> None:
        """The broker appends it."""
        self.queue.remove(sending)
        sending.offset = self._log.append(sending.topic, sending.partition, sending.records)


async def landed(sendings: Sequence[Sending], name: str) -> None:
    """Wait until the broker has acked all of them."""
    await Point(name, lambda: all(sending.offset is not None for sending in sendings))
