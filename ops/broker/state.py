"""What a cluster directory remembers between two commands: its brokers, their ports, the processes that ran last.

Several commands may look at one directory at the same time. Whoever wants to change it holds its lock; whoever only
looks reads one whole state or another, because the file is replaced and never rewritten.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from ops.broker import process
from ops.broker.layout import Node
from ops.broker.process import Birth
from schemas.errors import OperatorError

_POLL_S = 0.05


class NodeState(BaseModel):
    """One broker: number, ports (0 if it has none yet), and the process that ran it last (None after a clean stop)."""

    model_config = ConfigDict(frozen=True)

    id: int
    port: int = 0
    controller_port: int = 0
    process: Birth | None = None


class State(BaseModel):
    """The state file. A directory without one has no brokers yet."""

    model_config = ConfigDict(frozen=True)

    nodes: tuple[NodeState, ...] = ()

    @classmethod
    def load(cls, directory: Path) -> State:
        """Read the state of a directory.

        Raises OperatorError if the file is there and cannot be understood.
        """
        path = _file(directory)
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValidationError) as error:
            raise OperatorError(
                f"The state file {path} cannot be read: {error}",
                hint=f"remove {path}; the data beside it is not touched, and the next start finds it again",
            ) from error

    def save(self, directory: Path) -> None:
        """Replace the state file."""
        scratch = _file(directory).with_suffix(".part")
        scratch.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        scratch.replace(_file(directory))

    def placed(self, directory: Path) -> list[Node]:
        """The brokers with their place on disk."""
        return [Node(each.id, directory, each.port, each.controller_port) for each in self.nodes]

    def alive(self, directory: Path) -> dict[int, psutil.Process]:
        """The brokers that run now, by number."""
        pairs = zip(self.nodes, self.placed(directory), strict=True)
        found = {each.id: process.find(each.process, node) for each, node in pairs}
        return {number: running for number, running in found.items() if running is not None}

    def noting(self, number: int, birth: Birth | None) -> State:
        """The state with another process (or none) for one broker."""
        return State(
            nodes=tuple(
                each.model_copy(update={"process": birth}) if each.id == number else each for each in self.nodes
            )
        )


def _file(directory: Path) -> Path:
    return directory / "state.json"


@asynccontextmanager
async def locked(directory: Path, timeout_s: float) -> AsyncIterator[None]:
    """The right to change a directory, waited for without blocking the event loop.

    Raises OperatorError if another command holds it for longer than `timeout_s`.
    """
    lock = FileLock(directory / ".lock", thread_local=False)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except Timeout:
            if time.monotonic() >= deadline:
                raise OperatorError(
                    f"Another command has been starting or stopping the Kafka of {directory} for {timeout_s:.0f} s",
                    hint="wait for it, then try again",
                ) from None
        await asyncio.sleep(_POLL_S)
    try:
        yield
    finally:
        lock.release()
