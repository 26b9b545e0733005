"""What an agent finds in its inbox: work, the withdrawal of work, messages, and the wish that it stop."""

from __future__ import annotations

from schemas.base import Enum, Envelope, Int, Json, Micros, Record


class InboxKind(Enum):
    """What the record asks of the agent."""

    ASSIGN = "assign"
    CANCEL = "cancel"
    MESSAGE = "message"
    STOP = "stop"
    UNKNOWN = "unknown"


class AssignedTask(Record):
    """One attempt of a task; (`task_id`, `epoch`) names the assignment, `deadline_at` ends it."""

    task_id: str
    attempt: Int
    epoch: Int
    type: str = ""
    pattern: str | None = None
    description: str = ""
    payload: Json = "{}"
    context: Json = "{}"
    metadata: Json = "{}"
    deadline_at: Micros
    last_attempt: bool = False


class InboxMessage(Record):
    """A message of another agent."""

    message_id: str
    from_agent: str
    type: str
    payload: Json = "{}"


class InboxRecord(Envelope):
    """One record of `agents.<agent_id>.inbox`."""

    kind: InboxKind = InboxKind.UNKNOWN
    task: AssignedTask | None = None
    message: InboxMessage | None = None
    task_id: str | None = None
    epoch: Int | None = None
    reason: str | None = None
