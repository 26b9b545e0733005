"""`troupe run FILE`: a user's own agents, in the foreground, against the running system."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from actors.loader import load_agents
from ops.cli.errors import WrongUse
from ops.cli.options import Broker, Config, Data, Sets, running_settings
from ops.cli.roles import host_of
from ops.cli.show import say
from ops.logs import configure_logging
from ops.roles.actors import run_actors

File = Annotated[Path, typer.Argument(metavar="FILE", help="A Python file that defines agents().")]
Host = Annotated[str | None, typer.Option("--host", help="Name of this host; processes of one name share the work.")]


def run(
    file: File,
    host: Host = None,
    broker: Broker = None,
    data: Data = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Host the agents of a Python file until Ctrl-C."""
    if not file.is_file():
        raise WrongUse(f"There is no file {file}", hint="troupe run takes a Python file that defines agents()")
    settings = running_settings(broker, data, config, sets)
    configure_logging(settings.monitoring.log_level)
    name = host or (settings.actors.host if "host" in settings.actors.model_fields_set else host_of(file))
    settings = settings.model_copy(update={"actors": settings.actors.model_copy(update={"host": name})})
    hosted = load_agents(file)
    words = ", ".join(actor.agent_id for actor in hosted)
    say(f"Hosting {words} on {settings.kafka.bootstrap_servers}; Ctrl-C drains and stops.")
    raise typer.Exit(asyncio.run(run_actors(settings, hosted, None)))
