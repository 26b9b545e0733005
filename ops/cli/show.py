"""What verbs print: JSON for programs, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

PIPE_COLUMNS = 240


def print_json(value: Any) -> None:
    """Write one JSON document and a line end to stdout, and nothing else."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """Print a table to stdout; None shows as nothing. Names in the first column are never cut."""
    table = Table(title=title or None, title_justify="left", show_edge=False, pad_edge=False, show_header=any(columns))
    for at, name in enumerate(columns):
        table.add_column(name, no_wrap=at == 0, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console(highlight=False, markup=False)
    # A pipe or a file has no width: rich would take 80 columns and fold what nobody asked it to.
    Console(highlight=False, markup=False, width=None if console.is_terminal else PIPE_COLUMNS).print(table)


def say(text: str) -> None:
    """Tell a person something, on stderr."""
    print(text, file=sys.stderr, flush=True)
