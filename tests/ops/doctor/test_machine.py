"""What the doctor finds without any Kafka."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.doctor import machine
from ops.doctor.finding import Finding, Level, some
from ops.doctor.machine import disk_finding, process_findings, settings_findings, variables
from ops.running import Birth, Entry, Member


def test_a_clean_environment_is_fine() -> None:
    clean = {
        "PATH": "p",
        "TROUPE_DATA_DIR": "d",
        "TROUPE_CACHE": "c",
        "TROUPE_ROUTING__GRACE_SECONDS": "2",
        "LOG_LEVEL": "info",
    }
    (found,) = settings_findings(clean)
    assert found.level is Level.OK


@pytest.mark.parametrize(
    ("name", "value", "level", "what", "remedy"),
    [
        (
            "TROUPE_ROUTNG__GRACE_SECONDS",
            "2",
            Level.ERROR,
            "Unknown setting 'routng.grace_seconds'",
            "routing.grace_seconds",
        ),
        ("TROUPE_TASKS__TIMEOUT_SECONDS", "soon", Level.ERROR, "Setting 'tasks.timeout_seconds'", "unset TROUPE_TASKS"),
        ("LOG_LEVEL", "loud", Level.ERROR, "monitoring.log_level", "unset LOG_LEVEL"),
        ("TROUPE_DATADIR", "x", Level.WARNING, "did you mean TROUPE_DATA_DIR?", "unset TROUPE_DATADIR"),
        ("TROUPE_GRACE_SECONDS", "x", Level.WARNING, "nobody reads it", "unset TROUPE_GRACE_SECONDS"),
        ("TROUPE_FAILPOINT", "stepped:1:kill", Level.ERROR, "kill themselves", "unset TROUPE_FAILPOINT"),
    ],
)
def test_a_variable_that_cannot_work_is_named(name: str, value: str, level: Level, what: str, remedy: str) -> None:
    (found,) = settings_findings({name: value})
    assert found.level is level
    assert name in found.what and what in found.what
    assert remedy in found.remedy


def test_all_wrong_variables_are_named_at_once() -> None:
    wrong = {"TROUPE_TASKS__TIMEOUT_SECONDS": "soon", "TROUPE_TASKS__TTL_SECONDS": "never"}
    assert len(settings_findings(wrong)) == 2
    assert "TROUPE_TASKS__TTL_SECONDS" in variables()


@pytest.fixture
def ended() -> Birth:
    """A process that was."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    birth = Birth.of(process.pid)
    assert birth is not None
    process.kill()
    process.communicate()
    return birth


@pytest.fixture
def alive() -> Iterator[Birth]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    birth = Birth.of(process.pid)
    assert birth is not None
    yield birth
    process.kill()
    process.communicate()


def entry(*members: Member) -> Entry:
    return Entry(data=Path("/tmp/somewhere"), bootstrap="b:1", started_at=1, members=members)


def test_what_a_dead_supervisor_left_behind_is_an_error(alive: Birth, ended: Birth) -> None:
    left = entry(
        Member(role="supervisor", birth=ended, state="running"), Member(role="broker", birth=alive, state="running")
    )
    (found,) = process_findings([left])
    assert found.level is Level.ERROR
    assert "broker still run without anybody" in found.what
    assert found.remedy == "troupe down --data /tmp/somewhere"


def test_a_role_that_was_given_up_is_an_error_with_its_reason(alive: Birth, ended: Birth) -> None:
    failed = Member(role="coordinator", birth=ended, state="failed", why="tasks.requests has 3 partitions, not 2")
    (found,) = process_findings([entry(Member(role="supervisor", birth=alive, state="running"), failed)])
    assert found.level is Level.ERROR
    assert "3 partitions" in found.what and "troupe up --data /tmp/somewhere" in found.remedy


@pytest.mark.parametrize("state", ["running", "restarting"])
def test_a_role_that_is_not_running_is_a_warning(alive: Birth, ended: Birth, state: str) -> None:
    half = entry(
        Member(role="supervisor", birth=alive, state="running"), Member(role="coordinator", birth=ended, state=state)
    )
    (found,) = process_findings([half])
    assert found.level is Level.WARNING
    assert "coordinator is not running" in found.what and "/tmp/somewhere/logs" in found.remedy


def test_a_whole_system_is_fine(alive: Birth) -> None:
    (found,) = process_findings([entry(Member(role="supervisor", birth=alive, state="running"))])
    assert found == Finding(Level.OK, "processes", "/tmp/somewhere: supervisor")
    assert process_findings([]) == []


def test_the_disk_is_measured_where_the_data_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = disk_finding(tmp_path / "not" / "there" / "yet")
    assert str(tmp_path) in found.what and "not" not in found.what.removeprefix(str(tmp_path))
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    for few, least, level in ((0, 0, Level.OK), (2 * free, 0, Level.WARNING), (2 * free, 2 * free, Level.ERROR)):
        monkeypatch.setattr(machine, "FEW_FREE_BYTES", few)
        monkeypatch.setattr(machine, "LEAST_FREE_BYTES", least)
        assert disk_finding(tmp_path).level is level


def test_long_lists_are_cut() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"
