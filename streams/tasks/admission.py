"""Whether a task that may start now is taken in, waits, or is turned away.

`reject` turns away at once what cannot start; `wait` lets it wait and fails it only where waiting would not help.
"""

from __future__ import annotations

from schemas.task_row import TaskRow
from schemas.tasks import Admission, TaskEventKind
from streams.faults import Fault, fault
from streams.processor import Event
from streams.tasks.dispatch import Placing, assigned, place, queued
from streams.tasks.knowledge import Knowledge


def admit(know: Knowledge, row: TaskRow, event: Event, kind: TaskEventKind, admission: Admission) -> TaskRow | Fault:
    """The row assigned or queued (by an event of `kind`), or why neither is possible."""
    placing = place(know, row)
    if placing.chosen is not None:
        return assigned(know, row, event, placing)
    reject = admission is Admission.REJECT
    if placing.fault is not None and (reject or not know.grace):
        return placing.fault
    bounds = know.settings.priority_queue
    if know.queues.count >= know.share.of(bounds.max_queue_size if reject else bounds.max_backlog):
        return fault("queue_full")
    if reject and not placing.started:
        return _unavailable(placing)
    return queued(know, row, event, kind, placing)


def _unavailable(placing: Placing) -> Fault:
    return fault("agent_unavailable", placing.route.target if placing.route is not None else "")
