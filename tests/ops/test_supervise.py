"""Children with real processes: readiness, restarts, errors in their own words, and ends that nobody survives."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from ops.children import Child, ChildSpec, Restarts, failure
from ops.cli.lifeline import end_with_supervisor
from schemas.errors import OperatorError

READY = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
QUICK = Restarts(pause_s_initial=0.05, pause_s_max=0.2, healthy_s=60.0)


def spec(tmp_path: Path, code: str, ready_s: float = 20.0, grace_s: float = 5.0) -> ChildSpec:
    return ChildSpec(
        role="worker",
        command=(sys.executable, "-c", code, "{ready}"),
        environ=dict(os.environ),
        log_file=tmp_path / "logs" / "worker.log",
        ready_file=tmp_path / "run" / "worker.ready",
        ready_s=ready_s,
        grace_s=grace_s,
    )


@asynccontextmanager
async def child(wanted: ChildSpec, told: list[str] | None = None) -> AsyncIterator[Child]:
    made = Child(wanted, lambda: None, (told if told is not None else []).append, QUICK)
    try:
        yield made
    finally:
        await made.stop()


async def until(what: Callable[[], bool], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.02)


def pid_of(made: Child) -> int:
    member = made.member()
    assert member is not None
    return member.birth.pid


def state_of(made: Child) -> str:
    member = made.member()
    return "" if member is None else member.state


async def test_it_is_starting_then_running_then_gone(tmp_path: Path) -> None:
    async with child(spec(tmp_path, READY)) as made:
        assert state_of(made) in ("", "starting")
        async with asyncio.timeout(20):
            await made.until_ready()
        assert state_of(made) == "running"
        pid = pid_of(made)
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


async def test_a_killed_one_is_started_again_as_often_as_needed(tmp_path: Path) -> None:
    told: list[str] = []
    async with child(spec(tmp_path, READY), told) as made:
        async with asyncio.timeout(20):
            await made.until_ready()
        made.settle()
        for _ in range(4):
            before = pid_of(made)
            os.kill(before, signal.SIGKILL)
            await until(lambda before=before: pid_of(made) != before and state_of(made) == "running")
    assert told == [f"worker ended with code -9; it is started again in {pause:g} s" for pause in (0.05, 0.1, 0.2, 0.2)]


async def test_one_that_cannot_start_says_why(tmp_path: Path) -> None:
    code = "import sys; print('Error: no such agent', file=sys.stderr); print('Hint: write one'); sys.exit(1)"
    told: list[str] = []
    async with child(spec(tmp_path, code), told) as made:
        with pytest.raises(OperatorError) as caught:
            async with asyncio.timeout(20):
                await made.until_failed()
    assert str(caught.value) == "worker ended with code 1 while starting: no such agent"
    assert caught.value.hint == "write one"
    assert told == []


async def test_one_that_crashes_while_starting_gets_a_few_tries(tmp_path: Path) -> None:
    told: list[str] = []
    async with child(spec(tmp_path, "raise SystemExit(70)"), told) as made:
        with pytest.raises(OperatorError, match="ended with code 70 while starting"):
            async with asyncio.timeout(20):
                await made.until_failed()
    assert len(told) == QUICK.first_ends - 1


async def test_one_that_keeps_refusing_is_left_alone_with_its_reason(tmp_path: Path) -> None:
    """It worked once; then something was changed under it, and only a person can change it back."""
    changed = tmp_path / "changed"
    refuse = "print('Error: no such changelog'); print('Hint: restore it'); sys.exit(73)"
    code = f"import pathlib, sys, time\nif pathlib.Path({str(changed)!r}).exists(): {refuse}\n{READY}"
    told: list[str] = []
    async with child(spec(tmp_path, code), told) as made:
        async with asyncio.timeout(20):
            await made.until_ready()
        made.settle()
        changed.touch()
        os.kill(pid_of(made), signal.SIGKILL)
        await until(lambda: state_of(made) == "failed")
        member = made.member()
        assert member is not None and member.current_state() == "failed"
        assert member.why == "worker ended with code 73, 5 times by now: no such changelog. restore it"
        assert told[-1].startswith(f"{member.why}. It is not started again")
        assert len(told) == QUICK.refusals + 1, "an end by kill, then four pauses and the last word"
        with pytest.raises(TimeoutError):  # it is no error of the whole system
            async with asyncio.timeout(0.2):
                await made.until_failed()


async def test_other_ends_between_refusals_are_no_row(tmp_path: Path) -> None:
    """As when Kafka is away for a while in between."""
    count = tmp_path / "count"
    code = (
        f"import pathlib, sys\np = pathlib.Path({str(count)!r})\nn = len(p.read_text()) if p.exists() else 0\n"
        "p.write_text('x' * (n + 1))\nsys.exit(70 if n % 4 == 3 else 73)"
    )
    async with child(spec(tmp_path, code)) as made:
        made.settle()
        await until(lambda: count.exists() and len(count.read_text()) > 3 * QUICK.refusals)
        assert state_of(made) != "failed"


async def test_one_that_is_never_ready_is_killed(tmp_path: Path) -> None:
    told: list[str] = []
    async with child(spec(tmp_path, "import time; time.sleep(60)", ready_s=0.3), told) as made:
        with pytest.raises(OperatorError, match="ended with code -9"):
            async with asyncio.timeout(20):
                await made.until_failed()
    assert told[0] == "worker was not ready after 0.3 s and is killed"


async def test_one_that_ignores_the_request_to_end_is_killed_after_its_grace(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY
    told: list[str] = []
    async with child(spec(tmp_path, code, grace_s=0.3), told) as made:
        async with asyncio.timeout(20):
            await made.until_ready()
        pid = pid_of(made)
    assert not psutil.pid_exists(pid)
    assert told == ["worker did not stop within 0.3 s and is killed"]


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("noise\nError: first\nError: second\n", "second"),
        (
            '{"event": "stopped", "level": "error", "why": "no broker"}\n{"event": "x", "level": "info"}\n',
            "stopped: no broker",
        ),
        ('{"event": "e", "level": "error", "error": {"message": "m"}}\n', "e: m"),
        ('["no object"]\n{"event": "e", "level": "error", "why": "w", "hint": "h"}\n3\n', "e: w"),
        ("Traceback:\n  File\nModuleNotFoundError: no\n\n", "ModuleNotFoundError: no"),
        ("", "no word"),
    ],
)
def test_the_last_words_of_a_log(tmp_path: Path, log: str, cause: str) -> None:
    file = tmp_path / "a.log"
    file.write_text("Error: of an earlier run\n" + log)
    failed = failure("it failed", file, len("Error: of an earlier run\n"))
    assert str(failed) == f"it failed: {cause}"
    assert failed.hint == ("h" if '"hint"' in log else f"read {file}")


def test_a_closed_lifeline_ends_the_role(tmp_path: Path) -> None:
    """What a role does when its supervisor is gone, however that happened: the pipe is closed by the system."""
    module = end_with_supervisor.__module__
    role = f"import time, {module} as m; m.end_with_supervisor(5); print(1, flush=True); time.sleep(60)"
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", role],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(10) == -signal.SIGTERM
    process.stdout.close()
