"""What an agent says of an attempt, as bytes for `tasks.reports`.

A report's id is the position of the inbox record it follows from and a number, so a re-run makes the same ids and a
reader sees one. A result that does not fit into a record becomes a failed report here, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from actors.handlers import sound
from actors.mailbox import Work
from schemas.codec import Codec
from schemas.errors import PayloadTooLarge
from schemas.tasks import ReportKind, TaskError, TaskReport


class Report(NamedTuple):
    """One record for `tasks.reports`; `settles` is the work that is done with once this is acknowledged, if it is."""

    key: str
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    settles: Work | None


class Reporter:
    """Makes the reports of a host. `clock` gives microseconds; `send` takes what was made, without waiting."""

    def __init__(self, codec: Codec[TaskReport], clock: Callable[[], int], send: Callable[[Report], None]) -> None:
        self._codec, self._clock, self._send = codec, clock, send

    def started(self, work: Work) -> None:
        """The handler takes longer than a moment."""
        self._put(work, ReportKind.STARTED, None, None, final=False)

    def progress(self, work: Work, fraction: float, note: str) -> None:
        """How far the work is, from 0 to 1."""
        record = self._record(work, ReportKind.PROGRESS, None, None)
        record |= {"progress": fraction, "note": sound(note) or None}
        self._send(Report(work.task.task_id, self._codec.encode_fields(record), work.headers, None))

    def completed(self, work: Work, result: str) -> None:
        """The handler returned; too large a result is a failure that no retry could mend."""
        try:
            self._put(work, ReportKind.COMPLETED, result, None, final=True)
        except PayloadTooLarge as large:
            self.failed(work, TaskError(
                code=large.code, message=str(large), agent_id=work.mailbox.agent_id, attempt=work.task.attempt,
            ))  # fmt: skip

    def failed(self, work: Work, error: TaskError) -> None:
        """The handler raised, or could not be called."""
        self._put(work, ReportKind.FAILED, None, error, final=True)

    def _put(self, work: Work, kind: ReportKind, result: str | None, error: TaskError | None, final: bool) -> None:
        value = self._codec.encode_fields(self._record(work, kind, result, error))
        self._send(Report(work.task.task_id, value, work.headers, work if final else None))

    def _record(self, work: Work, kind: ReportKind, result: str | None, error: TaskError | None) -> dict[str, Any]:
        """The fields of a report; to make a TaskReport of them first would cost more than all the rest."""
        task, number, position, agent_id = work.task, work.reports, work.position, work.mailbox.agent_id
        work.reports = number + 1
        return {
            "event_id": f"{position}.{number}", "occurred_at": self._clock(), "source": agent_id, "actor": None,
            "correlation_id": work.correlation_id, "causation_id": position, "kind": kind, "task_id": task.task_id,
            "agent_id": agent_id, "attempt": task.attempt, "epoch": task.epoch, "progress": None, "note": None,
            "result": result, "error": error, "usage": None,
        }  # fmt: skip
