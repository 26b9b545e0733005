"""`troupe cancel`: end a task before it ends by itself."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from ops.cli.options import AsJson, Broker, Config, Data, Sets, running_settings
from ops.cli.show import print_json, say
from ops.client import Client
from ops.logs import quiet_libraries
from ops.views.cancel import Cancelled, CancelOutcome
from schemas.errors import OperatorError
from schemas.settings import Settings

Reason = Annotated[str | None, typer.Option("--reason", help="Why; `troupe explain` shows it.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is decided; else only until Kafka has it.")]
WaitSeconds = Annotated[float, typer.Option("--wait-seconds", min=0, help="Longest wait.")]

HINTS = {
    CancelOutcome.ALREADY_FINISHED: "see how it ended: `troupe status {task}`",
    CancelOutcome.NOT_FOUND: "check the id; one that ended more than tasks.keep_finished_seconds ago is not known any more",
    CancelOutcome.REFUSED: "see `troupe status {task}`",
    CancelOutcome.UNDECIDED: "is a coordinator running? see `troupe ps`, later `troupe status {task}`",
}
"""What to do next, by outcome."""


def cancel(
    task_id: Annotated[str, typer.Argument(metavar="TASK_ID")],
    reason: Reason = None,
    wait: Wait = True,
    wait_seconds: WaitSeconds = 10.0,
    broker: Broker = None,
    data: Data = None,
    config: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a task; exit code 1 unless it is cancelled then."""
    quiet_libraries()
    settings = running_settings(broker, data, config, sets)
    if not wait:
        position = asyncio.run(_wish(settings, task_id, reason))
        document: dict[str, Any] = {"task_id": task_id, "outcome": "sent", "message": f"The wish is at {position}."}
        print_json(document) if as_json else say(f"Asked for it: {position}. See `troupe status {task_id}`")
        return
    found = asyncio.run(_cancel(settings, task_id, reason, wait_seconds))
    if as_json:
        print_json(found.document())
    if not found.done:
        raise OperatorError(found.message, hint=HINTS[found.outcome].format(task=task_id))
    if not as_json:
        print(found.message)


async def _wish(settings: Settings, task_id: str, reason: str | None) -> str:
    async with Client(settings, "cli") as client:
        return (await client.ask_cancel(task_id, reason)).position


async def _cancel(settings: Settings, task_id: str, reason: str | None, limit_s: float) -> Cancelled:
    async with Client(settings, "cli") as client:
        return await client.cancel(task_id, reason, limit_s)
