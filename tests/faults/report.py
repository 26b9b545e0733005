"""The table at the end of a run under faults: what was endured, beside what was lost."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

ROWS = pytest.StashKey[list[dict]]()
_NAME = "endured"


@pytest.fixture
def endured(request: pytest.FixtureRequest) -> Callable[[dict], None]:
    """Adds a row to the table."""
    return request.config.stash.setdefault(ROWS, []).append


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker process hands its rows to the one that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_NAME] = session.config.stash.get(ROWS, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended."""
    node.config.stash.setdefault(ROWS, []).extend(getattr(node, "workeroutput", {}).get(_NAME, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A table for each kind of row."""
    kinds: dict[tuple[str, ...], list[dict]] = {}
    for row in terminalreporter.config.stash.get(ROWS, []):
        kinds.setdefault(tuple(row), []).append(row)
    text = io.StringIO()
    for columns, rows in kinds.items():
        table = Table(*columns, title="runs under faults")
        for row in rows:
            table.add_row(*map(str, row.values()))
        Console(file=text, width=150).print(table)
    terminalreporter.write(text.getvalue())
