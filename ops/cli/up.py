"""`troupe up`: everything in one command, in the foreground or, with --detach, behind it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.broker.jars import JarCache, ensure_jars
from ops.broker.local import BrokerOptions
from ops.cli.detach import detach as start_detached
from ops.cli.errors import WrongUse
from ops.cli.options import AsJson, Broker, Config, Data, Sets, names_broker, settings_of
from ops.cli.roles import LOGS, ROLES, children, with_instance
from ops.cli.show import print_json, print_table, say
from ops.logs import quiet_libraries
from ops.running import Entry
from ops.supervise import Plan, supervised
from schemas.settings import Settings, process_environment

EMBEDDED_PARTITIONS = 2
"""Of each processor input, where one machine runs all: more partitions cost requests and bring nothing."""

Agents = Annotated[list[Path] | None, typer.Option("--agents", metavar="FILE", help="Host these agents too.")]
Detach = Annotated[bool, typer.Option("--detach", help="Return when all is ready and leave it running.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the embedded Kafka; 0: a free one.")]
Only = Annotated[str | None, typer.Option("--only", metavar="ROLES", help=f"Of {','.join(ROLES)}; by comma.")]
Ready = Annotated[Path | None, typer.Option("--ready-file", hidden=True)]


def up(
    data: Data = None,
    broker: Broker = None,
    agents: Agents = None,
    detach: Detach = False,
    port: Port = 0,
    only: Only = None,
    config: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
    ready_file: Ready = None,
) -> None:
    """Start Kafka, the coordinator and the agents, and watch over them until Ctrl-C."""
    quiet_libraries()
    settings = settings_of(broker, data, config, sets)
    if port and names_broker(settings):
        raise WrongUse("--port is for the embedded Kafka, and another one is named", hint="leave one of them out")
    plan = plan_of(settings, port, _roles(only), [_file(each) for each in agents or ()])
    if detach:
        if plan.broker is not None:
            ensure_jars(JarCache.default())  # here and not behind, where nobody would see the progress of a download
        pairs = [("--data", data), ("--broker", broker), ("--port", port), ("--only", only), ("--config", config)]
        pairs += [("--agents", each) for each in agents or ()] + [("--set", each) for each in sets or ()]
        arguments = [text for name, value in pairs if value is not None for text in (name, str(value))]
        show(start_detached(plan.settings, arguments), as_json)
        return
    asyncio.run(_foreground(plan, as_json, ready_file))


def plan_of(settings: Settings, port: int, only: Sequence[str], agent_files: Sequence[Path]) -> Plan:
    """What to supervise for these settings: the embedded Kafka unless another one is named."""
    embedded = not names_broker(settings)
    data = settings.data_dir.expanduser().resolve()
    changes: dict[str, Any] = {"data_dir": data}
    if embedded and "partitions" not in settings.kafka.model_fields_set:
        changes["kafka"] = settings.kafka.model_copy(update={"partitions": EMBEDDED_PARTITIONS})
    settings = with_instance(settings.model_copy(update=changes), embedded)
    environ, answer_s = process_environment(), settings.kafka.metadata_timeout_seconds
    return Plan(
        settings=settings,
        broker=BrokerOptions(data / "kafka", port=port, answer_timeout_s=answer_s) if embedded else None,
        children=lambda final: children(final, environ, only, agent_files),
        environ=environ,
        tell=say,
    )


def document(entry: Entry) -> dict[str, Any]:
    """The JSON form of `up --json`: where everything is."""
    return {
        "bootstrap": entry.bootstrap,
        "data": str(entry.data),
        "logs": str(entry.data / LOGS),
        "processes": [
            {
                "role": member.role,
                "pid": member.birth.pid,
                "state": member.current_state(),
                "addresses": list(member.addresses),
                **({"why": member.why} if member.why else {}),
            }
            for member in entry.members
        ],
    }


def show(found: dict[str, Any], as_json: bool) -> None:
    """Print where everything is."""
    if as_json:
        print_json(found)
        return
    rows = [(each["role"], each["pid"], each["state"], ", ".join(each["addresses"])) for each in found["processes"]]
    print_table(("role", "pid", "state", "addresses"), rows)
    print_table(
        ("", ""),
        [
            ("Kafka", found["bootstrap"]),
            ("topics", "troupe topics list"),
            ("logs", found["logs"]),
            ("data", found["data"]),
        ],
    )


async def _foreground(plan: Plan, as_json: bool, ready_file: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with supervised(plan) as supervisor:
        if not await _before(stop, supervisor.start()):
            return
        found = document(supervisor.entry())
        if ready_file is not None:
            part = ready_file.with_suffix(".part")
            part.write_text(json.dumps(found), encoding="utf-8")
            part.replace(ready_file)
        else:
            show(found, as_json)
            say("Ctrl-C stops it all.")
        await _before(stop, supervisor.until_failed())
        say("stopping")


async def _before(stop: asyncio.Event, work: Coroutine[Any, Any, Any]) -> bool:
    """Whether the work was done before somebody asked to stop; raises its error, and ends it if it is not done."""
    task = asyncio.create_task(work)
    asked = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, asked], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        asked.cancel()
        task.cancel()
        await asyncio.wait([task])


def _roles(only: str | None) -> tuple[str, ...]:
    if only is None:
        return ROLES
    wanted = tuple(word.strip() for word in only.split(",") if word.strip())
    for word in wanted:
        if word not in ROLES:
            raise WrongUse(f"Unknown role '{word}'", hint=f"--only takes {', '.join(ROLES)}")
    return wanted


def _file(path: Path) -> Path:
    found = path.expanduser().resolve()
    if not found.is_file():
        raise WrongUse(f"There is no file {path}", hint="--agents takes a Python file that defines agents()")
    return found
