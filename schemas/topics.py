"""The topics by name: key, record and class of each, as values that rules, clients and the wiring share.

A `Topic` knows nothing of a cluster. Its real name has the prefix of the installation in front; partitions, replicas and
retention follow from its class and the settings when `topology apply` creates it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from schemas.agents import AgentCommand, AgentEvent, AgentHealth, AgentRecord
from schemas.base import Record
from schemas.changelog import WakeRecord
from schemas.deadletters import DeadLetter
from schemas.inbox import InboxRecord
from schemas.tasks import TaskCommand, TaskEvent, TaskReport, TaskResult

COMPACT_LAG_MICROS = 7 * 86_400_000_000
"""For how long a compacted topic keeps every record, so that late ones can be told from new ones."""


class TopicClass(Enum):
    """How long records stay: deleted after a time, or compacted."""

    L = auto()
    E = auto()
    D = auto()
    COMPACT = auto()
    CHANGELOG = auto()


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, or a family of topics with one record.

    name: without the installation's prefix; a family has `<agent_id>` or the like in it, or is named by its user.
    key: the field of the record that is the key.
    input: read by a processor, so it has the installation's partition count and the broker's append times.
    edge: read by people and foreign tools, so its records carry the CloudEvents headers.
    wraps: its records hold a whole request, so it takes records of 4 MiB.
    partitions: a fixed count, or None for the installation's.
    """

    name: str
    record: type[Record]
    key: str
    retention: TopicClass
    input: bool = False
    edge: bool = False
    wraps: bool = False
    partitions: int | None = None
    family: bool = False
    subject_name: str = field(default="")

    @property
    def subject(self) -> str:
        """Subject of the record's schemas in the registry; families share one."""
        return f"{self.subject_name or self.name}-value"


TASK_REQUESTS = Topic("tasks.requests", TaskCommand, "task_id", TopicClass.L, input=True, edge=True)
TASK_REPORTS = Topic("tasks.reports", TaskReport, "task_id", TopicClass.L, input=True)
TASK_EVENTS = Topic("tasks.events", TaskEvent, "task_id", TopicClass.E)
TASK_RESULTS = Topic("tasks.results", TaskResult, "task_id", TopicClass.E, edge=True)
REPLY_TO = Topic("<reply_to>", TaskResult, "task_id", TopicClass.E, edge=True, family=True, subject_name="tasks.results")
DEAD_LETTERS = Topic("tasks.deadletters", DeadLetter, "task_id", TopicClass.D, edge=True, wraps=True)
INBOX = Topic(
    "agents.<agent_id>.inbox", InboxRecord, "task_id", TopicClass.L,
    wraps=True, partitions=1, family=True, subject_name="agents.inbox",
)  # fmt: skip
AGENT_COMMANDS = Topic("agents.commands", AgentCommand, "agent_id", TopicClass.L, input=True)
AGENT_EVENTS = Topic("agents.events", AgentEvent, "agent_id", TopicClass.E)
AGENT_REGISTRY = Topic("agents.registry", AgentRecord, "agent_id", TopicClass.COMPACT)
AGENT_HEALTH = Topic("agents.health", AgentHealth, "agent_id", TopicClass.COMPACT)
CLIENT_REPLIES = Topic("replies.clients", TaskResult, "task_id", TopicClass.L, edge=True, subject_name="tasks.results")


def inbox_name(agent_id: str) -> str:
    """Name of an agent's inbox topic, without the installation's prefix."""
    return f"agents.{agent_id}.inbox"


def wakes_topic(processor: str) -> Topic:
    """The topic to which a processor writes the wakes of its rows."""
    return Topic(
        f"{processor}.wakes", WakeRecord, "key", TopicClass.L, input=True, subject_name="wakes",
    )  # fmt: skip


def repartition_topic(processor: str) -> Topic:
    """The topic to which a processor re-produces records that lie outside their home; values as in their source.

    A copy bears its origin in a header more, so it may be larger than what the source takes.
    """
    return Topic(f"{processor}.repartition", Record, "key", TopicClass.L, input=True, wraps=True)
