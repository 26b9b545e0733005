"""Which handlers were running when the host died, so that a task that kills its host does not do so for ever.

Before a handler starts, (task_id, epoch) is written; when its report is acknowledged, that is written too. What the
next process finds open was running when the last one ended, and is counted. An entry of a killed *process* survives in
the page cache, so nothing is synced: a machine that loses power loses at worst a count. One writer (whoever holds the
seat, `member.py`), one write per wave of starts; rewritten when it has grown and at each start.

    + <epoch> <deadline_at> <task_id>            a start
    - <epoch> 0 <task_id>                        an end
    = <epoch> <deadline_at> <task_id> <starts>   what an earlier process left open
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from actors.mailbox import Identity, Work

REWRITE_BYTES = 1 << 20
"""Size at which the file is written anew with the open entries only."""

OPEN_MAX = 100_000
"""Entries kept of earlier processes; the oldest leave first."""


class Journal:
    """The open starts of one host process. Blocking, but only on the page cache."""

    def __init__(self, path: Path, now: int) -> None:
        """Open or create the file; `now` in microseconds: entries past their deadline can never come again."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.left = _read(path, now)
        """What earlier processes left open: deadline and starts of each; empty most of the time."""
        self._running: dict[Identity, int] = {}  # deadline of what this process has started
        self._file = -1
        self._size = 0
        self._rewrite()

    def starts(self, identity: Identity) -> int:
        """Starts of this assignment whose process ended before it did."""
        left = self.left.get(identity)
        return left[1] if left else 0

    def begin(self, works: Iterable[Work]) -> None:
        """Write that these are about to start, in one write."""
        lines = []
        for work in works:
            task = work.task
            self._running[task.task_id, task.epoch] = task.deadline_at
            lines.append(f"+ {task.epoch} {task.deadline_at} {task.task_id}\n")
        self._write(lines)

    def end(self, works: Iterable[Work]) -> None:
        """Write that these are settled."""
        ended = []
        for work in works:
            identity = work.task.task_id, work.task.epoch
            known = self._running.pop(identity, None) is not None
            counted = bool(self.left) and self.left.pop(identity, None) is not None
            if known or counted:
                ended.append(identity)
        if not self._running and not self.left:
            self._truncate()
        else:
            self._write([f"- {epoch} 0 {task_id}\n" for task_id, epoch in ended])

    def close(self, clean: bool) -> None:
        """Let go of the file; after a clean stop what still ran did not end the process, so it is forgotten."""
        if clean:
            self._running.clear()
            self._rewrite()
        os.close(self._file)

    def _write(self, lines: list[str]) -> None:
        if not lines:
            return
        data = "".join(lines).encode()
        os.write(self._file, data)
        self._size += len(data)
        if self._size > REWRITE_BYTES:
            self._rewrite()

    def _truncate(self) -> None:
        if self._size:
            os.ftruncate(self._file, 0)
            self._size = 0

    def _rewrite(self) -> None:
        left = self.left.items()
        lines = [f"= {epoch} {deadline} {task_id} {starts}\n" for (task_id, epoch), (deadline, starts) in left]
        lines += [f"+ {epoch} {deadline} {task_id}\n" for (task_id, epoch), deadline in self._running.items()]
        scratch = self._path.with_suffix(".part")
        data = "".join(lines).encode()
        scratch.write_bytes(data)
        scratch.replace(self._path)
        if self._file >= 0:
            os.close(self._file)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        # A few bytes more than there are would rewrite at each write once the open entries alone pass the limit.
        self._size = 0 if len(data) > REWRITE_BYTES // 2 else len(data)


def _read(path: Path, now: int) -> dict[Identity, tuple[int, int]]:
    """Deadline and number of starts of each entry left open; a torn last line is no entry."""
    found: dict[Identity, tuple[int, int]] = {}
    if not path.exists():
        return found
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        parts = line.split()
        if not line.endswith("\n") or len(parts) < 4 or not (parts[1].isdecimal() and parts[2].isdecimal()):
            continue
        identity, deadline = (parts[3], int(parts[1])), int(parts[2])
        before = found.get(identity, (0, 0))[1]
        if parts[0] == "-":
            found.pop(identity, None)
        elif parts[0] == "+":
            found[identity] = (deadline, before + 1)
        elif parts[0] == "=" and len(parts) == 5 and parts[4].isdecimal():
            found[identity] = (deadline, int(parts[4]))
    alive = {identity: entry for identity, entry in found.items() if entry[0] > now}
    return dict(list(alive.items())[-OPEN_MAX:])
