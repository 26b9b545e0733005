"""A whole system from the command line: up, work, kills, down; and nothing left behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ops.cli.roles import environ_with_sources, troupe_command

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

POINTS = {
    "points": [{"series": "s", "timestamp": at, "value": value} for at, value in enumerate([1.0, 2, 3] * 5 + [90])]
}

AGENT = """
from pydantic import BaseModel
from actors import Actor, Context

class Pair(BaseModel):
    a: int
    b: int

class Sum(BaseModel):
    sum: int

async def add(pair: Pair, ctx: Context) -> Sum:
    return Sum(sum=pair.a + pair.b)

def agents():
    return [Actor("adder", add, capabilities=["addition"])]
"""


class Installation:
    """The command with a state directory and a data directory of its own."""

    def __init__(self, root: Path) -> None:
        self.environ = environ_with_sources(os.environ | {"XDG_STATE_HOME": str(root / "state")})
        self.data = root / "data"
        self.root = root

    def run(self, *arguments: str, code: int = 0) -> str:
        found = subprocess.run(
            troupe_command(*arguments), env=self.environ, cwd=self.root, capture_output=True, text=True, timeout=200,
            check=False,
        )  # fmt: skip
        assert found.returncode == code, f"{arguments}: {found.stdout}\n{found.stderr}"
        return found.stdout if code in (0, 1) and found.stdout else found.stderr

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code))

    def up(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = self.json("up", "--detach", "--data", str(self.data), *arguments)
        return found

    def pids(self) -> dict[str, int]:
        return {each["role"]: each["pid"] for each in self.json("ps") if each["state"] == "running"}

    def processes(self) -> list[psutil.Process]:
        """Every process whose command line or environment names the data directory."""
        return [process for process in psutil.process_iter() if _mentions(process, str(self.data))]

    def until(self, what: Callable[[], bool], limit_s: float = 60.0) -> None:
        deadline = time.monotonic() + limit_s
        while not what():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(f"{file.name}:\n{file.read_text()[-3000:]}" for file in self.data.glob("logs/*.log"))


def _mentions(process: psutil.Process, text: str) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        words = [*process.cmdline(), process.environ().get("TROUPE_DATA_DIR", "")]
    except psutil.Error:
        return False
    return any(text in word for word in words)


@pytest.fixture
def troupe(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    yield made
    made.run("down")
    for process in made.processes():
        process.kill()


def test_work_from_the_command_line(troupe: Installation) -> None:
    up = troupe.up()
    assert [each["role"] for each in up["processes"]] == ["supervisor", "broker", "coordinator", "actors"]
    assert troupe.json("ps") == up["processes"]
    assert troupe.json("topology", "apply")["created"] == [], "it takes the partition count of the running system"
    assert "already runs" in troupe.run("up", "--data", str(troupe.data), code=1)

    (troupe.root / "points.json").write_text(json.dumps(POINTS))
    done = troupe.json("submit", "detect_anomalies", "--payload", "@points.json", "--wait")
    assert done["status"] == "completed"
    assert done["result"]["anomalies"]
    assert [each["to_state"] for each in done["history"]][-1] == "completed"
    assert troupe.json("status", done["task_id"]) == done

    events = [
        json.loads(line) for line in troupe.run("topics", "tail", "tasks.events", "--json", "--limit", "5").splitlines()
    ]
    assert set(events[0]) == {"topic", "partition", "offset", "key", "timestamp", "headers", "schema", "value"}
    assert [event["value"]["decision"]["chosen"] for event in events if event["value"]["decision"]] == [done["agent"]]

    unknown = troupe.json("submit", "xyz", "--wait", "--set", "routing.grace_seconds=0", code=1)
    assert (unknown["status"], unknown["error"]["message"]) == ("failed", "Unknown pattern 'xyz'")
    assert "Task 'nope' not found" in troupe.run("status", "nope", code=1)

    agents = {each["agent_id"]: each for each in troupe.json("agents")}
    assert set(agents["anomaly_detection_agent"]) == {
        "agent_id", "status", "state", "last_outcome", "breaker", "in_flight", "capabilities", "patterns",
    }  # fmt: skip
    assert agents["anomaly_detection_agent"]["status"] == "completed"
    assert agents["anomaly_detection_agent"]["state"] == "up"
    assert agents["anomaly_detection_agent"]["last_outcome"] == "completed"
    assert agents["anomaly_detection_agent"]["patterns"] == ["detect_anomalies"]

    (troupe.root / "adder.py").write_text(AGENT)
    own = subprocess.Popen(troupe_command("run", "adder.py"), env=troupe.environ, cwd=troupe.root)
    try:
        troupe.until(lambda: "adder" in {each["agent_id"] for each in troupe.json("agents")})
        added = troupe.json("submit", "addition", "--payload", '{"a": 1, "b": 2}', "--wait")
        assert (added["agent"], added["result"]) == ("adder", {"sum": 3})
        wrong = troupe.json("submit", "--agent", "adder", "--payload", '{"a": 1}', "--wait", code=1)
        assert wrong["error"]["code"] == "invalid_input"
    finally:
        own.send_signal(signal.SIGINT)
        assert own.wait(30) == 0

    troupe.run("down")
    assert troupe.json("ps") == []
    assert troupe.processes() == []


def test_what_is_killed_comes_back_and_nothing_survives_its_supervisor(troupe: Installation) -> None:
    troupe.up()
    for role in ("coordinator", "actors", "broker"):
        before = troupe.pids()
        os.kill(before[role], signal.SIGKILL)
        troupe.until(lambda role=role, before=before: troupe.pids().get(role, before[role]) != before[role])
    done = troupe.json("submit", "detect_anomalies", "--payload", json.dumps(POINTS), "--wait")
    assert done["status"] == "completed"
    os.kill(troupe.pids()["supervisor"], signal.SIGKILL)
    troupe.until(lambda: troupe.processes() == [])
    assert troupe.json("ps") == []

    # The same directory goes on where it was.
    troupe.up("--only", "coordinator")
    assert troupe.json("status", done["task_id"]) == done


def test_a_system_that_cannot_start_says_why_and_leaves_nothing(troupe: Installation) -> None:
    (troupe.root / "broken.py").write_text("import no_such_module\n")
    found = troupe.run("up", "--detach", "--data", str(troupe.data), "--agents", "broken.py", code=1)
    assert "no_such_module" in found
    assert "Hint: " in found
    assert troupe.json("ps") == []
    assert troupe.processes() == []


def test_a_supervisor_that_hangs_is_killed_in_the_end(troupe: Installation) -> None:
    troupe.up("--only", "coordinator")
    os.kill(troupe.pids()["supervisor"], signal.SIGSTOP)
    troupe.run("down", "--timeout", "1")
    assert troupe.json("ps") == []
    troupe.until(lambda: troupe.processes() == [], 10)


def test_ctrl_c_stops_it_all(troupe: Installation) -> None:
    with (troupe.root / "out").open("w") as out:
        command = troupe_command("up", "--data", str(troupe.data), "--only", "coordinator")
        process = subprocess.Popen(command, env=troupe.environ, stdout=out, stderr=out)
    troupe.until(lambda: "Ctrl-C" in (troupe.root / "out").read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert troupe.json("ps") == []
    assert troupe.processes() == []


def test_nothing_stays_of_a_system_that_was_killed_while_its_kafka_started(troupe: Installation) -> None:
    command = troupe_command("up", "--data", str(troupe.data))
    started = subprocess.Popen(command, env=troupe.environ, cwd=troupe.root, stdin=subprocess.DEVNULL)
    troupe.until(lambda: any("java" in process.name() for process in troupe.processes()))
    time.sleep(0.2)  # it is guarded a moment after it is launched, long before it is ready
    started.kill()
    started.wait()
    troupe.until(lambda: not troupe.processes())
