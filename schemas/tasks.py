"""The records of a task, from the wish to the outcome.

A `TaskCommand` is what a user wishes, a `TaskReport` what an agent says of an attempt, a `TaskEvent` what the coordinator
decided, a `TaskResult` the outcome. `TaskRow`, the state between them, is in `schemas/task_row.py`.
"""

from __future__ import annotations

from pydantic import Field

from schemas.base import Enum, Envelope, Int, Json, Micros, Record
from schemas.policies import RetryPolicy

ID = r"^[A-Za-z0-9._~-]{1,255}$"


class TaskState(Enum):
    """Where a task is."""

    PENDING = "pending"
    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD_LETTERED = "dead_lettered"
    REFUSED = "refused"
    UNKNOWN = "unknown"


TERMINAL = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, TaskState.DEAD_LETTERED})
IN_FLIGHT = frozenset({TaskState.ASSIGNED, TaskState.RUNNING})


class CommandKind(Enum):
    """What a user may wish of a task."""

    SUBMIT = "submit"
    EXECUTE = "execute"
    ASSIGN = "assign"
    CANCEL = "cancel"
    REDRIVE = "redrive"
    DISCARD = "discard"
    UNKNOWN = "unknown"


class ReportKind(Enum):
    """What an agent says of an attempt."""

    STARTED = "started"
    PROGRESS = "progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CALLBACK_SENT = "callback_sent"
    CALLBACK_FAILED = "callback_failed"
    UNKNOWN = "unknown"


class TaskEventKind(Enum):
    """What became of a task; the first eleven are transitions, the others change nothing."""

    ACCEPTED = "accepted"
    QUEUED = "queued"
    ASSIGNED = "assigned"
    STARTED = "started"
    RETRY_SCHEDULED = "retry_scheduled"
    REQUEUED = "requeued"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEAD_LETTERED = "dead_lettered"
    REFUSED = "refused"
    REASSIGNED = "reassigned"
    PROGRESS = "progress"
    LATE_REPORT = "late_report"
    REPLY_FAILED = "reply_failed"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"
    CALLBACK_SENT = "callback_sent"
    CALLBACK_FAILED = "callback_failed"
    UNKNOWN = "unknown"


class Admission(Enum):
    """`reject` refuses a submit that cannot start now, `wait` lets it wait."""

    REJECT = "reject"
    WAIT = "wait"
    UNKNOWN = "unknown"


class TaskError(Record):
    """Why an attempt or a task failed; `code` is a word of the product's list."""

    code: str
    message: str
    retryable: bool = False
    agent_id: str | None = None
    attempt: Int = 0
    details: Json = "{}"


class Usage(Record):
    """What a provider charged for; `cost` in US dollars."""

    provider: str
    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


class TaskCommand(Envelope):
    """A wish about a task; `submit` carries all client fields, the other kinds a few."""

    kind: CommandKind = CommandKind.SUBMIT
    task_id: str = Field(pattern=ID)
    pattern: str | None = None
    type: str = ""
    description: str = ""
    payload: Json = "{}"
    context: Json = "{}"
    metadata: Json = "{}"
    agent_id: str | None = None
    required_capabilities: list[str] = []
    priority: Int | None = None
    timeout_seconds: Int | None = None
    callback_url: str | None = None
    parent_task_id: str | None = None
    reply_to: str | None = None
    reply_key: str | None = None
    reply_partition: Int | None = None
    workflow_id: str | None = None
    workflow_instance_id: str | None = None
    step_id: str | None = None
    conversation_id: str | None = None
    session_id: str | None = None
    retry: RetryPolicy | None = None
    hold: bool = False
    not_before: Micros | None = None
    ttl_seconds: int | None = None
    admission: Admission | None = None
    submitted_by: str = "anonymous"
    redrive_of: str | None = None
    redriven_as: str | None = None
    reason: str | None = None
    idempotency_key: str | None = None


class TaskReport(Envelope):
    """What an agent says of one attempt; `epoch` names the assignment it speaks of."""

    kind: ReportKind = ReportKind.UNKNOWN
    task_id: str = Field(pattern=ID)
    agent_id: str
    attempt: Int
    epoch: Int
    progress: float | None = None
    note: str | None = None
    result: Json | None = None
    error: TaskError | None = None
    usage: Usage | None = None


class TaskEvent(Envelope):
    """A fact about a task, written by the coordinator; a transition carries the row's `version`."""

    kind: TaskEventKind = TaskEventKind.UNKNOWN
    task_id: str
    version: int
    cause: str
    from_state: TaskState | None = None
    to_state: TaskState = TaskState.UNKNOWN
    decided_at: Micros
    instance: str = ""
    seq: int = 0
    registry_at: Json = "{}"
    attempt: Int = 0
    epoch: Int = 0
    agent_id: str | None = None
    decision: Json | None = None
    delay_seconds: float | None = None
    error: TaskError | None = None
    result_hash: str | None = None
    progress: float | None = None
    note: str | None = None
    task: Json | None = None
    payload_hash: str | None = None


class TaskResult(Envelope):
    """The one outcome of an accepted task; also, with status `refused`, the answer to a refused submit."""

    task_id: str
    version: int
    cause: str
    status: TaskState = TaskState.UNKNOWN
    pattern: str | None = None
    task_type: str = ""
    agent_id: str | None = None
    result: Json | None = None
    error: TaskError | None = None
    attempts: Int = 0
    created_at: Micros
    started_at: Micros | None = None
    completed_at: Micros
    execution_time: float | None = None
    parent_task_id: str | None = None
    workflow_instance_id: str | None = None
    conversation_id: str | None = None
    usage: Usage | None = None
    degraded: bool = False


class Candidate(Record):
    """One agent as the router saw it; `excluded_by` is the first reason against it."""

    agent_id: str
    eligible: bool = True
    excluded_by: str | None = None
    state: str = "up"
    breaker: str = "closed"
    in_flight: int
    max_in_flight: int
    tokens: float | None = None
    effective_weight: float = 1.0
    latency_ms_ewma: float | None = None
    success_rate: float | None = None
    score: float | None = None


class RoutingInput(Record):
    """What the decision was made from on the side of the task."""

    pattern: str | None = None
    type: str = ""
    required_capabilities: list[str] = []
    agent_id: str | None = None


class DecidedBy(Record):
    """Which coordinator decided, and its version."""

    instance: str
    version: str


class RoutingDecision(Record):
    """An explained choice; carried as JSON text in rows and events, without fields at their default.

    With more than 50 candidates the excluded ones are counted in `excluded_counts` and the first 50 are listed.
    """

    decision_id: str
    task_id: str
    attempt: int
    at: int
    input: RoutingInput
    rule: str | None = None
    target: str | None = None
    strategy: str
    candidates: list[Candidate] = []
    excluded_counts: dict[str, int] = {}
    chosen: str | None = None
    reason: str
    queue_level: int = 3
    queue_wait_ms: int = 0
    route_ms: float = 0.0
    coordinator: DecidedBy
