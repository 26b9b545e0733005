"""`troupe explain`: why a task went where it went, or why it waits."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ops.cli.options import AsJson, Broker, Config, Data, Sets, running_settings
from ops.cli.show import print_json, print_table
from ops.client import Client
from ops.logs import quiet_libraries
from ops.views.explain import (
    CANDIDATE_COLUMNS,
    Explanation,
    Step,
    candidate_rows,
    decision_line,
    excluded_line,
    explanation,
)
from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.tasks import TaskEventKind


def explain(
    task_id: Annotated[str, typer.Argument(metavar="TASK_ID")],
    broker: Broker = None,
    data: Data = None,
    config: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Show every routing decision of a task: who was considered, who was left out and why, and who was chosen."""
    quiet_libraries()
    explained = asyncio.run(_explained(running_settings(broker, data, config, sets), task_id))
    if explained is None:
        raise OperatorError(
            f"Task '{task_id}' not found",
            hint="check the id (`troupe submit` prints it); `troupe topics tail tasks.events` shows what happened lately",
        )
    if as_json:
        print_json(explained.document())
        return
    _show(explained)


async def _explained(settings: Settings, task_id: str) -> Explanation | None:
    async with Client(settings, "cli") as client:
        found = await client.status(task_id)
        if found is None:
            return None
        wishes: dict[str, str] = {}
        for event in found.history:
            wish = await client.cause(event) if event.kind is TaskEventKind.CANCELLED else None
            if wish is not None and wish.reason:
                wishes[event.event_id] = wish.reason
        return explanation(found, wishes)


def _show(explained: Explanation) -> None:
    head = [("task", explained.task_id), ("status", explained.status), ("asks for", explained.asked or None)]
    print_table(("", ""), [*head, ("now", explained.now)])
    for step in explained.steps:
        print()
        _show_step(step)


def _show_step(step: Step) -> None:
    attempt = f", attempt {step.attempt}" if step.attempt else ""
    print(f"{step.at} {step.kind}{attempt}" + (f": {step.text}" if step.text else ""))
    decision = step.decision
    if decision is None:
        return
    print(f"  {decision_line(decision)}")
    rows = list(candidate_rows(decision))
    if rows:
        told = [at for at in range(len(CANDIDATE_COLUMNS)) if any(row[at] not in (None, "") for row in rows)]
        print_table([CANDIDATE_COLUMNS[at] for at in told], [[row[at] for at in told] for row in rows])
    else:
        print("  no candidates")
    counted = excluded_line(decision)
    if counted is not None:
        print(f"  {counted}")
