"""`troupe ps` and `troupe down`: look at a running system, and end it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import psutil
import typer

from ops.broker.local import BrokerOptions, LocalKafka
from ops.cli.options import AsJson, Data
from ops.cli.show import print_json, print_table, say
from ops.cli.up import document
from ops.running import Entry, Member, entries, find, remove
from schemas.settings import process_environment

Timeout = Annotated[float, typer.Option("--timeout", min=0, help="Seconds for a clean stop; then it is killed.")]

_KILL_S = 5.0
_POLL_S = 0.05


def ps(data: Data = None, as_json: AsJson = False) -> None:
    """List the processes of the running system."""
    entry = _running(data)
    processes = document(entry)["processes"] if entry else []
    if as_json:
        print_json(processes)
    elif entry is None:
        say("Nothing runs.")
    else:
        rows = [(each["role"], each["pid"], each["state"], ", ".join(each["addresses"])) for each in processes]
        print_table(("role", "pid", "state", "addresses"), rows, title=str(entry.data))
        for each in processes:
            if "why" in each:
                say(f"{each['why']}. Then `troupe down` and `troupe up`.")


def down(data: Data = None, timeout: Timeout = 60.0, as_json: AsJson = False) -> None:
    """Stop the running system. Data stays."""
    entry = _running(data)
    stopped = [] if entry is None else _stop(entry, timeout)
    if as_json:
        print_json({"stopped": stopped})
    else:
        say(f"Stopped {', '.join(stopped)}." if stopped else "Nothing runs.")


def _running(data: Path | None) -> Entry | None:
    """The system that is meant, None if none runs at all. Raises OperatorError if several do."""
    environ = process_environment()
    running = entries(environ)
    if data is not None:
        wanted = data.expanduser().resolve()
        return next((entry for entry in running if entry.data == wanted), None)
    return find(environ, None) if running else None


def _stop(entry: Entry, limit_s: float) -> list[str]:
    """Ask the supervisor, wait, then end whatever is left; returns the roles that ran."""
    alive = [member for member in entry.members if member.birth.process() is not None]
    supervisors = [member for member in alive if member.role == "supervisor"]
    _end(supervisors, limit_s)
    # A killed supervisor leaves its children to their lifelines; what is still here after that is ended by hand.
    _end([member for member in alive if member.role.startswith("actors")], _KILL_S)
    _end([member for member in alive if member.role.startswith("coordinator")], _KILL_S)
    kafka = entry.data / "kafka"
    if any(member.role == "broker" for member in alive) and kafka.is_dir():
        asyncio.run(LocalKafka(BrokerOptions(kafka)).stop())
    remove(process_environment(), entry.data)
    return [member.role for member in alive]


def _end(members: list[Member], limit_s: float) -> None:
    """SIGTERM, wait, SIGKILL."""
    running = [process for member in members if (process := member.birth.process()) is not None]
    for process in running:
        _signal(process, kill=False)
    deadline = time.monotonic() + limit_s
    while (
        left := [member for member in members if member.birth.process() is not None]
    ) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for member in left:
        if (process := member.birth.process()) is not None:
            _signal(process, kill=True)


def _signal(process: psutil.Process, *, kill: bool) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill() if kill else process.terminate()
