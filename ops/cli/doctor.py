"""`troupe doctor`: look at everything that may be wrong, and say for each thing what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ops.cli.options import AsJson, Broker, Config, Data, Sets, names_broker, running_settings, settings_of
from ops.cli.show import print_json, print_table
from ops.doctor.examine import cluster_findings
from ops.doctor.finding import Finding, Level, counted, raised, warning
from ops.doctor.machine import disk_finding, java_findings, process_findings, settings_findings
from ops.logs import quiet_libraries
from ops.running import Entry, entries
from schemas.errors import OperatorError
from schemas.settings import Settings, process_environment

Limit = Annotated[float, typer.Option("--limit-seconds", min=1, help="Longest time for one check.")]
Tell = Callable[[str], None]


def doctor(
    limit_seconds: Limit = 60.0,
    broker: Broker = None,
    data: Data = None,
    config: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Check settings, processes, disk, Kafka, topics, schemas, lag, agents, clocks and changelogs.

    Each finding comes with its remedy. The exit code is 1 if there is an error.
    """
    quiet_libraries()
    with Console(stderr=True).status("looking", spinner="line") as status:
        found = _machine(broker, data, config, sets)
        site = _site(broker, data, config, sets, found)
        if site is not None:
            found += asyncio.run(_cluster(site, limit_seconds, lambda name: status.update(f"looking at {name}")))
    errors = sum(finding.level is Level.ERROR for finding in found)
    warnings = sum(finding.level is Level.WARNING for finding in found)
    if as_json:
        listed = [finding.document() for finding in found]
        print_json({"ok": not errors, "errors": errors, "warnings": warnings, "findings": listed})
    else:
        rows = [(each.level, each.check, each.what, each.remedy) for each in found]
        print_table(("", "check", "found", "what to do"), rows)
        print(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}")
    raise typer.Exit(1 if errors else 0)


def _machine(broker: str | None, data: Path | None, config: Path | None, sets: list[str] | None) -> list[Finding]:
    """What is found without asking any Kafka."""
    environ = process_environment()
    found = settings_findings(environ)
    try:
        settings = settings_of(broker, data, config, sets)
    except OperatorError as wrong:  # a variable that is wrong by itself was found before
        if not any(finding.level is Level.ERROR for finding in found):
            found.append(raised("settings", wrong))
        settings = Settings()
    running = _meant(entries(environ), data)
    found += process_findings(running)
    found.append(disk_finding(data or (running[0].data if running else settings.data_dir)))
    if not names_broker(settings):
        found += java_findings()
    return found


def _meant(running: list[Entry], data: Path | None) -> list[Entry]:
    if data is None:
        return running
    wanted = data.expanduser().resolve()
    return [entry for entry in running if entry.data == wanted]


def _site(
    broker: str | None, data: Path | None, config: Path | None, sets: list[str] | None, found: list[Finding]
) -> Settings | None:
    """The settings of the Kafka to look at; None, and a finding that says why, if there is none."""
    if any(finding.check == "settings" and finding.level is Level.ERROR for finding in found):
        return None
    try:
        return running_settings(broker, data, config, sets)
    except OperatorError as none:
        found.append(warning("kafka", f"{none}: no Kafka was looked at", none.hint))
        return None


async def _cluster(settings: Settings, limit_s: float, tell: Tell) -> list[Finding]:
    return [finding async for found in cluster_findings(settings, limit_s, tell) for finding in found]
