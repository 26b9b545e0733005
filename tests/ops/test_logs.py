"""Logs: one JSON object a line, in one shape, whoever speaks; no secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from ops.logs import LIBRARIES, Throttle, configure_logging


@pytest.fixture
def root() -> Iterator[None]:
    """Puts logging back as the test runner had it."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.usefixtures("root")
def test_ours_and_the_libraries_words_have_one_shape() -> None:
    stream = io.StringIO()
    configure_logging("info", stream)
    structlog.get_logger().info("task_completed", task_id="t", api_key="k", Password="p")
    logging.getLogger("aiokafka.consumer").warning("lost %s", 3)
    logging.getLogger("aiokafka.consumer").info("each step")
    structlog.get_logger().debug("hidden")
    first, second = lines(stream)
    assert list(first)[:3] == ["event", "level", "timestamp"]
    assert first["timestamp"].endswith("Z")
    assert len(first["timestamp"]) == len("2026-01-01T00:00:00.000000Z")
    assert (first["event"], first["task_id"], first["api_key"], first["Password"]) == (
        "task_completed",
        "t",
        "***",
        "***",
    )
    assert (second["event"], second["level"], second["logger"]) == ("lost 3", "warning", "aiokafka.consumer")


@pytest.mark.usefixtures("root")
def test_exceptions_are_code_message_and_stack() -> None:
    stream = io.StringIO()
    configure_logging("info", stream)
    for log in (structlog.get_logger(), logging.getLogger("a.library")):
        try:
            raise ValueError("no")
        except ValueError:
            log.exception("broken")
    for line in lines(stream):
        assert line["error"]["code"] == "internal_error"
        assert line["error"]["message"] == "no"
        assert "ValueError" in line["error"]["stack"]


@pytest.mark.usefixtures("root")
def test_the_level_is_the_lowest_written() -> None:
    stream = io.StringIO()
    configure_logging("error", stream)
    structlog.get_logger().warning("hidden")
    logging.getLogger("aiokafka").warning("hidden")
    logging.getLogger("other").warning("hidden")
    structlog.get_logger().error("shown")
    assert [line["event"] for line in lines(stream)] == ["shown"]


def test_a_library_says_the_same_only_once_in_a_while() -> None:
    now = [0.0]
    throttle = Throttle(10.0, lambda: now[0])

    def passes(name: str, text: str, *values: object) -> bool:
        return throttle.filter(logging.LogRecord(name, logging.ERROR, "", 0, text, values, None))

    assert passes("aiokafka.conn", "no node %s", 1)
    assert not passes("aiokafka.conn", "no node %s", 2)
    assert passes("aiokafka.conn", "another")
    assert passes("coordinator", "stopped") and passes("coordinator", "stopped"), "ours are all written"
    now[0] = 10.0
    assert passes("aiokafka.conn", "no node %s", 3)
