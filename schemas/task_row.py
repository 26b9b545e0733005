"""The row of a task: what the tasks processor remembers between two records.

Everything the outputs of the last transition need is in the row, so a redelivered record emits the same bytes again.
The request's raw value and headers stay only while the task is open; the result is never here.
"""

from __future__ import annotations

from schemas.base import Int, Json, Micros, Record
from schemas.policies import RetryPolicy
from schemas.tasks import Admission, TaskError, TaskEventKind, TaskState


class TaskRow(Record):
    """State of one task. Instants in microseconds, `0` where there is none."""

    version: int
    cause: str
    task_id: str
    state: TaskState = TaskState.UNKNOWN
    from_state: TaskState | None = None
    event: TaskEventKind = TaskEventKind.UNKNOWN
    # stamp of the last transition: who decided it, when, and from which views
    decided_at: Micros
    instance: str
    seq: int
    registry_at: Json
    # the request; `headers` as `schemas.headers` packs them
    position: str
    body_hash: str
    payload_hash: str
    request: bytes = b""
    headers: bytes = b""
    pattern: str | None = None
    type: str = ""
    required_capabilities: list[str] = []
    correlation_id: str | None = None
    admission: Admission = Admission.WAIT
    reply_to: str | None = None
    reply_key: str | None = None
    reply_partition: Int | None = None
    parent_task_id: str | None = None
    workflow_instance_id: str | None = None
    conversation_id: str | None = None
    # how it is to be run
    pinned_agent_id: str | None = None
    pool: str | None = None
    priority: Int = 3
    timeout_seconds: Int = 0  # the task's or its rule's; 0 leaves it to the agent
    retry: RetryPolicy | None = None  # the task's; from the first assignment on the one that holds
    held: bool = False
    # where it stands
    attempts: Int = 0
    lost: Int = 0
    epoch: Int = 0
    agent_id: str | None = None
    avoided_agent_id: str | None = None
    created_at: Micros
    updated_at: Micros
    queued_at: Micros = 0
    assigned_at: Micros = 0
    started_at: Micros = 0
    completed_at: Micros = 0
    expires_at: Micros
    due_at: Micros = 0
    grace_until: Micros = 0
    delay_seconds: float | None = None
    error: TaskError | None = None
    result_hash: str | None = None
    # what went wrong before, for the dead letter; the last few attempts, texts cut
    errors: list[TaskError] = []
    first_failed_at: Micros = 0
    redriven_as: str | None = None
    # an assignment that the last transition took away: its agent and epoch, to be cancelled
    revoked_agent_id: str | None = None
    revoked_epoch: Int = 0
    decision: Json | None = None
