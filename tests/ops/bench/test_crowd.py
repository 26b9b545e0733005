"""A small crowd in one host: every agent gets its task, nothing is lost, and each figure is there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from actors.loader import load_agents
from ops.bench.agents_host import CrowdWork, write_crowd
from ops.cli.roles import environ_with_sources, troupe_command
from schemas.settings import process_environment


@pytest.mark.kafka
def test_a_small_crowd(broker: str, tmp_path: Path) -> None:
    arguments = ["--count", "12", "--tasks", "60", "--in-flight", "20", "--idle-seconds", "1", "--broker", broker]
    environ = environ_with_sources(process_environment()) | {"XDG_STATE_HOME": str(tmp_path)}
    command = troupe_command("bench", "agents", *arguments, "--set", "kafka.partitions=2", "--json")
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=150, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["agents"], found["tasks"], found["lost"]) == (12, 60, 0)
    assert found["first_tasks_s"] > 0 and found["start_s"] > 0
    assert 0 < found["result_p50_ms"] <= found["result_p99_ms"]
    for role in ("coordinator", "actors"):
        assert found["start_cpu_s"][role] > 0
        assert found["rss_mb"][role] > 20
        assert {role} <= found["cpu_us_per_task"].keys() & found["idle_cpu_s_per_minute"].keys()
    assert sum(found["cpu_us_per_task"].values()) > 0


def test_each_task_goes_to_one_agent_in_turn(tmp_path: Path) -> None:
    actors = load_agents(write_crowd(tmp_path, 3))
    work = CrowdWork("run", 100, 3)
    words = [work.command(n).required_capabilities for n in range(4)]
    assert words[:3] == [list(actor.capabilities) for actor in actors]
    assert words[3] == words[0]
    assert {work.command(n).pattern for n in range(4)} == {None}
