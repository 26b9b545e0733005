"""`troupe bench state`: what an open task takes while it waits for its outcome, and how long the next owner needs.

Tasks are given to agents that never end, in two portions. The difference between the two says what one more open task
costs; what the system takes anyway, and buffers that fill once, are in the first. Then the coordinator is killed, and the
time runs until one more task is assigned.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ops.bench.ledger import Ledger
from ops.bench.machine import machine, versions
from ops.bench.measure import remove_topics
from ops.bench.processes import Meter
from ops.bench.traffic import SUBJECTS, Submitter, producing
from ops.bench.work import Work
from ops.codecs import load_codecs
from ops.supervise import Plan, supervised
from ops.views.log import LogReader, open_log
from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.topics import TASK_EVENTS, TASK_REQUESTS
from topology import partitions_of, troupe

FOREVER_MS = 86_400_000.0
SUBMITTER = "submitter"
"""Its memory is that of the measurement, not of the system."""

FIRST_PART = 4  # the first portion is this part of the second
_IN_FLIGHT_PARTS = 2  # a submitter sends whole windows, and none of these tasks ever leaves its window
_CALM_S = 3.0
_LOOK_S = 0.25
_MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Held:
    """What is held at a moment: bytes of memory by role, of the log (None where it is not ours)."""

    memory: Mapping[str, int]
    log: int | None


@dataclass(frozen=True, slots=True)
class State:
    """What was found. The bytes are those of one more open task, its payload and all copies included.

    first_tasks: open tasks before the measured ones. table_bytes_per_open_task: in files, after a stop. memory_mb: at the
    end, by role. takeover_s: from the kill of the coordinator, with all these tasks open, until a new task was assigned.
    """

    tasks: int
    first_tasks: int
    payload_bytes: int
    memory_bytes_per_open_task: Mapping[str, float]
    table_bytes_per_open_task: float
    log_bytes_per_open_task: float | None
    memory_mb: Mapping[str, float]
    takeover_s: float
    machine: Mapping[str, Any]
    versions: Mapping[str, str | None]
    load_average: list[float]

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Label and value, as a person reads them."""
        yield "open tasks", f"{self.first_tasks:,}, then {self.tasks:,} more, {self.payload_bytes:,} B of payload each"
        for role, size in self.memory_bytes_per_open_task.items():
            yield f"{role}: memory of one more, of all", f"{size:,.0f} B, {self.memory_mb[role]:,.1f} MiB"
        yield "tables: one more", f"{self.table_bytes_per_open_task:,.0f} B"
        yield (
            "log: one more",
            "unknown" if self.log_bytes_per_open_task is None else f"{self.log_bytes_per_open_task:,.0f} B",
        )
        yield "coordinator killed, until the next task is assigned", f"{self.takeover_s:.1f} s"
        yield "machine", f"{self.machine['cores']} x {self.machine['cpu']}, {self.machine['memory_gb']} GiB"
        yield "load average at the start", " ".join(f"{each:.2f}" for each in self.load_average)


async def measure_state(plan: Plan, tasks: int, payload_bytes: int, limit_s: float, run: str) -> State:
    """Start the system of a plan, whose agents must never end a task, and open tasks in it.

    On a Kafka that is not embedded the topics are deleted afterwards. Raises OperatorError if a process ends meanwhile, or
    nothing is decided for `limit_s` seconds.
    """
    try:
        return await _measured(plan, tasks, payload_bytes, limit_s, run)
    finally:
        if plan.broker is None:
            await remove_topics(plan.settings)


async def _measured(plan: Plan, tasks: int, payload_bytes: int, limit_s: float, run: str) -> State:
    load = [round(each, 2) for each in os.getloadavg()]
    first = max(1, tasks // FIRST_PART)
    async with supervised(plan) as supervisor:
        entry = await supervisor.start()
        kafka = plan.settings.kafka.model_copy(update={"bootstrap_servers": entry.bootstrap})
        settings = plan.settings.model_copy(update={"kafka": kafka})
        meter, directory = Meter(entry), plan.broker.directory if plan.broker else None
        codecs = await load_codecs(settings, troupe(), SUBJECTS)
        async with producing(settings) as producer, open_log(settings) as log:
            partitions = partitions_of(TASK_REQUESTS, settings)
            work = Work(run, payload_bytes)
            submitter = Submitter(producer, kafka.topic_prefix + TASK_REQUESTS.name, partitions, codecs, work)
            opened = _Opened(settings, log, submitter, Ledger(first + tasks + 1), limit_s)
            await opened.more(range(first))
            before = _held(meter, directory)
            await opened.more(range(first, first + tasks))
            after = _held(meter, directory)
            begun = time.monotonic()
            os.kill(meter.pids("coordinator")[0], signal.SIGKILL)
            await opened.more(range(first + tasks, first + tasks + 1), calm_s=0)
            takeover_s = time.monotonic() - begun
    # A coordinator keeps its newest rows in memory; when it stops, all are in files.
    tables = _size(file for file in (plan.settings.data_dir / "tables").rglob("*") if file.is_file())
    grown = {role: (after.memory[role] - before.memory[role]) / tasks for role in after.memory}
    return State(
        tasks=tasks,
        first_tasks=first,
        payload_bytes=payload_bytes,
        memory_bytes_per_open_task={role: round(size, 1) for role, size in grown.items()},
        table_bytes_per_open_task=round(tables / (first + tasks + 1), 1),
        log_bytes_per_open_task=_difference(before.log, after.log, tasks),
        memory_mb={role: round(size / _MEGABYTE, 1) for role, size in after.memory.items()},
        takeover_s=round(takeover_s, 2),
        machine=machine(),
        versions=versions(plan.broker is not None),
        load_average=load,
    )


class _Opened:
    """Submits tasks and waits until they are decided; counts by the events, as no outcome ever comes."""

    def __init__(
        self, settings: Settings, log: LogReader, submitter: Submitter, ledger: Ledger, limit_s: float
    ) -> None:
        self._topic = settings.kafka.topic_prefix + TASK_EVENTS.name
        self._log, self._submitter, self._ledger, self._limit_s = log, submitter, ledger, limit_s

    async def more(self, numbers: range, calm_s: float = _CALM_S) -> None:
        """Open these tasks; back when each is assigned and, for `calm_s` seconds, nothing more was decided."""
        known = await self._events()
        wanted = known + len(numbers)
        window = _IN_FLIGHT_PARTS * len(self._ledger.submitted)
        await self._submitter.run(numbers, window, self._ledger, self._limit_s)
        heard = time.monotonic()
        while True:
            found = await self._events()
            if found > known:
                known, heard = found, time.monotonic()
            silent = time.monotonic() - heard
            if known >= wanted and silent >= calm_s:
                return
            if silent > self._limit_s:
                raise OperatorError(
                    f"{wanted - known} of {len(numbers)} tasks were not assigned after {self._limit_s:g} s without any",
                    hint="run it again with --data DIR and read the logs in DIR/logs",
                )
            await asyncio.sleep(_LOOK_S)

    async def _events(self) -> int:
        return sum((await self._log.ends(await self._log.partitions(self._topic))).values())


def _held(meter: Meter, kafka: Path | None) -> Held:
    segments = (
        None if kafka is None else [file for file in kafka.glob("data-*/*/*.log") if "__" not in file.parent.name]
    )
    return Held(
        memory={role: size for role, size in meter.resident().items() if role != SUBMITTER},
        log=None if segments is None else _size(iter(segments)),
    )


def _size(files: Iterator[Path]) -> int:
    total = 0
    for file in files:
        try:
            total += file.stat().st_size
        except FileNotFoundError:  # a compaction took it away
            continue
    return total


def _difference(before: int | None, after: int | None, tasks: int) -> float | None:
    return None if before is None or after is None else round((after - before) / tasks, 1)
