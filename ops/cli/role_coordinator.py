"""`troupe role coordinator`: the processors, in this process."""

from __future__ import annotations

import asyncio

import typer

from ops.cli.lifeline import Lifeline, ReadyFile, end_with_supervisor
from ops.cli.options import Broker, Config, Data, Sets, settings_of
from ops.logs import configure_logging
from ops.roles.coordinator import run_coordinator


def coordinator(
    broker: Broker = None,
    data: Data = None,
    config: Config = None,
    sets: Sets = None,
    ready_file: ReadyFile = None,
    lifeline: Lifeline = False,
) -> None:
    """Run the processors."""
    settings = settings_of(broker, data, config, sets)
    configure_logging(settings.monitoring.log_level)
    if lifeline:
        end_with_supervisor(settings.coordinator.stop_seconds)
    raise typer.Exit(asyncio.run(run_coordinator(settings, ready_file)))
