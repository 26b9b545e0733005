"""Discovery: which systems run here, and what a verb may assume."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import running
from ops.running import Birth, Entry, Member
from schemas.errors import OperatorError
from schemas.settings import Kafka


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield started
    started.kill()
    started.wait()


def entry(data: Path, pid: int, bootstrap: str = "127.0.0.1:9092") -> Entry:
    birth = Birth.of(pid)
    assert birth is not None
    member = Member(role="supervisor", birth=birth, state="running")
    return Entry(data=data, bootstrap=bootstrap, started_at=1, members=(member,))


def test_nothing_runs(environ: dict[str, str]) -> None:
    assert running.entries(environ) == []
    with pytest.raises(OperatorError, match="No system runs") as caught:
        running.find(environ, None)
    assert "troupe up" in caught.value.hint


def test_the_only_one_is_found_by_all_and_by_its_directory(
    environ: dict[str, str], tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    written = entry(tmp_path / "a", process.pid)
    running.write(environ, written)
    assert running.find(environ, None) == written
    assert running.find(environ, tmp_path / "a") == written
    with pytest.raises(OperatorError, match="No system runs in"):
        running.find(environ, tmp_path / "b")
    running.remove(environ, tmp_path / "a")
    assert running.entries(environ) == []


def test_settings_are_those_of_the_running_system_unless_they_are_given(
    environ: dict[str, str], tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    written = entry(tmp_path / "a", process.pid).model_copy(update={"topic_prefix": "p.", "partitions": 2})
    running.write(environ, written)
    here = running.settings_here(environ)
    assert (here.kafka.bootstrap_servers, here.data_dir) == (written.bootstrap, tmp_path / "a")
    assert (here.kafka.topic_prefix, here.kafka.partitions) == ("p.", 2)
    assert running.settings_here(environ, overrides={"kafka.partitions": 3}).kafka.partitions == 3
    running.write(environ, written.model_copy(update={"partitions": None}))
    assert running.settings_here(environ).kafka.partitions == Kafka().partitions, "an older version's file"


def test_several_are_listed_in_the_error(
    environ: dict[str, str], tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    running.write(environ, entry(tmp_path / "a", process.pid, "127.0.0.1:1111"))
    running.write(environ, entry(tmp_path / "b", process.pid, "127.0.0.1:2222"))
    with pytest.raises(OperatorError) as caught:
        running.find(environ, None)
    for word in ("a", "b", "127.0.0.1:1111", "127.0.0.1:2222"):
        assert word in str(caught.value)
    assert "--data" in caught.value.hint
    assert running.find(environ, tmp_path / "b").bootstrap == "127.0.0.1:2222"


def test_an_entry_of_the_dead_is_removed(
    environ: dict[str, str], tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    running.write(environ, entry(tmp_path / "a", process.pid))
    process.kill()
    process.wait()
    assert running.entries(environ) == []
    assert list(running.directory(environ).iterdir()) == []


def test_an_id_that_was_used_again_is_another_process(
    environ: dict[str, str], tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    written = entry(tmp_path / "a", process.pid)
    older = written.members[0].birth.model_copy(update={"created_s": 1.0})
    member = written.members[0].model_copy(update={"birth": older})
    running.write(environ, written.model_copy(update={"members": (member,)}))
    assert running.entries(environ) == []


def test_a_file_that_is_no_entry_is_removed(environ: dict[str, str]) -> None:
    running.directory(environ).mkdir(parents=True)
    (running.directory(environ) / "x.json").write_text("{")
    assert running.entries(environ) == []


def test_a_dead_member_shows_as_ended_unless_it_is_being_restarted(process: subprocess.Popen[bytes]) -> None:
    birth = Birth.of(process.pid)
    assert birth is not None
    member = Member(role="coordinator", birth=birth, state="running")
    assert member.current_state() == "running"
    process.kill()
    process.wait()
    assert member.current_state() == "ended"
    assert member.model_copy(update={"state": "restarting"}).current_state() == "restarting"
