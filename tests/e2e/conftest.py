"""A system as a visitor has it: started by the command, talked to by the command, in a directory of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ops.cli.roles import environ_with_sources, troupe_command

LIMIT_S = 200


class Visitor:
    """Runs commands in `root`; everything they start can be found by that path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        own = {"XDG_STATE_HOME": str(root / "state"), "TMPDIR": str(root / "tmp"), "COLUMNS": "200"}
        self.environ = environ_with_sources(os.environ | own)
        (root / "tmp").mkdir(parents=True)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Begin a command; its output is read by the caller."""
        return subprocess.Popen(
            command, env=self.environ, cwd=self.root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def call(self, *command: str, code: int = 0) -> str:
        """Run a command to its end; returns stdout, after it stderr."""
        done = subprocess.run(
            command, env=self.environ, cwd=self.root, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def troupe(self, *arguments: str, code: int = 0) -> str:
        """`troupe ...`."""
        return self.call(*troupe_command(*arguments), code=code)

    def json(self, *arguments: str, code: int = 0) -> Any:
        """`troupe ... --json`, whose stdout must be one document whatever the exit code."""
        done = subprocess.run(
            troupe_command(*arguments, "--json"), env=self.environ, cwd=self.root, capture_output=True, text=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def left(self) -> list[int]:
        """Processes whose command line or working directory names this visitor's directory."""
        return [process.pid for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            return any(str(self.root) in word for word in (*process.cmdline(), process.cwd()))
        except psutil.Error:
            return False


@contextmanager
def running(system: Visitor, file: str) -> Iterator[subprocess.Popen[str]]:
    """`troupe run FILE` until the end, ready at the beginning."""
    host = system.start(*troupe_command("run", file))
    try:
        assert host.stdout is not None
        for line in host.stdout:
            if '"event": "ready"' in line:
                break
        yield host
    finally:
        host.send_signal(signal.SIGINT)
        rest, _ = host.communicate(timeout=LIMIT_S)
    assert host.returncode == 0, rest


@pytest.fixture
def visitor(tmp_path: Path) -> Iterator[Visitor]:
    """Somebody without a system."""
    made = Visitor(tmp_path / "visitor")
    yield made
    assert made.left() == []


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """Somebody with a running system that gives an unknown target half a second."""
    made = Visitor(tmp_path_factory.mktemp("system") / "visitor")
    made.troupe("up", "--detach", "--data", "data", "--set", "routing.grace_seconds=0.5")
    yield made
    made.troupe("down")
    assert made.left() == []
