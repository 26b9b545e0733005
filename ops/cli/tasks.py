"""`troupe submit` and `troupe status`: give work to the system, and see what became of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ops.cli.errors import TASK_HINTS, WrongUse
from ops.cli.options import AsJson, Broker, Config, Data, Sets, running_settings
from ops.cli.payload import read_payload
from ops.cli.show import print_json, print_table, say
from ops.cli.waiting import Saying
from ops.client import Client
from ops.logs import quiet_libraries
from ops.views.tasks import TaskStatus, instant
from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.tasks import TaskCommand, TaskEvent, TaskState

Word = Annotated[str | None, typer.Argument(metavar="[WORD]", help="A pattern, as --pattern.")]
Pattern = Annotated[str | None, typer.Option("--pattern", help="Route by this pattern.")]
Capability = Annotated[list[str] | None, typer.Option("--capability", help="An agent must offer it; repeatable.")]
Agent = Annotated[str | None, typer.Option("--agent", help="This very agent.")]
Kind = Annotated[str, typer.Option("--type", help="Type of the task.")]
Payload = Annotated[str | None, typer.Option("--payload", metavar="JSON|@FILE|-", help="Input of the agent.")]
TaskId = Annotated[str | None, typer.Option("--task-id", help="An id of your own; a repeat of it does nothing.")]
Priority = Annotated[int | None, typer.Option("--priority", min=1, max=5, help="5 is the most urgent.")]
Timeout = Annotated[int | None, typer.Option("--timeout", min=1, help="Seconds for one attempt.")]
Retries = Annotated[int | None, typer.Option("--retries", min=0, max=1000, help="Attempts after the first.")]
ReplyTo = Annotated[str | None, typer.Option("--reply-to", metavar="TOPIC", help="Topic that gets the outcome too.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the outcome; exit code 1 unless completed.")]
WaitSeconds = Annotated[float, typer.Option("--wait-seconds", min=0, help="Longest wait.")]


def submit(
    word: Word = None,
    pattern: Pattern = None,
    capability: Capability = None,
    agent: Agent = None,
    kind: Kind = "",
    payload: Payload = None,
    task_id: TaskId = None,
    priority: Priority = None,
    timeout: Timeout = None,
    retries: Retries = None,
    reply_to: ReplyTo = None,
    wait: Wait = False,
    wait_seconds: WaitSeconds = 60.0,
    broker: Broker = None,
    data: Data = None,
    config: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Submit a task by pattern, capability or agent."""
    quiet_libraries()
    if word is not None and pattern is not None:
        raise WrongUse(f"Two patterns: '{word}' and '{pattern}'", hint="give the pattern once")
    fields: dict[str, Any] = {
        "pattern": word or pattern,
        "required_capabilities": capability or None,
        "agent_id": agent,
        "type": kind,
        "payload": read_payload(payload),
        "task_id": task_id,
        "priority": priority,
        "timeout_seconds": timeout,
        "reply_to": reply_to,
    }
    if not any((fields["pattern"], capability, agent)):
        raise WrongUse("Who is to do it?", hint="name a pattern, or give --capability or --agent; see `troupe agents`")
    settings = running_settings(broker, data, config, sets)
    if retries is not None:
        fields["retry"] = settings.error_recovery.policy().model_copy(update={"max_retries": retries})
    given = {name: value for name, value in fields.items() if value is not None}
    found_id, found = asyncio.run(_submit(settings, given, wait_seconds if wait else None))
    if not wait:
        print_json({"task_id": found_id}) if as_json else print(found_id)
    elif found is None:
        if as_json:
            print_json(_unknown(found_id))
        raise OperatorError(
            f"Task '{found_id}' was accepted by Kafka, and nothing is known of it after {wait_seconds:g} s",
            hint=f"is a coordinator running? see `troupe ps`, later `troupe status {found_id}`",
        )
    else:
        _show(found, as_json)


def status(
    task_id: Annotated[str, typer.Argument(metavar="TASK_ID")],
    broker: Broker = None,
    data: Data = None,
    config: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Show a task with its history and decisions; exit code 1 unless it is completed."""
    quiet_libraries()
    settings = running_settings(broker, data, config, sets)
    found, refused = asyncio.run(_status(settings, task_id))
    if found is None:
        if as_json:
            print_json(_unknown(task_id, [event for event, _ in refused]))
        told = "".join(f"; at {instant(event.decided_at)} {_wish(command)} was refused" for event, command in refused)
        raise OperatorError(f"Task '{task_id}' not found{told}", hint="check the id; `troupe submit` prints it")
    _show(found, as_json)


async def _submit(settings: Settings, fields: dict[str, Any], wait_s: float | None) -> tuple[str, TaskStatus | None]:
    async with Client(settings, "cli") as client:
        task_id = await client.submit(watched=wait_s is not None, **fields)
        if wait_s is None:
            return task_id, None
        try:
            saying = Saying(task_id, settings.monitoring.tell_after_seconds)
            return task_id, await client.wait(task_id, wait_s, saying)
        except asyncio.CancelledError:  # Ctrl-C: the id may be one that nobody has seen yet
            say(f"Task '{task_id}' is submitted, and the task goes on: `troupe status {task_id}`")
            raise


async def _status(
    settings: Settings, task_id: str
) -> tuple[TaskStatus | None, list[tuple[TaskEvent, TaskCommand | None]]]:
    """What is known of a task; of one that is not there what was refused of it."""
    async with Client(settings, "cli") as client:
        found = await client.status(task_id)
        return found, [] if found is not None else await client.refusals(task_id)


def _wish(command: TaskCommand | None) -> str:
    return "a command" if command is None else f"a `{command.kind}` of it"


def _unknown(task_id: str, refused: Sequence[TaskEvent] = ()) -> dict[str, Any]:
    return TaskStatus(task_id=task_id, status=TaskState.UNKNOWN, history=list(refused)).document()


def _show(found: TaskStatus, as_json: bool) -> None:
    """Print a task, and on stderr what to do about it; leaves with exit code 1 unless it is completed."""
    document = found.document()
    if as_json:
        print_json(document)
    else:
        _show_table(document)
    if not found.finished:
        say(f"Task '{found.task_id}' is not finished yet; `troupe explain {found.task_id}` says what it waits for")
    elif found.error is not None and (hint := TASK_HINTS.get(found.error.code)):
        say(f"Hint: {hint.format(task=found.task_id)}")
    raise typer.Exit(0 if found.completed else 1)


def _show_table(document: dict[str, Any]) -> None:
    error = document["error"]
    head = [
        ("task", document["task_id"]),
        ("status", document["status"]),
        ("agent", document["agent"]),
        ("attempts", document["attempts"]),
    ]
    if error is not None:
        head.append(("error", f"{error['message']} ({error['code']})"))
    if document["result"] is not None:
        head.append(("result", json.dumps(document["result"], ensure_ascii=False)))
    print_table(("", ""), head)
    rows = [
        (each["at"], each["kind"], each["to_state"], each["attempt"], each["agent"], _why(each))
        for each in document["history"]
    ]
    print_table(("at", "event", "state", "attempt", "agent", "why"), rows, title="history")


def _why(event: dict[str, Any]) -> str:
    if event["error"] is not None:
        return str(event["error"]["message"])
    decision = event["decision"]
    return str(decision.get("reason", "")) if isinstance(decision, dict) else ""
