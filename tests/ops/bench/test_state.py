"""The measure of open tasks, small: what it counts is there, and the tasks stay open across the kill."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ops.cli.roles import environ_with_sources, troupe_command
from schemas.settings import process_environment

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def test_open_tasks_take_room_and_survive_a_takeover(broker: str, tmp_path: Path) -> None:
    environ = environ_with_sources(process_environment()) | {"XDG_STATE_HOME": str(tmp_path)}
    arguments = [
        "--tasks",
        "400",
        "--payload-bytes",
        "2000",
        "--broker",
        broker,
        "--set",
        "kafka.partitions=2",
        "--json",
    ]
    command = troupe_command("bench", "state", *arguments)
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=250, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["first_tasks"], found["tasks"], found["payload_bytes"]) == (100, 400, 2000)
    assert set(found["memory_bytes_per_open_task"]) == {"coordinator", "actors"}
    assert 2000 < found["table_bytes_per_open_task"] < 20_000  # a row holds its payload as long as it is open
    assert found["log_bytes_per_open_task"] is None
    assert found["takeover_s"] > 0
