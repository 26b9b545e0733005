"""`troupe topics`: what there is, and what lies in it, decoded."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

import typer
from aiokafka import ConsumerRecord, TopicPartition

from ops.cli.options import AsJson, Broker, Config, Data, Sets, running_settings
from ops.cli.show import print_json, print_table
from ops.logs import quiet_libraries
from ops.registry.schema_log import TOPIC as SCHEMAS
from ops.registry.schema_log import read_schemas
from ops.views.log import LogReader, open_log
from ops.views.records import Decoder
from ops.views.topics import Listed, after, all_records, last_records, list_topics
from schemas.settings import Settings
from topology import troupe

DEFAULT_LAST = 10
"""How many of the last records are shown unless told."""

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List topics, or show their records decoded.")

Name = Annotated[str, typer.Argument(metavar="TOPIC", help="Without the installation's prefix.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")]
Limit = Annotated[int | None, typer.Option("--limit", min=0, help="The last N; with --from-start the first N.")]
FromStart = Annotated[bool, typer.Option("--from-start", help="Begin with the oldest record.")]


@app.command("list")
def list_(
    broker: Broker = None, data: Data = None, config: Config = None, sets: Sets = None, as_json: AsJson = False
) -> None:
    """List the topics with key, record and class."""
    quiet_libraries()
    found = asyncio.run(_listed(running_settings(broker, data, config, sets)))
    if as_json:
        print_json([_document(each) for each in found])
        return
    rows = [(each.name, each.partitions, each.key, each.record, each.retention, each.records) for each in found]
    print_table(("topic", "partitions", "key", "record", "class", "records"), rows)


@app.command()
def tail(
    topic: Name,
    follow: Follow = False,
    limit: Limit = None,
    from_start: FromStart = False,
    broker: Broker = None,
    data: Data = None,
    config: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Show the last records of a topic, decoded; with --json one object a line."""
    quiet_libraries()
    settings = running_settings(broker, data, config, sets)
    name = topic if topic == SCHEMAS else settings.kafka.topic_prefix + topic
    try:
        asyncio.run(_tail(settings, name, follow, limit, from_start, as_json))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


async def _listed(settings: Settings) -> list[Listed]:
    async with open_log(settings) as log:
        return await list_topics(log, settings, troupe())


async def _tail(
    settings: Settings, name: str, follow: bool, limit: int | None, from_start: bool, as_json: bool
) -> None:
    view = await read_schemas(settings.kafka.bootstrap_servers, settings.kafka.metadata_timeout_seconds)
    decoder = Decoder(view)
    async with open_log(settings) as log:
        partitions = await log.partitions(name)
        shown = 0
        async for record in _chosen(log, partitions, follow, limit, from_start):
            _print(decoder.document(record), as_json)
            shown += 1
            if from_start and limit is not None and shown >= limit:
                break


async def _chosen(
    log: LogReader, partitions: list[TopicPartition], follow: bool, limit: int | None, from_start: bool
) -> AsyncIterator[ConsumerRecord]:
    if from_start and follow:
        start = await log.beginnings(partitions)
    elif from_start:
        async for record in all_records(log, partitions):
            yield record
        return
    else:
        last = await last_records(log, partitions, DEFAULT_LAST if limit is None else limit)
        for record in last:
            yield record
        if not follow:
            return
        start = after(last, await log.ends(partitions))
    async for record in log.follow(start):
        if record is not None:
            yield record


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        schema = document["schema"]["name"] if document["schema"] else "-"
        place = f"{document['topic']}[{document['partition']}]@{document['offset']}"
        sys.stdout.write(f"{document['timestamp']} {place} key={document['key']} {schema}\n")
        sys.stdout.write(f"  {json.dumps(_said(document['value']), ensure_ascii=False)}\n")
    sys.stdout.flush()


def _said(value: Any) -> Any:
    """A record without the fields that say nothing; people read it, programs use --json."""
    return (
        {name: item for name, item in value.items() if item not in (None, "", [])} if isinstance(value, dict) else value
    )


def _document(listed: Listed) -> dict[str, Any]:
    found = asdict(listed)
    return {
        "topic": found["name"],
        "partitions": found["partitions"],
        "key": found["key"],
        "record": found["record"],
        "class": found["retention"],
        "records": found["records"],
    }
