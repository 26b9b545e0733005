"""How an example is run: what it lacks is told in two lines, the cause and what to do, and not as a traceback."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from ops.cli.errors import report
from ops.client import NoOutcome, TaskFailed
from schemas.errors import OperatorError, TroupeError


def start(main: Callable[[], Coroutine[Any, Any, None]], agent: str | None = None) -> None:
    """Run `main` to its end. agent: the command that hosts the example's agent, which a task without a result may lack."""
    try:
        asyncio.run(main())
    except TroupeError as error:
        missing = agent is not None and isinstance(error, NoOutcome | TaskFailed)
        hint = (
            f"is its agent there? `{agent}` in another terminal, then this again; `{error.hint}` says what became of it"
        )
        sys.exit(report(OperatorError(str(error), hint=hint) if missing else error))
