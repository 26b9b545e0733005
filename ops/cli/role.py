"""One role in this process: what the supervisor, Compose and Kubernetes start. Each role imports only what it needs."""

from __future__ import annotations

import typer

from ops.cli.lazy import LazyGroup, Verb


class Roles(LazyGroup):
    """The roles that have a process of ours; the broker's is Java."""

    table = {
        "coordinator": Verb("ops.cli.role_coordinator:coordinator", "Run the processors."),
        "actors": Verb("ops.cli.role_actors:actors", "Host agents."),
    }


app = typer.Typer(cls=Roles, add_completion=False, no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Run one role."""
