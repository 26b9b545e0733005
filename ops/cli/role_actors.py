"""`troupe role actors`: a host of agents, in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from actors.catalog.builtin import builtin
from actors.loader import load_agents
from ops.cli.lifeline import Lifeline, ReadyFile, end_with_supervisor
from ops.cli.options import Broker, Config, Data, Sets, settings_of
from ops.logs import configure_logging
from ops.roles.actors import run_actors
from ops.roles.asking import Asking

Files = Annotated[list[Path] | None, typer.Option("--agents", metavar="FILE", help="Agents; unset: the built-in.")]


def actors(
    files: Files = None,
    broker: Broker = None,
    data: Data = None,
    config: Config = None,
    sets: Sets = None,
    ready_file: ReadyFile = None,
    lifeline: Lifeline = False,
) -> None:
    """Host agents: the built-in ones, or those of files."""
    settings = settings_of(broker, data, config, sets)
    configure_logging(settings.monitoring.log_level)
    hosted = (
        [actor for file in files for actor in load_agents(file)]
        if files
        else builtin(settings.agents.builtin, Asking(settings))
    )
    if lifeline:
        end_with_supervisor(settings.actors.drain_seconds)
    raise typer.Exit(asyncio.run(run_actors(settings, hosted, ready_file)))
