"""One measurement of a whole system: start it, warm it up, load it, stop it; and what a task cost in each process.

The system is started by the supervisor that `up` uses, role by role in processes of their own, so that what is measured
is what ships. Only the submitter, which also reads the outcomes, lives here; its cost is counted apart.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiokafka.errors import for_code

from ops.bench.ledger import Ledger
from ops.bench.machine import durability, log_size, machine, versions
from ops.bench.pace import Pacer
from ops.bench.processes import Meter, per_task_us
from ops.bench.pyspy import profiled
from ops.bench.report import Report, counts
from ops.bench.traffic import SUBJECTS, Observer, Submitter, consuming, producing
from ops.bench.work import Work
from ops.codecs import load_codecs
from ops.running import Entry
from ops.supervise import Plan, supervised
from ops.topics import admin
from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.topics import TASK_REQUESTS
from topology import partitions_of, troupe

T = TypeVar("T")
Tell = Callable[[int], None]
"""Called now and then with the number of tasks that have an outcome, those of the warm-up too."""

_TELL_S = 0.25
_SETTLE_S = 1.0  # a duplicate follows its original within moments
_CALM_S = 0.5  # between warm-up and a measured open loop: its first tasks must not queue behind the last of the other


@dataclass(frozen=True, slots=True)
class Options:
    """in_flight: tasks without an outcome at any time. warmup: tasks before the measured ones, over and above `tasks`.

    stall_s: seconds without any outcome after which it is over. rate: tasks per second of an open loop; None submits as
    fast as outcomes come back, and so does the warm-up always. profile: file for the coordinator's stacks. sleep_ms,
    cpu_ms: what each handler does; the plan's agents are made so, here it is only reported.
    """

    tasks: int
    payload_bytes: int
    in_flight: int
    warmup: int
    stall_s: float
    rate: float | None = None
    profile: Path | None = None
    sleep_ms: float = 0
    cpu_ms: float = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor seconds by role and bytes of log at a moment; None where the log is not ours to measure."""

    cpu_s: Mapping[str, float]
    log_bytes: int | None


@dataclass(frozen=True, slots=True)
class Loads:
    """The two ways to submit."""

    closed: Submitter
    open: Pacer


async def measure(plan: Plan, options: Options, run: str, tell: Tell) -> Report:
    """Start the system of a plan, warm it up, measure, stop it. `run` is unique and becomes part of each task's id.

    On a Kafka that is not embedded the topics are deleted afterwards. Raises OperatorError if a process ends meanwhile,
    a task is refused or fails, or all comes to a halt; tasks lost at the end of the measured part are in the report.
    """
    load = [round(each, 2) for each in os.getloadavg()]
    try:
        async with supervised(plan) as supervisor:
            entry = await supervisor.start()
            return await _measured(plan, entry, options, Work(run, options.payload_bytes), tell, load)
    finally:
        if plan.broker is None:
            await remove_topics(plan.settings)


async def _measured(plan: Plan, entry: Entry, options: Options, work: Work, tell: Tell, load: list[float]) -> Report:
    kafka = plan.settings.kafka.model_copy(update={"bootstrap_servers": entry.bootstrap})
    settings = plan.settings.model_copy(update={"kafka": kafka})
    log_bytes = log_size(plan.broker.directory) if plan.broker else lambda: None
    ledger, meter = Ledger(options.warmup + options.tasks), Meter(entry)
    codecs = await load_codecs(settings, troupe(), SUBJECTS)
    async with producing(settings) as producer, consuming(settings) as consumer:
        topic, partitions = kafka.topic_prefix + TASK_REQUESTS.name, partitions_of(TASK_REQUESTS, settings)
        sending = (producer, topic, partitions, codecs, work)
        loads = Loads(Submitter(*sending), Pacer(*sending))
        observer = Observer(consumer, settings, codecs, work)
        before, after = await _beside(
            _drive(loads, ledger, meter, log_bytes, options),
            observer.run(ledger),
            meter.watch(),
            _tell(ledger, tell),
        )
    used = None
    if before.log_bytes is not None and after.log_bytes is not None:
        used = round((after.log_bytes - before.log_bytes) / options.tasks, 1)
    return Report(
        counts=counts(
            ledger, range(options.warmup, options.warmup + options.tasks), options.payload_bytes, options.rate
        ),
        in_flight=options.in_flight if options.rate is None else None,
        coordinators=len(meter.pids("coordinator")),
        handler_work={"sleep_ms": options.sleep_ms, "cpu_ms": options.cpu_ms},
        cpu_us_per_task=per_task_us(before.cpu_s, after.cpu_s, options.tasks),
        rss_mb=meter.peak_mb(),
        log_bytes_per_task=used,
        machine=machine(),
        versions=versions(plan.broker is not None),
        durability=await durability(settings),
        load_average=load,
    )


async def _drive(
    loads: Loads, ledger: Ledger, meter: Meter, log_bytes: Callable[[], int | None], options: Options
) -> tuple[Spent, Spent]:
    """Warm up, measure, and stay a little for duplicates; what had been spent before and after the measured part."""
    warmup, last = options.warmup, options.warmup + options.tasks
    await loads.closed.run(range(warmup), options.in_flight, ledger, options.stall_s)
    await _until_finished(ledger, warmup, options.stall_s)
    if lost := ledger.lost(range(warmup)):
        raise OperatorError(
            f"{lost} of {warmup} tasks of the warm-up have no outcome",
            hint="run it again with --data DIR and read the logs in DIR/logs",
        )
    if options.rate is not None:
        await asyncio.sleep(_CALM_S)
    coordinator = meter.pids("coordinator")
    async with profiled(coordinator[0], options.profile) if options.profile else nullcontext():
        before = Spent(meter.cpu_s(), log_bytes())
        if options.rate is None:
            await loads.closed.run(range(warmup, last), options.in_flight, ledger, options.stall_s)
        else:
            await loads.open.run(range(warmup, last), options.rate, ledger, options.stall_s)
        await _until_finished(ledger, last, options.stall_s)
        after = Spent(meter.cpu_s(), log_bytes())
    await asyncio.sleep(_SETTLE_S)
    if ledger.not_completed:
        raise OperatorError(
            f"{ledger.not_completed} tasks were not completed; the first: {ledger.first_failure}",
            hint="run it again with --data DIR and read the logs in DIR/logs",
        )
    return before, after


async def _until_finished(ledger: Ledger, count: int, stall_s: float) -> None:
    """Wait until so many tasks have an outcome, as long as any come."""
    while ledger.finished < count:
        if not await ledger.changed(stall_s):
            return


async def _tell(ledger: Ledger, tell: Tell) -> None:
    while True:
        tell(ledger.finished)
        await asyncio.sleep(_TELL_S)


async def _beside(main: Coroutine[Any, Any, T], *others: Coroutine[Any, Any, None]) -> T:
    """The result of `main`, while the others run, which never end by themselves; an error of one ends all."""
    whole: asyncio.Task[T] = asyncio.create_task(main)
    tasks = [asyncio.create_task(other) for other in others]
    try:
        await asyncio.wait([whole, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        return await whole
    finally:
        for each in (whole, *tasks):
            each.cancel()
        await asyncio.wait([whole, *tasks])


async def remove_topics(settings: Settings) -> None:
    """Delete all topics of the run's prefix; another's Kafka is left as it was, the registered schemas aside."""
    async with admin(settings) as client:
        ours = [name for name in await client.list_topics() if name.startswith(settings.kafka.topic_prefix)]
        if not ours:
            return
        response = await client.delete_topics(ours)
    for name, code, *_ in response.topic_error_codes:
        if code:
            raise OperatorError(
                f"Topic '{name}' cannot be deleted: {for_code(code).__name__}", hint="delete it with kafka-topics"
            )
