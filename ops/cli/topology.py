"""`troupe topology`: make the cluster fit the wiring, and print the wiring."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from ops.cli.options import AsJson, Broker, Config, Data, Sets, running_settings
from ops.cli.show import print_json
from ops.logs import quiet_libraries
from ops.topics import apply as apply_topology
from topology import troupe

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create and check the topics, or print the wiring.")


@app.command()
def apply(
    broker: Broker = None, data: Data = None, config: Config = None, sets: Sets = None, as_json: AsJson = False
) -> None:
    """Create the topics that are missing, check the others, register the schemas."""
    quiet_libraries()
    settings = running_settings(broker, data, config, sets)
    applied = asyncio.run(apply_topology(settings, troupe()))
    if as_json:
        print_json({"created": applied.created, "checked": applied.checked, "subjects": applied.subjects})
        return
    for name in applied.created:
        print(f"created  {name}")
    print(
        f"{len(applied.created)} topics created, {len(applied.checked)} found right, "
        f"{len(applied.subjects)} schemas registered on {settings.kafka.bootstrap_servers}"
    )


@app.command()
def describe(
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As a flow chart.")] = False, as_json: AsJson = False
) -> None:
    """Print topics, processors and roles."""
    if as_json:
        print_json(troupe().document())
        return
    sys.stdout.write(troupe().mermaid() if mermaid else troupe().describe())
