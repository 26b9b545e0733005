"""Costs are read from living processes, and a process that ends is an error and not a low figure."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.bench.machine import log_size, machine, versions
from ops.bench.processes import ROLES, Meter, per_task_us
from ops.bench.pyspy import profiled, self_time
from ops.running import Birth, Entry, Member
from schemas.errors import OperatorError

SPIN = "def spinning():\n    while True:\n        sum(range(1000))\nprint('on', flush=True)\nspinning()\n"


def entry(*members: tuple[str, int]) -> Entry:
    found = [(role, Birth.of(pid)) for role, pid in members]
    listed = tuple(Member(role=role, birth=birth, state="running") for role, birth in found if birth)
    return Entry(data=Path("anywhere"), bootstrap="127.0.0.1:1", started_at=0, members=listed)


@pytest.fixture
def spinner(tmp_path: Path):
    file = tmp_path / "spin.py"
    file.write_text(SPIN)
    process = subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_supervisor_is_the_submitter_and_all_hosts_are_the_actors(spinner) -> None:
    meter = Meter(entry(("supervisor", os.getpid()), ("actors:mine", spinner.pid), ("coordinator", spinner.pid)))
    before = meter.cpu_s()
    time.sleep(0.3)
    spent = per_task_us(before, meter.cpu_s(), 1)
    assert list(spent) == list(ROLES)
    assert spent["broker"] is None
    assert (spent["actors"] or 0) > 20_000  # it spins all the time; a crowded machine gives it less than its share
    meter.sample()
    sizes = meter.peak_mb()
    assert (sizes["actors"] or 0) > 1 and sizes["broker"] is None
    assert meter.pids("coordinator") == [spinner.pid]


def test_a_process_that_ended_is_named(spinner) -> None:
    meter = Meter(entry(("coordinator", spinner.pid)))
    spinner.kill()
    spinner.wait()
    with pytest.raises(OperatorError, match="'coordinator' ended during the measurement"):
        meter.cpu_s()
    with pytest.raises(OperatorError, match="'coordinator' ended"):
        meter.sample()


async def test_a_profile_names_the_function_in_which_the_time_went(spinner, tmp_path: Path) -> None:
    file = tmp_path / "stacks.txt"
    async with profiled(spinner.pid, file):
        await asyncio.sleep(0.5)
    (name, share), *_ = self_time(file, 3)
    assert name.startswith("spinning") and share > 0.9


async def test_a_process_that_cannot_be_profiled_is_a_clear_error(spinner, tmp_path: Path) -> None:
    spinner.kill()
    spinner.wait()
    with pytest.raises(OperatorError, match="py-spy cannot profile the coordinator"):
        async with profiled(spinner.pid, tmp_path / "stacks.txt"):
            pytest.fail("there is nothing to profile")


async def test_without_py_spy_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperatorError, match="py-spy, which is not installed") as raised:
        async with profiled(1, tmp_path / "stacks.txt"):
            pytest.fail("there is no profiler")
    assert "troupe[dev]" in raised.value.hint


def test_self_time_counts_leaves_that_work_over_all_stacks(tmp_path: Path) -> None:
    file = tmp_path / "stacks.txt"
    file.write_text(
        "main (a.py:1);step (b.py:2) 6\nmain (a.py:1) 1\nmain (a.py:1);other (c.py:1);step (b.py:2) 3\n"
        "main (a.py:1);EpollSelector.select (selectors.py:451) 90\n"
    )
    assert self_time(file, 20) == [("step (b.py:2)", 0.9), ("main (a.py:1)", 0.1)]
    assert self_time(file, 1) == [("step (b.py:2)", 0.9)]


def test_the_log_is_its_segments_without_indexes_and_cluster_metadata(tmp_path: Path) -> None:
    for place, size in (("t-0/0.log", 10), ("t-0/0.index", 99), ("__cluster_metadata-0/0.log", 99), ("u-1/7.log", 5)):
        file = tmp_path / "data-1" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
    assert log_size(tmp_path)() == 15


def test_machine_and_versions_are_told() -> None:
    assert machine()["cores"] >= 1 and machine()["cpu"]
    assert versions(embedded=True)["kafka"] and versions(embedded=False)["kafka"] is None
    assert versions(embedded=False)["aiokafka"]
