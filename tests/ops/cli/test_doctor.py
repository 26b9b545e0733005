"""`troupe doctor` as a program: one document, a progress that does not disturb it, and an exit code."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ops.cli.roles import environ_with_sources, troupe_command


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TROUPE_", "KAFKA_"))}
    return environ_with_sources(kept | {"XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "200"})


def doctor(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        troupe_command("doctor", *arguments), env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def test_without_a_system_the_machine_is_looked_at_and_that_is_said(environ: dict[str, str]) -> None:
    found = doctor(environ, "--json")
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout)
    assert document["ok"] and document["errors"] == 0
    by_check = {finding["check"]: finding for finding in document["findings"]}
    assert set(by_check) == {"settings", "disk", "java", "kafka"}
    assert by_check["kafka"]["level"] == "warning" and "No system runs" in by_check["kafka"]["what"]
    assert "troupe up" in by_check["kafka"]["remedy"]
    shown = doctor(environ).stdout
    assert "No system runs" in shown and "what to do" in shown
    assert "0 errors, " in shown.splitlines()[-1]


def test_a_wrong_variable_is_a_finding_and_not_the_end(environ: dict[str, str]) -> None:
    found = doctor(environ | {"TROUPE_ROUTNG__GRACE_SECONDS": "2"}, "--json")
    assert found.returncode == 1
    document = json.loads(found.stdout)
    assert document["errors"] == 1 and not document["ok"]
    assert {"settings", "disk"} <= {finding["check"] for finding in document["findings"]}


def test_a_wrong_option_is_a_finding_too(environ: dict[str, str], tmp_path: Path) -> None:
    found = doctor(environ, "--config", str(tmp_path / "absent.yaml"), "--json")
    assert found.returncode == 1
    (wrong,) = [each for each in json.loads(found.stdout)["findings"] if each["level"] == "error"]
    assert "absent.yaml" in wrong["what"] and "--config" in wrong["remedy"]


def test_a_kafka_that_does_not_answer_is_an_error(environ: dict[str, str]) -> None:
    found = doctor(environ, "--broker", "127.0.0.1:1", "--set", "kafka.metadata_timeout_seconds=1", "--json")
    assert found.returncode == 1
    findings = json.loads(found.stdout)["findings"]
    assert "java" not in {finding["check"] for finding in findings}
    assert findings[-1]["what"] == "Kafka is not reachable at 127.0.0.1:1"
