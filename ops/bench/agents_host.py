"""`troupe bench agents`: what a crowd of agents in one host costs, when it starts, when it works and when nothing happens.

Every agent has an inbox, heartbeats, and a row and records in the registry, whether it has work or not. So the measure
is not tasks per second but what a thousand agents take of processor and memory, in the host and in the coordinator.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from actors import Actor
from ops.bench.agents import MAX_IN_FLIGHT, RATE, nothing
from ops.bench.ledger import Ledger, milliseconds, percentile
from ops.bench.machine import machine, versions
from ops.bench.measure import remove_topics
from ops.bench.processes import Meter
from ops.bench.traffic import SUBJECTS, Observer, Submitter, consuming, producing
from ops.bench.work import Work
from ops.codecs import load_codecs
from ops.running import Entry
from ops.supervise import Plan, supervised
from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.tasks import TaskCommand
from schemas.topics import TASK_REQUESTS
from topology import partitions_of, troupe

_FILE = """from ops.bench.agents_host import crowd


def agents():
    return crowd({count})
"""
_CALM_S = 10.0
"""After the start and after the tasks, if that is measured for so long: what they leave behind is over by then."""

_STALL_S = 60.0
_PAYLOAD_BYTES = 200


def word(number: int) -> str:
    """The capability of one agent alone."""
    return f"crowd{number}"


def crowd(count: int) -> list[Actor]:
    """So many agents, each asked for by a word of its own."""
    return [
        Actor(f"crowd_{n:05d}", nothing, capabilities=[word(n)], max_in_flight=MAX_IN_FLIGHT, rate_limit=RATE)
        for n in range(count)
    ]


def write_crowd(directory: Path, count: int) -> Path:
    """The file of agents for a host."""
    directory.mkdir(parents=True, exist_ok=True)
    made = directory / "bench_crowd.py"
    made.write_text(_FILE.format(count=count), encoding="utf-8")
    return made


@dataclass(frozen=True, slots=True)
class CrowdWork(Work):
    """Tasks that go round all agents."""

    agents: int = 1

    def command(self, number: int) -> TaskCommand:
        """The submit of a task, which one agent alone can do."""
        made = Work.command(self, number)
        return made.model_copy(update={"pattern": None, "required_capabilities": [word(number % self.agents)]})


@dataclass(frozen=True, slots=True)
class Crowd:
    """What was found. start_s: from the launch of the host to its readiness, all registered and all inboxes its own.

    start_cpu_s: CPU seconds until calm, by role. first_tasks_s: one task for each agent, submitted at once, until the
    last outcome. tasks and what follows: those after them, ms from the submit. idle_cpu_s_per_minute: CPU seconds per
    minute without any task, by role.
    """

    agents: int
    start_s: float
    start_cpu_s: Mapping[str, float]
    first_tasks_s: float
    tasks: int
    tasks_per_s: float
    result_p50_ms: float | None
    result_p99_ms: float | None
    lost: int
    cpu_us_per_task: Mapping[str, float]
    idle_seconds: float
    idle_cpu_s_per_minute: Mapping[str, float]
    rss_mb: Mapping[str, float | None]
    machine: Mapping[str, Any]
    versions: Mapping[str, str | None]
    load_average: list[float]

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Label and value, as a person reads them."""
        yield "agents in one host", f"{self.agents:,}"
        yield "start to ready", f"{self.start_s:.1f} s"
        yield "one task for each", f"{self.first_tasks_s:.2f} s"
        yield "tasks over all of them", f"{self.tasks:,} at {self.tasks_per_s:,.0f}/s, lost {self.lost}"
        yield "submit to result, p50 / p99", f"{self.result_p50_ms} / {self.result_p99_ms} ms"
        for role, idle in self.idle_cpu_s_per_minute.items():
            if role in self.start_cpu_s:
                yield (
                    f"{role}: CPU to start, per task, idle; memory",
                    f"{self.start_cpu_s[role]:.1f} s, {self.cpu_us_per_task[role]:.0f} us, {idle:.2f} s/min; "
                    f"{self.rss_mb.get(role)} MiB",
                )
        yield "machine", f"{self.machine['cores']} x {self.machine['cpu']}, {self.machine['memory_gb']} GiB"
        yield "load average at the start", " ".join(f"{each:.2f}" for each in self.load_average)


async def measure_crowd(plan: Plan, count: int, tasks: int, in_flight: int, idle_s: float, run: str) -> Crowd:
    """Start the system of a plan whose host has `count` agents, give each a task, then `tasks` more, then wait.

    On a Kafka that is not embedded the topics are deleted afterwards. Raises OperatorError if a process ends meanwhile or
    outcomes stay away.
    """
    try:
        return await _measured(plan, count, tasks, in_flight, idle_s, run)
    finally:
        if plan.broker is None:
            await remove_topics(plan.settings)


async def _measured(plan: Plan, count: int, tasks: int, in_flight: int, idle_s: float, run: str) -> Crowd:
    load = [round(each, 2) for each in os.getloadavg()]
    async with supervised(plan) as supervisor:
        entry = await supervisor.start()
        start_s = round(time.time() - _launched(entry), 2)
        kafka = plan.settings.kafka.model_copy(update={"bootstrap_servers": entry.bootstrap})
        settings = plan.settings.model_copy(update={"kafka": kafka})
        meter = Meter(entry)
        await asyncio.sleep(min(_CALM_S, idle_s))
        started = meter.cpu_s()
        work, ledger = CrowdWork(run, _PAYLOAD_BYTES, count), Ledger(count + tasks)
        spent = await _drive(settings, meter, work, ledger, in_flight)
        await asyncio.sleep(min(_CALM_S, idle_s))
        before = meter.cpu_s()
        await asyncio.sleep(idle_s)
        meter.sample()
        after = meter.cpu_s()
    rest = range(count, count + tasks)
    times = milliseconds(ledger.submitted, ledger.ended, rest)
    took = (max(ledger.ended[n] for n in rest) - min(ledger.submitted[n] for n in rest)) / 1e6
    return Crowd(
        agents=count,
        start_s=start_s,
        start_cpu_s={role: round(each, 2) for role, each in started.items()},
        first_tasks_s=round((max(ledger.ended[:count]) - min(ledger.submitted[:count])) / 1e6, 3),
        tasks=tasks,
        tasks_per_s=round(tasks / took, 1),
        result_p50_ms=_rounded(percentile(times, 0.5)),
        result_p99_ms=_rounded(percentile(times, 0.99)),
        lost=ledger.lost(range(count + tasks)),
        cpu_us_per_task={role: round(1e6 * each / tasks, 1) for role, each in spent.items()},
        idle_seconds=idle_s,
        idle_cpu_s_per_minute={role: round(60 * (after[role] - before[role]) / idle_s, 2) for role in after},
        rss_mb=meter.peak_mb(),
        machine=machine(),
        versions=versions(plan.broker is not None),
        load_average=load,
    )


async def _drive(
    settings: Settings, meter: Meter, work: CrowdWork, ledger: Ledger, in_flight: int
) -> Mapping[str, float]:
    """One task for each agent at once, then the rest; CPU seconds that the rest took."""
    codecs = await load_codecs(settings, troupe(), SUBJECTS)
    everything = range(len(ledger.submitted))
    first, rest = everything[: work.agents], everything[work.agents :]
    async with producing(settings) as producer, consuming(settings) as consumer:
        topic = settings.kafka.topic_prefix + TASK_REQUESTS.name
        submitter = Submitter(producer, topic, partitions_of(TASK_REQUESTS, settings), codecs, work)
        watching = asyncio.create_task(Observer(consumer, settings, codecs, work).run(ledger))
        try:
            await submitter.run(first, len(first), ledger, _STALL_S)
            await _finished(ledger, watching, first.stop)
            before = meter.cpu_s()
            await submitter.run(rest, in_flight, ledger, _STALL_S)
            await _finished(ledger, watching, rest.stop)
            after = meter.cpu_s()
        finally:
            watching.cancel()
            await asyncio.wait([watching])
    if ledger.not_completed:
        raise OperatorError(
            f"{ledger.not_completed} tasks were not completed; the first: {ledger.first_failure}",
            hint="run it again with --data DIR and read the logs in DIR/logs",
        )
    return {role: after[role] - before[role] for role in after}


async def _finished(ledger: Ledger, watching: asyncio.Task[None], count: int) -> None:
    while ledger.finished < count:
        if watching.done():
            watching.result()
        if not await ledger.changed(_STALL_S):
            raise OperatorError(
                f"{count - ledger.finished} of {count} tasks have no outcome after {_STALL_S:g} s without any",
                hint="run it again with --data DIR and read the logs in DIR/logs",
            )


def _launched(entry: Entry) -> float:
    """When the host of the agents was started, seconds since the epoch."""
    hosts = [member.birth.pid for member in entry.members if member.role.startswith("actors")]
    return float(psutil.Process(hosts[0]).create_time())


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
