"""Verbs that are imported when they are called.

Some verbs need a Kafka client, one role needs Faust; `troupe --help`, and each role, should pay for neither more than
they use. So a group holds a table of names, and this is the one place where a name becomes a module.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Verb:
    """Where a verb is: `module:attribute`, a function or a Typer of sub-verbs; and its line in the help."""

    target: str
    help: str
    hidden: bool = False

    def load(self, name: str) -> Any:
        """Import the verb's module and make its command."""
        module, _, attribute = self.target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command(name)(found)
            found = single
        return typer.main.get_command(found)


class LazyGroup(TyperGroup):
    """A group over a table of verbs; its help is made from the table alone."""

    table: ClassVar[Mapping[str, Verb]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """Return what the help shows of a verb, None if there is no such verb."""
        verb = self.table.get(cmd_name)
        return None if verb is None else TyperCommand(cmd_name, help=verb.help, hidden=verb.hidden)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Replace a verb that is called by the real command."""
        name, command, rest = super().resolve_command(ctx, args)
        return (name, command, rest) if name is None else (name, self.table[name].load(name), rest)
