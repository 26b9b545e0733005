"""The README, done: its files are written as they stand there, its commands are run, its answers are awaited."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ops.cli.roles import troupe_command
from tests.e2e.conftest import Visitor, running
from tests.e2e.foreign.clients import registry_served

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:9092"


def block(words: str) -> str:
    """The first Python block that has these words in it."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return next(text for text in blocks if words in text)


def test_the_first_task(system: Visitor) -> None:
    written = re.search(r"echo '(\{\"points\".*?)' > points.json", README, re.DOTALL)
    assert written is not None
    (system.root / "points.json").write_text(written[1])
    told = system.json("submit", "detect_anomalies", "--payload", "@points.json", "--task-id", "first", "--wait")
    assert (told["status"], [each["index"] for each in told["result"]["anomalies"]]) == ("completed", [9])
    assert system.json("status", "first") == told
    assert system.json("submit", "detect_anomalies", "--payload", "@points.json", "--task-id", "first", "--wait") == told
    events = system.troupe("topics", "tail", "tasks.events", "--json", "--limit", "2").splitlines()
    assert json.loads(events[0])["value"]["decision"]["chosen"] == "anomaly_detection_agent"
    assert {each["agent_id"] for each in system.json("agents")} >= {"anomaly_detection_agent", "data_ingestion_agent"}


def test_an_agent_of_ones_own(system: Visitor) -> None:
    (system.root / "underwriting.py").write_text(block("underwriting_agent"))
    other = block("underwriting_agent").replace("underwriting_agent", "other_agent")
    (system.root / "other.py").write_text(other.replace("risk_assessment", "other_work"))
    written = re.search(r"echo '(\{\"applicant_id\".*?)' > application.json", README)
    assert written is not None
    (system.root / "application.json").write_text(written[1])
    with running(system, "underwriting.py"), running(system, "other.py"):
        for word in ("risk_assessment", "other_work", "risk_assessment"):
            told = system.json("submit", word, "--payload", "@application.json", "--wait")
            assert told["result"] == {"grade": "C", "reason": "362 of loan per point of score"}
        wrong = json.dumps(json.loads(written[1]) | {"loan_amount": -1})
        told = system.json("submit", "risk_assessment", "--payload", wrong, "--wait", code=1)
        assert (told["status"], told["attempts"]) == ("failed", 1)
        assert told["error"]["message"] == "loan_amount: Input should be greater than 0"
    (system.root / "test_underwriting.py").write_text(block("def test_good_scores"))
    assert "1 passed" in system.call(sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "test_underwriting.py")


def test_other_peoples_clients(system: Visitor) -> None:
    address = next(each["addresses"][0] for each in system.json("ps") if each["role"] == "broker")
    for name, words in (("produce.py", "Producer("), ("consume.py", "schemaless_reader(")):
        (system.root / name).write_text(block(words).replace(ADDRESS, address))
    system.call(sys.executable, "produce.py")
    told = until_finished(system, "from-elsewhere")
    assert (told["status"], told["result"]["insufficient_data"]) == ("completed", True)
    assert "'task_id': 'from-elsewhere'" in system.call(sys.executable, "consume.py")


def test_the_stock_serializers_of_another_client(system: Visitor) -> None:
    address = next(each["addresses"][0] for each in system.json("ps") if each["role"] == "broker")
    with registry_served(system) as url:
        program = block("AvroSerializer").replace(ADDRESS, address).replace("http://127.0.0.1:8081", url)
        (system.root / "serializers.py").write_text(program)
        assert system.call(sys.executable, "serializers.py").startswith("completed {")


def test_the_client_from_python(system: Visitor) -> None:
    (system.root / "ask.py").write_text(block("from ops.client import"))
    *events, result = system.call(sys.executable, "ask.py").splitlines()
    assert events == ["assigned anomaly_detection_agent", "completed anomaly_detection_agent"]
    assert "'index': 9" in result and "'count': 1" in result


def until_finished(system: Visitor, task_id: str) -> dict[str, object]:
    """`troupe status` until the task is done; a submit elsewhere says nothing about when it is seen here."""
    for _ in range(40):
        done = subprocess.run(
            troupe_command("status", task_id, "--json"), env=system.environ, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            found: dict[str, object] = json.loads(done.stdout)
            return found
    raise AssertionError(done.stdout + done.stderr)
