"""Host processes of tests: real ones, which say what they say into a file, and are gone at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.failpoint import VARIABLE
from schemas.settings import environment_of
from tests.actors.stage import Stage

FILE = Path(__file__).with_name("killable.py")
ROOT = Path(__file__).parents[2]


@dataclass
class Host:
    """One process and its log."""

    process: asyncio.subprocess.Process
    file: Path

    @property
    def returncode(self) -> int | None:
        return self.process.returncode

    @property
    def pid(self) -> int:
        return self.process.pid

    async def wait(self) -> int:
        return await self.process.wait()

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def log(self) -> str:
        return self.file.read_text(errors="replace")

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log about one event."""
        lines = [line for line in self.log().splitlines() if line.startswith("{")]
        return [found for line in lines if (found := json.loads(line)).get("event") == event]


@contextlib.asynccontextmanager
async def process(
    stage: Stage, failpoint: str = "", wait: bool = True, file: Path = FILE, **settings: str
) -> AsyncIterator[Host]:
    """A host process, ready if `wait`; killed at the end. `settings` are more environment variables of settings."""
    stamp = time.monotonic_ns()
    ready, log = stage.settings.data_dir / f"ready-{stamp}", stage.settings.data_dir / f"host-{stamp}.log"
    environment = {**os.environ, **environment_of(stage.settings), VARIABLE: failpoint, **settings}
    with log.open("wb") as out:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.actors.hosted", str(file), str(ready),
            cwd=ROOT, env=environment, stdout=out, stderr=out,
        )  # fmt: skip
    host = Host(child, log)
    try:
        async with asyncio.timeout(30):
            while wait and not ready.exists() and child.returncode is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert not wait or ready.exists(), f"the host ended with {child.returncode}: {host.log()[-2000:]}"
        yield host
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def killed(child: Host) -> None:
    assert await asyncio.wait_for(child.wait(), 20) == -signal.SIGKILL
