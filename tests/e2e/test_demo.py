"""The tour as a visitor sees it, and that it leaves nothing, however it ends."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import pytest

from ops.cli.roles import troupe_command
from tests.e2e.conftest import LIMIT_S, Visitor

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

MONTHS = ["2008-11", "2008-12", "2009-01", "2009-02", "2009-03", "2009-04"]


def test_the_tour_finds_the_recession_and_leaves_nothing(visitor: Visitor) -> None:
    seen = visitor.json("demo", "--out", "pictures")
    unknown, ingested, detected = seen["tasks"]
    assert (unknown["status"], unknown["error"]["message"]) == ("failed", "Unknown pattern 'xyz'")
    assert any("Unknown pattern 'xyz'" in (_reason(event) or "") for event in unknown["history"])
    assert ingested["result"]["tables"][0]["rows_mapped"] == 120
    assert [anomaly["timestamp"][:7] for anomaly in detected["result"]["anomalies"]] == MONTHS
    assert _reason(detected["history"][0]).startswith("Chose anomaly_detection_agent: ")
    assert (visitor.root / "pictures" / "anomalies.png").read_bytes().startswith(b"\x89PNG")
    assert seen["picture"] == str(visitor.root / "pictures" / "anomalies.png")
    assert {record["key"] for record in seen["topics"]["tasks.results"]} == {task["task_id"] for task in seen["tasks"]}
    assert seen["left_running"] == []
    assert list((visitor.root / "tmp").glob("troupe-demo-*")) == []


def test_a_tour_leaves_one_picture_and_nothing_else(visitor: Visitor) -> None:
    seen = visitor.json("demo")
    assert seen["picture"] == str(visitor.root / "state" / "troupe" / "demo" / "anomalies.png")
    assert list((visitor.root / "tmp").glob("troupe-*")) == []


def _reason(event: dict[str, Any]) -> Any:
    return event["decision"] and event["decision"]["reason"]


def test_people_see_events_result_topics_and_tools(visitor: Visitor) -> None:
    told = visitor.troupe("demo")
    for words in (
        "submit ingest_data", "completed: assigned -> completed", "Chose data_ingestion_agent: ", "Unknown pattern 'xyz'",
        "2009-03", "anomalies.png", "agents.registry", "kcat -b ", "nothing is left running",
    ):  # fmt: skip
        assert words in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_tour_that_is_interrupted_leaves_nothing(visitor: Visitor, number: signal.Signals) -> None:
    tour = visitor.start(*troupe_command("demo"))
    assert tour.stdout is not None
    for line in tour.stdout:
        if "ms since submit" in line:
            break
    tour.send_signal(number)
    rest, _ = tour.communicate(timeout=LIMIT_S)
    assert tour.returncode == 130, rest
    assert list((visitor.root / "tmp").glob("troupe-demo-*")) == []


def test_with_stay_the_system_can_be_asked_until_ctrl_c(visitor: Visitor) -> None:
    tour = visitor.start(sys.executable, "-u", *troupe_command("demo", "--stay")[1:])
    assert tour.stdout is not None
    for line in tour.stdout:
        if "until you press Ctrl-C" in line:
            break
    assert [each["role"] for each in visitor.json("ps")] == ["supervisor", "broker", "coordinator", "actors"]
    assert json.loads(visitor.troupe("topics", "tail", "tasks.results", "--json", "--limit", "1"))["value"]["task_id"]
    tour.send_signal(signal.SIGINT)
    rest, _ = tour.communicate(timeout=LIMIT_S)
    assert tour.returncode == 0, rest
    assert "nothing is left running" in rest
