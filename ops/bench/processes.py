"""What each role costs: processor time between two moments and the largest resident size seen, read from outside.

The cost per task survives a noisy machine better than tasks per second, but not unharmed: with four times as many busy
processes as cores it was seen to grow by 70 % and tasks per second to fall to a third. So compare within a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import psutil

from ops.running import Entry
from schemas.errors import OperatorError

ROLES = ("submitter", "coordinator", "actors", "broker")
_SAMPLE_S = 0.5
_MEGABYTE = 1024 * 1024


class Meter:
    """The processes of one system; the supervisor's own process is the submitter's."""

    def __init__(self, entry: Entry) -> None:
        """Raises OperatorError if one of them has already ended."""
        self._processes: dict[str, list[psutil.Process]] = {}
        for member in entry.members:
            process = member.birth.process()
            if process is None:
                raise _ended(member.role)
            self._processes.setdefault(_role(member.role), []).append(process)
        self._peak: dict[str, int] = {}

    def pids(self, role: str) -> list[int]:
        """The process ids of a role."""
        return [process.pid for process in self._processes.get(role, [])]

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds of each role since its start. Raises OperatorError if a process has ended."""
        found: dict[str, float] = {}
        for role, processes in self._processes.items():
            try:
                times = [process.cpu_times() for process in processes]
            except psutil.Error as gone:
                raise _ended(role) from gone
            found[role] = sum(each.user + each.system for each in times)
        return found

    async def watch(self) -> None:
        """Keep the largest resident size of each role, until it is cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(_SAMPLE_S)

    def sample(self) -> None:
        """Look at the resident sizes once. Raises OperatorError if a process has ended."""
        for role, size in self.resident().items():
            self._peak[role] = max(size, self._peak.get(role, 0))

    def resident(self) -> dict[str, int]:
        """Resident bytes of each role now. Raises OperatorError if a process has ended."""
        found: dict[str, int] = {}
        for role, processes in self._processes.items():
            try:
                found[role] = sum(process.memory_info().rss for process in processes)
            except psutil.Error as gone:
                raise _ended(role) from gone
        return found

    def peak_mb(self) -> dict[str, float | None]:
        """MiB of each role at its largest, None for a role that runs elsewhere."""
        return {role: round(self._peak[role] / _MEGABYTE, 1) if role in self._peak else None for role in ROLES}


def per_task_us(before: Mapping[str, float], after: Mapping[str, float], tasks: int) -> dict[str, float | None]:
    """Processor microseconds per task of each role, None for a role that runs elsewhere."""
    return {role: round(1e6 * (after[role] - before[role]) / tasks, 1) if role in after else None for role in ROLES}


def _role(member: str) -> str:
    if member == "supervisor":
        return "submitter"
    return next((role for role in ROLES if member.startswith(role)), member)  # of several, the names end in numbers


def _ended(role: str) -> OperatorError:
    return OperatorError(
        f"The process of role '{role}' ended during the measurement",
        hint="run it again with --data DIR and read the logs in DIR/logs",
    )
