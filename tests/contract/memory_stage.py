"""The stage on a log in memory: time passes in jumps, from one thing that is due to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ops.memory.clock import VirtualClock
from ops.memory.installation import create_topics, memory_codecs
from ops.memory.log import MemoryLog
from ops.roles.coordinator import processors
from streams.runtime.memory import MemoryCoordinator
from streams.runtime.memory_table import Disk
from tests.contract.processor_stage import LIMIT_S, Raw, Stage, settings_for
from topology import troupe

MICROS = 1_000_000


class MemoryStage(Stage):
    """See above."""

    def __init__(self) -> None:
        self.settings = settings_for("nowhere:1", "m.")
        self.codecs, self.clock, self.disk = memory_codecs(self.settings), VirtualClock(), Disk()
        self.log = MemoryLog(self.clock)
        create_topics(self.log, self.settings, troupe())
        self.coordinator = self._started()

    def _started(self) -> MemoryCoordinator:
        rules = processors(self.settings, troupe(), self.codecs)
        return MemoryCoordinator(self.settings, rules, self.codecs, self.log, lambda: self.clock.now, disk=self.disk)

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes) -> str:
        return f"{topic}.{partition}.{self.log.append(topic, partition, [(key, value, ())])}"

    def read(self, topic: str) -> list[Raw]:
        return [
            Raw(topic, number, each.offset, each.key, each.value)
            for number in range(self.log.topics().get(topic, 0))
            for each in self.log.read(topic, number, 0, 1_000_000)
        ]

    def until(self, happened: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
        end = self.clock.now + int(limit_s * MICROS)
        while True:
            self.coordinator.run()
            if found := happened():
                return found
            due = self.coordinator.due()
            assert due <= end, f"it did not happen, and nothing more is due within {limit_s:g} s"
            self.clock.advance(max(1000, due - self.clock.now))

    def append_many(self, topic: str, partition: int, records: Iterable[tuple[bytes, bytes]]) -> None:
        self.log.append(topic, partition, [(key, value, ()) for key, value in records])

    def crash(self, keeps_store: bool, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.coordinator.kill()
        meanwhile()
        self.disk = self.disk if keeps_store else Disk()
        self.coordinator = self._started()
