"""Who a host process is in its consumer group, over restarts: a killed one must get its inboxes back at once.

Kafka knows a static member by its name. Two processes with one name would throw each other out, so a process takes the
first free seat of its host's directory, held by a lock that dies with it; each seat carries a random name, because the
same host name may run on another machine as well.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import OperatorError

SEATS = 64
"""Processes of one host on one machine."""


@dataclass(frozen=True, slots=True)
class Member:
    """One seat: its stable name, its directory (journal), and the lock that this process holds."""

    name: str
    directory: Path
    lock: int

    @classmethod
    def claim(cls, host: Path) -> Member:
        """Take the first free seat below the host's directory. Raises OperatorError if none is free."""
        for number in range(1, SEATS + 1):
            directory = host / str(number)
            directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            return cls(f"{number}-{_name(directory / 'member')}", directory, lock)
        raise OperatorError(f"All {SEATS} seats of {host} are taken", hint="troupe ps")

    def release(self) -> None:
        """Give the seat back."""
        os.close(self.lock)


def _name(path: Path) -> str:
    known = path.read_text().strip() if path.exists() else ""
    if known:
        return known
    fresh = uuid.uuid4().hex[:12]
    scratch = path.with_suffix(".part")
    scratch.write_text(fresh)
    scratch.replace(path)
    return fresh
