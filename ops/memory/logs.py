"""Where the words of a rehearsal go: to standard logging, where pytest shows them with the test that failed.

structlog's own default draws a page for each exception. So, only as long as nobody has configured it, what agents and the
system say is handed to `logging` in one line, the traceback as `logging` likes it.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog


@contextmanager
def plain_logs() -> Iterator[None]:
    """Through `logging` inside the block, as before after it."""
    if structlog.is_configured():
        yield
        return
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _one_line],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()


def _one_line(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    info = fields.pop("exc_info", None)
    words = [str(fields.pop("event", "")), *(f"{name}={value!r}" for name, value in fields.items())]
    return (" ".join(words),), {"exc_info": info}
