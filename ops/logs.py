"""Logs as one JSON object per line, for our own events and for those of the libraries alike.

Operators search logs by field, so everything a process says goes through one shape: what structlog is told and what
Faust or aiokafka say through the standard library. Fields whose name speaks of a secret are masked here, at the last
moment, so that no caller has to remember.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

SECRET_WORDS = ("password", "secret", "token", "api_key", "credentials")
"""A field whose name contains one of these is masked."""

LIBRARIES = (
    "aiokafka", "faust", "mode", "asyncio", "streams.runtime.faust_app",
    "streams.runtime.faust_consumer", "streams.runtime.faust_fetching", "streams.runtime.store",
)
"""They tell each step at level info; ours is what operators look for, so theirs begins at warning."""

_MASK = "***"
_AGAIN_S = 10.0
_KNOWN_MESSAGES = 256
_Fields = MutableMapping[str, Any]


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Send the logs of this process to `stream` (standard error), from `level` up."""
    shared: list[Any] = [structlog.contextvars.merge_contextvars, _level, _timestamp, _mask]
    structlog.configure(
        processors=[*shared, _error, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _error],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _ordered_json()],
        )
    )
    if level != "debug":
        for name in LIBRARIES:
            logging.getLogger(name).setLevel(max(logging.WARNING, getattr(logging, level.upper())))
    handler.addFilter(Throttle(_AGAIN_S))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class Throttle(logging.Filter):
    """Lets each message of a library through once in a while: aiokafka says ten times a second that a broker is away."""

    def __init__(self, again_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """A message, known by its logger and its text without arguments, may come again after `again_s` seconds."""
        super().__init__()
        self._again_s, self._clock = again_s, clock
        self._next: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.name.partition(".")[0] not in LIBRARIES or record.levelno > logging.ERROR:
            return True
        now, known = self._clock(), (record.name, str(record.msg))
        if now < self._next.get(known, 0.0):
            return False
        if len(self._next) >= _KNOWN_MESSAGES:
            self._next.clear()
        self._next[known] = now + self._again_s
        return True


def quiet_libraries() -> None:
    """Keep the libraries' own words off the terminal: a verb reports each error itself, in one line."""
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _ordered_json() -> Any:
    render = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)

    def ordered(logger: Any, method: str, fields: _Fields) -> Any:
        first = {name: fields.pop(name) for name in ("event", "level", "timestamp") if name in fields}
        return render(logger, method, first | dict(fields))

    return ordered


def _level(_logger: Any, method: str, fields: _Fields) -> _Fields:
    record = fields.get("_record")
    fields["level"] = (record.levelname if record is not None else method).lower()
    if record is not None and fields.get("_from_structlog") is False:
        fields["logger"] = record.name
    return fields


def _timestamp(_logger: Any, _method: str, fields: _Fields) -> _Fields:
    fields["timestamp"] = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return fields


def _mask(_logger: Any, _method: str, fields: _Fields) -> _Fields:
    for name in fields:
        if any(word in name.lower() for word in SECRET_WORDS):
            fields[name] = _MASK
    return fields


def _error(logger: Any, method: str, fields: _Fields) -> _Fields:
    """Turn an exception into `error{code, message, stack}`."""
    info = fields.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    elif isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if info and info[1] is not None:
        stack = structlog.processors.ExceptionRenderer()(logger, method, {"exc_info": info})["exception"]
        fields["error"] = {"code": getattr(info[1], "code", "internal_error"), "message": str(info[1]), "stack": stack}
    return fields
