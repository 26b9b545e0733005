"""`troupe schemas`: the schemas of the records, and a registry for tools that want one."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ops.cli.options import AsJson, Broker, Config, Data, Sets, running_settings
from ops.cli.show import print_json, print_table, say
from ops.logs import quiet_libraries
from ops.registry.schema_log import read_schemas
from ops.registry.serve import Registry, Schemas

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List the record schemas, or serve them over HTTP.")

Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on this machine; 0 takes a free one.")]


@app.command("list")
def list_(
    broker: Broker = None, data: Data = None, config: Config = None, sets: Sets = None, as_json: AsJson = False
) -> None:
    """List the subjects with their versions and ids."""
    quiet_libraries()
    kafka = running_settings(broker, data, config, sets).kafka
    view = asyncio.run(read_schemas(kafka.bootstrap_servers, kafka.metadata_timeout_seconds))
    found = [
        {"subject": subject, "version": each.number, "id": each.schema_id}
        for subject in view.subjects()
        for each in view.versions(subject)
    ]
    if as_json:
        print_json(found)
    else:
        print_table(("subject", "version", "id"), [tuple(each.values()) for each in found])


@app.command()
def serve(
    port: Port = 8081, broker: Broker = None, data: Data = None, config: Config = None, sets: Sets = None
) -> None:
    """Answer as a Confluent schema registry that may only be read, until Ctrl-C."""
    quiet_libraries()
    kafka = running_settings(broker, data, config, sets).kafka
    schemas = Schemas(kafka.bootstrap_servers, kafka.metadata_timeout_seconds)
    schemas.view()  # a broker that is away is told now and not to the first client
    with Registry(schemas, port) as registry:
        say(f"Schema registry: {registry.url} (read only; Ctrl-C stops it)")
        try:
            registry.serve_forever()
        except KeyboardInterrupt:
            raise typer.Exit(0) from None
