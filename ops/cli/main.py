"""The command `troupe`: its verbs, and how it ends."""

from __future__ import annotations

import os
import sys

import typer

from ops.cli.errors import report
from ops.cli.lazy import LazyGroup, Verb
from schemas.errors import TroupeError


class Verbs(LazyGroup):
    """All verbs."""

    table = {
        "up": Verb("ops.cli.up:up", "Start Kafka, the coordinator and the agents, and watch over them."),
        "down": Verb("ops.cli.system:down", "Stop a running system."),
        "ps": Verb("ops.cli.system:ps", "List the processes of a running system."),
        "run": Verb("ops.cli.run:run", "Host the agents of a Python file."),
        "submit": Verb("ops.cli.tasks:submit", "Submit a task by pattern, capability or agent."),
        "status": Verb("ops.cli.tasks:status", "Show a task with its history and decisions."),
        "explain": Verb("ops.cli.explain:explain", "Show why a task went where it went, or why it waits."),
        "cancel": Verb("ops.cli.cancel:cancel", "Cancel a task."),
        "agents": Verb("ops.cli.agents:agents", "List the agents."),
        "topics": Verb("ops.cli.topics:app", "List topics, or show their records decoded."),
        "schemas": Verb("ops.cli.schemas:app", "List the record schemas, or serve them over HTTP."),
        "topology": Verb("ops.cli.topology:app", "Create and check the topics, or print the wiring."),
        "doctor": Verb("ops.cli.doctor:doctor", "Look for what is wrong, and say what to do about it."),
        "demo": Verb("ops.cli.demo:demo", "A tour: real work on a real Kafka, then nothing is left running."),
        "bench": Verb("ops.cli.bench:app", "Measure."),
        "role": Verb("ops.cli.role:app", "Run one role; the supervisor does.", hidden=True),
    }


app = typer.Typer(cls=Verbs, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _root() -> None:
    """An event-driven actor system over Apache Kafka: agents are actors, their work is routed and explained."""


def main() -> None:
    """Entry of the command. Exit codes: 0 success, 1 failure, 2 wrong use."""
    try:
        app(prog_name="troupe")
    except TroupeError as error:
        sys.exit(report(error))
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Without this the interpreter complains while it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
