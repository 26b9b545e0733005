"""`troupe bench`: measure this very installation on this very machine."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ops.bench.agents import write_agents
from ops.bench.agents_host import measure_crowd, write_crowd
from ops.bench.machine import cores
from ops.bench.measure import Options, measure
from ops.bench.pace import punctual_loop
from ops.bench.pyspy import self_time
from ops.bench.report import Report
from ops.bench.state import FOREVER_MS, measure_state
from ops.bench.summary import rows, summary
from ops.bench.work import LEAST_PAYLOAD_BYTES
from ops.broker.jars import JarCache, ensure_jars
from ops.cli.errors import WrongUse
from ops.cli.options import AsJson, Broker, Config, Data, Sets, names_broker, settings_of
from ops.cli.show import print_json, print_table, say
from ops.cli.up import EMBEDDED_PARTITIONS, plan_of
from ops.logs import quiet_libraries
from ops.supervise import Plan
from schemas.settings import Settings

_LARGEST_PAYLOAD_BYTES = 900_000
_TOP = 20
_WARMUP_IN_FLIGHT = 500

Start = tuple[Path | None, str | None, Path | None, list[str] | None]
"""--data, --broker, --config and --set of a run."""

Runs = Annotated[int, typer.Option("--runs", min=1, max=100, help="Each on a system of its own; prints the medians.")]

Tasks = Annotated[int, typer.Option("--tasks", min=1, help="Tasks to measure.")]
PayloadBytes = Annotated[
    int,
    typer.Option("--payload-bytes", min=LEAST_PAYLOAD_BYTES, max=_LARGEST_PAYLOAD_BYTES, help="Of each task, random."),
]
InFlight = Annotated[int, typer.Option("--in-flight", min=1, help="Tasks without an outcome at any time.")]
Coordinators = Annotated[
    int | None,
    typer.Option("--coordinators", min=1, max=64, help="They share the partitions; unset: one per core."),
]
Warmup = Annotated[int, typer.Option("--warmup", min=0, help="Tasks before, not measured.")]
Count = Annotated[int, typer.Option("--count", min=1, max=10_000, help="Agents in one host.")]
Idle = Annotated[float, typer.Option("--idle-seconds", min=1, help="How long to measure without a task.")]
Rate = Annotated[float, typer.Option("--rate", min=0.1, max=100_000, help="Tasks per second, come what may.")]
Seconds = Annotated[float, typer.Option("--seconds", min=0.1, max=86_400, help="How long to measure.")]
HandlerMs = Annotated[float, typer.Option("--handler-ms", min=0, help="Each handler sleeps so long.")]
HandlerCpuMs = Annotated[float, typer.Option("--handler-cpu-ms", min=0, help="Each handler computes so long.")]
Profile = Annotated[Path | None, typer.Option("--profile", metavar="FILE", help="Profile the coordinator with py-spy.")]
Stall = Annotated[float, typer.Option("--stall-seconds", min=1, help="Without any outcome so long, it is over.")]

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Measure. A figure holds for the machine that it prints, and compares with others of the same run only."""


@app.command("throughput")
def throughput_verb(
    tasks: Tasks = 20_000,
    payload_bytes: PayloadBytes = 1024,
    in_flight: InFlight = 8000,
    coordinators: Coordinators = None,
    warmup: Warmup = 2000,
    handler_ms: HandlerMs = 0,
    handler_cpu_ms: HandlerCpuMs = 0,
    profile: Profile = None,
    runs: Runs = 1,
    stall_seconds: Stall = 30.0,
    data: Data = None,
    broker: Broker = None,
    config: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Tasks per second from submit to result, at saturation, with all that ships switched on.

    The exit code is 1 if an accepted task has no outcome.

    Starts a Kafka of its own in a temporary directory, unless --data or --broker say otherwise, then coordinators and
    18 agents in 6 pools that do nothing. Half of the tasks are routed by pattern, half by capability.
    """
    options = Options(tasks, payload_bytes, in_flight, warmup, stall_seconds, None, profile, handler_ms, handler_cpu_ms)
    if coordinators is None:
        coordinators = 1 if profile else cores()
    _run("throughput", options, (data, broker, config, sets), runs, as_json, coordinators)


@app.command("latency")
def latency_verb(
    rate: Rate = 200,
    seconds: Seconds = 20,
    payload_bytes: PayloadBytes = 1024,
    warmup: Warmup = 2000,
    handler_ms: HandlerMs = 0,
    handler_cpu_ms: HandlerCpuMs = 0,
    profile: Profile = None,
    runs: Runs = 1,
    stall_seconds: Stall = 30.0,
    data: Data = None,
    broker: Broker = None,
    config: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """How long a task takes at a given rate: to the broker's confirmation, to its handler, to its result.

    An open loop: every task has its moment in a plan and is timed from that moment, however late it was sent, so that
    a stall shows in each task that it held up. The exit code is 1 if an accepted task has no outcome.
    """
    tasks = max(1, round(rate * seconds))
    options = Options(
        tasks, payload_bytes, _WARMUP_IN_FLIGHT, warmup, stall_seconds, rate, profile, handler_ms, handler_cpu_ms
    )
    _run("latency", options, (data, broker, config, sets), runs, as_json)


@app.command("agents")
def agents_verb(
    count: Count = 1000,
    tasks: Tasks = 10_000,
    in_flight: InFlight = 1000,
    idle_seconds: Idle = 30.0,
    data: Data = None,
    broker: Broker = None,
    config: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """What a crowd of agents in one host costs: to start, at work, and when nothing happens.

    Each agent is given one task, all at once, then `--tasks` go round all of them, then nothing is asked for a while.
    """
    quiet_libraries()
    run = uuid.uuid4().hex[:8]
    scratch = nullcontext(data) if data else tempfile.TemporaryDirectory(prefix="troupe-bench-")
    with scratch as place:
        crowd = write_crowd(Path(place).resolve(), count)
        plan = _plan(settings_of(broker, Path(place), config, sets), run, crowd)
        found = asyncio.run(measure_crowd(plan, count, tasks, in_flight, idle_seconds, run))
    if as_json:
        print_json(found.document())
    else:
        print_table(("", ""), found.rows(), title="agents")


@app.command("state")
def state_verb(
    tasks: Tasks = 20_000,
    payload_bytes: PayloadBytes = 1024,
    stall_seconds: Stall = 30.0,
    data: Data = None,
    broker: Broker = None,
    config: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """What an open task takes of memory and disk, and how long a takeover lasts with all of them open.

    The agents never end a task. The coordinator is killed in the end, and the time runs until one more is assigned.
    """
    quiet_libraries()
    run = uuid.uuid4().hex[:8]
    scratch = nullcontext(data) if data else tempfile.TemporaryDirectory(prefix="troupe-bench-")
    with scratch as place:
        agents = write_agents(Path(place).resolve(), FOREVER_MS, 0)
        settings = settings_of(broker, Path(place), config, sets)
        actors = settings.actors.model_copy(update={"drain_seconds": 0.0})  # nothing would come of waiting for them
        plan = _plan(settings.model_copy(update={"actors": actors}), run, agents)
        found = asyncio.run(measure_state(plan, tasks, payload_bytes, stall_seconds, run))
    if as_json:
        print_json(found.document())
    else:
        print_table(("", ""), found.rows(), title="state")


def _run(title: str, options: Options, start: Start, runs: int, as_json: bool, coordinators: int | None = None) -> None:
    quiet_libraries()
    if options.sleep_ms and options.cpu_ms:
        raise WrongUse("A handler sleeps or computes, not both", hint="leave out --handler-ms or --handler-cpu-ms")
    names = [f" {number + 1} of {runs}" if runs > 1 else "" for number in range(runs)]
    reports = [_one(options, start, coordinators, name) for name in names]
    if as_json:
        documents = [report.document() for report in reports]
        print_json(summary(documents) if runs > 1 else documents[0])
    else:
        print_table(("", ""), reports[-1].rows(), title=title)
    if runs > 1 and not as_json:
        found = summary([report.document() for report in reports])
        print_table(("", "median", "range", "runs"), rows(found), title=f"{runs} runs, of which the last is above")
    if options.profile is not None:
        _show_profile(options.profile)
    if lost := sum(report.counts.lost for report in reports):
        say(f"Error: {lost} tasks were accepted and have no outcome")
        raise typer.Exit(1)


def _one(options: Options, start: Start, coordinators: int | None, which: str) -> Report:
    data, broker, config, sets = start
    run = uuid.uuid4().hex[:8]
    scratch = nullcontext(data) if data else tempfile.TemporaryDirectory(prefix="troupe-bench-")
    with scratch as place, _progress() as progress:
        agents = write_agents(Path(place).resolve(), options.sleep_ms, options.cpu_ms)
        plan = _plan(_shared(settings_of(broker, Path(place), config, sets), coordinators), run, agents)
        bar = progress.add_task(f"tasks{which}", total=options.warmup + options.tasks)
        return _measured(plan, options, run, lambda done: progress.update(bar, completed=done))


def _measured(plan: Plan, options: Options, run: str, tell: Callable[[int], None]) -> Report:
    if options.rate is None:
        return asyncio.run(measure(plan, options, run, tell))
    with asyncio.Runner(loop_factory=punctual_loop) as runner:
        return runner.run(measure(plan, options, run, tell))


def _shared(settings: Settings, coordinators: int | None) -> Settings:
    """So many coordinators, unless the settings themselves say how many; more than partitions would only wait."""
    if coordinators is None or "replicas" in settings.coordinator.model_fields_set:
        return settings
    kafka = settings.kafka
    own = not names_broker(settings) and "partitions" not in kafka.model_fields_set
    replicas = min(coordinators, EMBEDDED_PARTITIONS if own else kafka.partitions)
    return settings.model_copy(update={"coordinator": settings.coordinator.model_copy(update={"replicas": replicas})})


def _plan(settings: Settings, run: str, agents: Path) -> Plan:
    """What `up --only coordinator --agents FILE` would run, on topics of its own."""
    kafka = settings.kafka.model_copy(update={"topic_prefix": f"bench-{run}."})
    plan = plan_of(settings.model_copy(update={"kafka": kafka}), 0, ["coordinator"], [agents])
    if plan.broker is not None:
        ensure_jars(JarCache.default())  # a first download shows its own progress
    return plan


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Slowly: this process is the submitter, and drawing would be counted as its cost.
    return Progress(*columns, console=Console(stderr=True), refresh_per_second=2, transient=True)


def _show_profile(file: Path) -> None:
    say(f"Stacks of the coordinator: {file} (for flamegraph.pl or speedscope). Self time, a profiled run is slower:")
    for name, share in self_time(file, _TOP):
        say(f"{share:7.1%}  {name}")
