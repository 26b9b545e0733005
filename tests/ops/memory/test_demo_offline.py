"""`troupe demo --offline`: the tour of the real thing, in one process that reaches for nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from ops.cli.errors import WrongUse
from ops.cli.main import app
from ops.cli.roles import environ_with_sources, troupe_command
from schemas.errors import OperatorError
from tests.e2e.test_demo import MONTHS


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects to anything or starts a process fails."""

    def refuse(*given: object, **named: object) -> NoReturn:
        raise AssertionError(f"reached outside: {given}")

    for owner, name in (
        (socket.socket, "connect"), (socket.socket, "bind"), (socket, "getaddrinfo"), (subprocess, "Popen"),
        (multiprocessing.Process, "start"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, refuse)


def tour(*given: str) -> Any:
    return CliRunner().invoke(app, ["demo", "--offline", *given], env={"COLUMNS": "200"}, catch_exceptions=False)


def test_the_offline_tour_finds_what_the_tour_finds(alone: None, tmp_path: Path) -> None:
    told = tour("--json", "--out", str(tmp_path / "pictures"))
    assert told.exit_code == 0, told.output
    seen = json.loads(told.stdout)
    unknown, ingested, detected = seen["tasks"]
    assert (unknown["status"], unknown["error"]["message"]) == ("failed", "Unknown pattern 'xyz'")
    assert ingested["result"]["tables"][0]["rows_mapped"] == 120
    assert [anomaly["timestamp"][:7] for anomaly in seen["anomalies"]] == MONTHS
    assert detected["history"][0]["decision"]["reason"].startswith("Chose anomaly_detection_agent: ")
    assert Path(seen["picture"]).read_bytes().startswith(b"\x89PNG")
    assert {each["key"] for each in seen["topics"]["tasks.results"]} == {each["task_id"] for each in seen["tasks"]}
    assert (seen["offline"], seen["bootstrap"], seen["left_running"]) == (True, "", [])


def test_people_are_told_that_it_is_offline(alone: None, tmp_path: Path) -> None:
    told = tour("--out", str(tmp_path)).output
    for words in (
        "offline: no Kafka, no Java, no network, no other process", "time is virtual", "Chose data_ingestion_agent: ",
        "   2000.0 demo-unknown  failed", "2009-03", "anomalies.png", "agents.registry", "nothing is left running",
    ):  # fmt: skip
        assert words in told


def test_what_is_seen_is_the_same_each_time(alone: None, tmp_path: Path) -> None:
    first, second = (json.loads(tour("--json", "--out", str(tmp_path)).stdout) for _ in range(2))
    assert first.pop("seconds") and second.pop("seconds")
    assert first == second


def test_one_picture_is_kept_and_not_one_for_each_tour(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shown = {json.loads(tour("--json").stdout)["picture"] for _ in range(2)}
    assert shown == {str(tmp_path / "state" / "troupe" / "demo" / "anomalies.png")}
    assert Path(shown.pop()).read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_place_that_cannot_be_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match=r"No place for the picture: .*file"):
        tour("--out", str(tmp_path / "file" / "pictures"))


def test_there_is_nothing_to_stay() -> None:
    with pytest.raises(WrongUse, match="--stay and --offline"):
        tour("--stay")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_tour_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    own = {"TMPDIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path.with_name(f"{tmp_path.name}-state"))}
    environ = environ_with_sources(dict(os.environ)) | own
    command = troupe_command("demo", "--offline")
    tour = subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert tour.stdout is not None
    for line in tour.stdout:
        if "Starting a coordinator" in line:
            break
    tour.send_signal(number)
    rest, _ = tour.communicate(timeout=60)
    assert (tour.returncode, list(tmp_path.iterdir())) == (130, []), rest
