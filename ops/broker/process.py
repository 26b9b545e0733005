"""One broker process: started detached, recognised later by whoever comes back to its directory.

The broker outlives the command that started it, so the next command knows it only from a note on disk. A process id
alone is not enough, since ids are used again; hence the creation time, and, where the clock was set in between and
moves all creation times, the properties file that is the last word of its command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from ops.broker.layout import Node
from schemas.errors import OperatorError

_POLL_S = 0.02
_SAME_BIRTH_S = 1.0
_LOG_BYTES_MAX = 4 * 1024 * 1024


class Birth(BaseModel):
    """What identifies a process: its id and its creation time in seconds since the epoch."""

    model_config = ConfigDict(frozen=True)

    pid: int
    created_s: float


@dataclass(frozen=True)
class Launched:
    """A broker that this very process started; `log_start` is where its output begins in the log file, in bytes."""

    node: Node
    process: subprocess.Popen[bytes]
    birth: Birth
    log_start: int


def launch(node: Node, command: Sequence[str]) -> Launched:
    """Start the broker of a node in a session of its own, so that it survives us and our Ctrl-C.

    Raises OperatorError when the operating system refuses.
    """
    rotate(node.log_file)
    with node.log_file.open("ab") as log:
        log_start = log.tell()
        try:
            process = subprocess.Popen(
                [*command, str(node.properties_file)],
                cwd=node.directory,
                env=os.environ | {"LC_ALL": "C.UTF-8"},  # else Java cannot open paths beyond ASCII in a bare locale
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            raise OperatorError(
                f"Java cannot be started: {error}", hint=f"check that `{command[0]} -version` works on this machine"
            ) from error
    try:
        created_s = psutil.Process(process.pid).create_time()
    except psutil.Error:  # gone already: whoever waits for it will read its log
        created_s = time.time()
    return Launched(node, process, Birth(pid=process.pid, created_s=created_s), log_start)


def rotate(log_file: Path) -> None:
    """Keep one older log, so that a directory in use for years does not fill the disk."""
    with contextlib.suppress(OSError):
        if log_file.stat().st_size > _LOG_BYTES_MAX:
            log_file.replace(log_file.with_suffix(".log.1"))


def find(birth: Birth | None, node: Node) -> psutil.Process | None:
    """The living process of the note, or None."""
    if birth is None:
        return None
    try:
        process = psutil.Process(birth.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        same = abs(process.create_time() - birth.created_s) < _SAME_BIRTH_S or _runs(process, node.properties_file)
    except psutil.Error:
        return None
    return process if same else None


def find_unnoted(node: Node) -> Birth | None:
    """A broker of this node that no note tells of: its starter was killed before it could write one."""
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "java" and _runs(process, node.properties_file):
                return Birth(pid=process.pid, created_s=process.create_time())
        except psutil.Error:
            continue
    return None


def _runs(process: psutil.Process, properties_file: Path) -> bool:
    return process.cmdline()[-1:] == [str(properties_file)]


async def end(processes: Iterable[psutil.Process], timeout_s: float) -> list[int]:
    """SIGTERM to all at once, SIGKILL to those that still run after `timeout_s`; returns the ids of the killed.

    All at once, because brokers that stop one after another leave the last without a quorum, and it would not end.
    """
    processes = list(processes)
    for process in processes:
        _signal(process, kill=False)
    left = await _gone(processes, timeout_s)
    for process in left:
        _signal(process, kill=True)
    await _gone(left, timeout_s)
    return [process.pid for process in left]


def _signal(process: psutil.Process, *, kill: bool) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill() if kill else process.terminate()


async def _gone(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    deadline = time.monotonic() + timeout_s
    while True:
        # Waiting with no time also collects children of ours, which would stay as zombies and look alive to others.
        _, processes = psutil.wait_procs(processes, timeout=0)
        if not processes or time.monotonic() >= deadline:
            return processes
        await asyncio.sleep(_POLL_S)


def log_tail(node: Node, start: int = 0, limit: int = 2000) -> str:
    """The last `limit` bytes of the node's log that were written after `start`."""
    try:
        with node.log_file.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(start, size - limit))
            return log.read(limit).decode(errors="replace").strip()
    except OSError:
        return ""
