"""Every example is run as its first lines say, against one running system, and prints what they say it prints."""

from __future__ import annotations

import ast
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from actors.catalog.asking import Wish
from ops.examples.underwriting import Application
from ops.roles.asking import Asking
from schemas.settings import Kafka, Settings
from tests.e2e.conftest import Visitor, running

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).resolve().parents[2] / "ops" / "examples"
FILES = sorted(EXAMPLES.glob("[0-9][0-9]_*.py"))
LINES_MAX = 120
OFFLINE_S = 15.0
"""Longest time, commands included, until an agent whose host was stopped is offline; three heartbeats are 30 s."""


def header(file: Path) -> str:
    """What the example says of itself."""
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def promised(text: str) -> list[str]:
    """The output that a header promises: the indented block after `prints`."""
    found = re.search(r"^prints\n\n((?: {4}.*\n?|\n)+)", text, re.MULTILINE)
    assert found is not None, "a header says what its example prints"
    return [line.removeprefix("    ") for line in found[1].rstrip().splitlines()]


def test_there_are_five_and_each_is_short() -> None:
    assert [file.name[:3] for file in FILES] == ["01_", "02_", "03_", "04_", "05_"]
    assert {file.name: lines for file in FILES if (lines := len(file.read_text().splitlines())) >= LINES_MAX} == {}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """A system as anybody starts it; on a busy machine its agents need some of their time to appear."""
    made = Visitor(tmp_path_factory.mktemp("examples") / "visitor")
    made.troupe("up", "--detach", "--data", "data")
    yield made
    made.troupe("down")
    assert made.left() == []


def test_the_third_says_that_its_agent_was_never_there(everything: Visitor) -> None:
    (third,) = (file for file in FILES if file.name.startswith("03_"))
    told = everything.call(sys.executable, str(third), code=1).splitlines()
    assert told[:2] == ["busy_once", "  failed: Unknown pattern 'trade' (unknown_pattern)"]
    assert f"troupe run ops/examples/{third.name}" in told[2] and len(told) == 3


@pytest.mark.parametrize("number", ["01", "02", "05"])
def test_it_says_that_its_agent_was_never_there(everything: Visitor, number: str) -> None:
    (file,) = (file for file in FILES if file.name.startswith(number))
    told = everything.call(sys.executable, str(file), code=1).splitlines()
    assert "Traceback" not in "\n".join(told)
    assert told[-2].startswith("Error: ") and told[-1].startswith("Hint: ")
    assert re.search(r"troupe run ops/examples/\S+\.py", told[-1])[0] in header(file)  # type: ignore[index]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_without_a_system_it_says_so(tmp_path: Path, file: Path) -> None:
    told = Visitor(tmp_path / "nobody").call(sys.executable, str(file), code=1).splitlines()
    assert told[0] == "Error: No system runs on this machine" and "troupe up" in told[1] and len(told) == 2


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_prints_what_it_says(everything: Visitor, file: Path) -> None:
    text = header(file)
    assert f"python ops/examples/{file.name}" in text
    hosted = re.search(r"troupe run ops/examples/(\S+)", text)
    with running(everything, str(EXAMPLES / hosted[1])) if hosted else nullcontext():
        printed = everything.call(sys.executable, str(file))
    assert printed.splitlines() == promised(text)


def test_the_dead_letter_of_the_third_holds_its_request(everything: Visitor) -> None:
    (line,) = everything.troupe("topics", "tail", "tasks.deadletters", "--json", "--limit", "1").splitlines()
    assert json.loads(line)["value"]["error"]["message"] == "ZeroDivisionError: division by zero"


def test_without_its_agent_it_says_what_to_start(everything: Visitor) -> None:
    """Its host was stopped: the registry knows that at once, so a task waits and fails nobody."""
    (third,) = (file for file in FILES if file.name.startswith("03_"))
    with running(everything, str(third)):
        pass
    deadline = time.monotonic() + OFFLINE_S
    while {each["agent_id"]: each["state"] for each in everything.json("agents")}["trading_agent"] != "offline":
        assert time.monotonic() < deadline, "it is not waited for heartbeats"
        time.sleep(0.2)
    told = everything.call(sys.executable, str(third), code=1).splitlines()
    assert told[0] == "busy_once" and "has no outcome after 15 s" in told[1]
    assert f"troupe run ops/examples/{third.name}" in told[2] and len(told) == 3
    (first,) = (file for file in FILES if file.name.startswith("01_"))
    told = everything.call(sys.executable, str(first), code=1).splitlines()
    assert "has no outcome after 15 s" in told[0] and told[1].startswith("Hint: ")
    assert "`troupe run ops/examples/underwriting.py`" in told[1] and len(told) == 2


def test_the_agent_of_the_first_takes_and_refuses_what_its_model_says(everything: Visitor) -> None:
    schema = Application.model_json_schema()
    payload = json.dumps({"schema": schema, "options": {"TestCount": 40, "target": "risk_assessment"}})
    with running(everything, str(EXAMPLES / "underwriting.py")):
        result = everything.json("submit", "generate_tests", "--payload", payload, "--wait")["result"]
    assert (result["generated"], result["passed"], result["failed"]) == (40, 40, 0), result["cases"]
    strict = schema | {"properties": schema["properties"] | {"credit_score": {"type": "integer", "minimum": 400}}}
    payload = json.dumps({"schema": strict, "target": "nobody_at_all"})
    result = everything.json("submit", "generate_tests", "--payload", payload, "--wait")["result"]
    assert (result["passed"], result["failed"]) == (0, 10)
    assert "Unknown pattern 'nobody_at_all'" in result["cases"][0]["message"]


def test_asking_again_finds_what_was_answered_before(everything: Visitor) -> None:
    address = next(each["addresses"][0] for each in everything.json("ps") if each["role"] == "broker")
    asking = Asking(Settings(kafka=Kafka(bootstrap_servers=address)))
    wishes = [
        Wish("asked-1", "detect_anomalies", {"points": []}),
        Wish("asked-2", "detect_anomalies", {"points": 7}),
    ]
    first = asking(wishes, "parent", 60.0)
    assert [(answer.status, answer.code) for answer in first if answer] == [
        ("completed", ""),
        ("failed", "invalid_input"),
    ]
    assert asking(wishes, "parent", 60.0) == first
    assert asking([Wish("asked-3", "nobody_offers_this", {})], "parent", 0.5) == [None]
