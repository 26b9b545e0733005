"""`troupe demo`: the tour, on a system of its own in a temporary directory, or with `--offline` in this process alone."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ops.broker.jars import JarCache, ensure_jars
from ops.cli.errors import WrongUse
from ops.cli.options import AsJson
from ops.cli.roles import LOGS, ROLES
from ops.cli.show import print_json
from ops.cli.up import EMBEDDED_PARTITIONS, plan_of
from ops.logs import quiet_libraries
from ops.running import state_home
from ops.supervise import Plan
from ops.tour import tour
from ops.tour_offline import offline_tour
from ops.tour_stage import Stage
from ops.tour_work import Tour
from schemas.errors import OperatorError, TroupeError
from schemas.settings import load_settings, process_environment

Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where the picture goes; unset: over the last one.")]
Offline = Annotated[bool, typer.Option("--offline", help="In memory: no Kafka, no Java, no network, no processes.")]
Stay = Annotated[bool, typer.Option("--stay", help="Leave the system running until Ctrl-C.")]

_GRACE_S = 2.0  # that an agent for an unknown pattern gets to appear


def demo(out: Out = None, stay: Stay = False, offline: Offline = False, as_json: AsJson = False) -> None:
    """A tour: real work on a real Kafka, or offline in this process alone; then nothing is left running."""
    quiet_libraries()
    stage = Stage(Console(quiet=as_json))
    if offline:
        if stay:
            raise WrongUse("--stay and --offline: there is no system to stay", hint="leave one of them out")
        _show_offline(out, stage, as_json)
    else:
        _show(out, stage, stay, as_json)


def _show_offline(out: Path | None, stage: Stage, as_json: bool) -> None:
    settings = load_settings({}, None, {"routing.grace_seconds": _GRACE_S, "kafka.partitions": EMBEDDED_PARTITIONS})
    pictures = _pictures(out)
    try:
        seen = asyncio.run(_until_sigterm(offline_tour(settings, pictures, stage)))
    except TroupeError as error:
        raise OperatorError(f"The tour failed: {error}", hint=error.hint) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(130) from None
    if as_json:
        print_json(seen.document())


def _show(out: Path | None, stage: Stage, stay: bool, as_json: bool) -> None:
    pictures = _pictures(out)
    ensure_jars(JarCache.default())  # before the rest, because this may be a download and shows its progress
    place = Path(tempfile.mkdtemp(prefix="troupe-demo-"))
    plan, keep = _plan(place, stay), False
    try:
        seen = asyncio.run(_until_sigterm(tour(plan, pictures, stage, stay)))
    except TroupeError as error:
        keep = True  # the logs in there are what the reader needs now
        raise OperatorError(f"The tour failed: {error}", hint=f"the logs are in {place / 'data' / LOGS}") from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(130) from None
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)
    if as_json:
        print_json(seen.document())
    if seen.left_running:
        raise OperatorError(f"Processes did not end: {seen.left_running}", hint="end them by hand")


def _pictures(out: Path | None) -> Path:
    """The picture is looked at after the command has ended, so it stays; but there is one of it, not one for each tour."""
    place = out.expanduser().resolve() if out else state_home(process_environment()) / "demo"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"No place for the picture: {error}", hint="troupe demo --out DIR names another") from error
    return place


def _plan(place: Path, stay: bool) -> Plan:
    """A system of default settings, whatever the environment says of others; only less patient, as visitors are.

    Unless it is to stay, other verbs do not see it: they would no longer know which of two systems is meant.
    """
    environ = process_environment()
    chosen = {"data_dir": str(place / "data"), "routing.grace_seconds": _GRACE_S}
    plan = plan_of(load_settings({}, None, chosen), 0, ROLES, ())
    return plan if stay else replace(plan, environ={**environ, "XDG_STATE_HOME": str(place / "state")})


async def _until_sigterm(seeing: Coroutine[Any, Any, Tour]) -> Tour:
    """Run it; SIGTERM ends it as Ctrl-C does, in order."""
    running = asyncio.current_task()
    if running is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await seeing
