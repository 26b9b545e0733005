"""`troupe role coordinator`: the processors, in this process."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ops.cli.errors import report
from ops.cli.lifeline import Lifeline, ReadyFile, end_with_supervisor
from ops.cli.options import Broker, Config, Data, Sets, settings_of
from ops.cli.roles import with_instance
from ops.logs import configure_logging
from ops.roles.coordinator import run_coordinator
from schemas.errors import OperatorError, SchemaError
from streams.runtime.exits import EXIT_OPERATOR

Instance = Annotated[
    str | None,
    typer.Option("--instance", metavar="NAME", help="Name in the group (coordinator.instance); each needs its own."),
]


def coordinator(
    broker: Broker = None,
    data: Data = None,
    config: Config = None,
    sets: Sets = None,
    instance: Instance = None,
    ready_file: ReadyFile = None,
    lifeline: Lifeline = False,
) -> None:
    """Run the processors. Several may run; they share the partitions."""
    named = [] if instance is None else [f"coordinator.instance={instance}"]
    # Without a name, that of the machine: replicas in containers must not all be called the same.
    settings = with_instance(settings_of(broker, data, config, [*(sets or ()), *named]), embedded=False)
    configure_logging(settings.monitoring.log_level)
    if lifeline:
        end_with_supervisor(settings.coordinator.stop_seconds)
    try:
        code = asyncio.run(run_coordinator(settings, ready_file))
    except (OperatorError, SchemaError) as error:
        report(error)
        code = EXIT_OPERATOR
    raise typer.Exit(code)
