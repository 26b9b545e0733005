"""What a host in memory needs of a log, and what the log says of agents: who is registered, and who was refused.

Which names no host takes is here too, for hosts on Kafka as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from schemas.agents import AgentDefinition, AgentEvent, AgentEventKind, AgentRecord
from schemas.codec import Codecs
from schemas.errors import DecodeError, OperatorError, UnknownSchemaId
from schemas.topics import AGENT_EVENTS, AGENT_REGISTRY

Headers = tuple[tuple[str, bytes], ...]
New = tuple[bytes | None, bytes | None, Headers]
"""(key, value, headers) of a record to append."""

_AT_ONCE = 1000


def refuse_lookalikes(agent_ids: Iterable[str], known: Iterable[str]) -> None:
    """Ids that differ in case only are two agents to Kafka and one to people, and to disks that ignore case.

    Raises OperatorError for the first of `agent_ids` that is like another or like one of `known`, or there twice.
    """
    folded, seen = {agent_id.casefold(): agent_id for agent_id in known}, set[str]()
    for each in agent_ids:
        other = folded.setdefault(each.casefold(), each)
        if other != each:
            raise OperatorError(f"Agent '{each}' differs from agent '{other}' in case only", hint="give one another name")
        if each in seen:
            raise OperatorError(f"Agent '{each}' is there twice", hint="give one another name")
        seen.add(each)


class Lying(Protocol):
    """A record as it lies in the log; `timestamp` is its append time in microseconds."""

    @property
    def offset(self) -> int: ...

    @property
    def timestamp(self) -> int: ...

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Headers: ...


class Log(Protocol):
    """The part of a log in memory that hosts use."""

    def topics(self) -> Mapping[str, int]:
        """Partition counts by real name."""

    def append(self, topic: str, partition: int, records: Sequence[New]) -> int:
        """Append one batch; returns the offset of its first record."""

    def read(self, topic: str, partition: int, offset: int, limit: int) -> Sequence[Lying]:
        """At most `limit` records from `offset` on."""

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record will get."""

    def commit(self, group: str, topic: str, partition: int, offset: int, metadata: str = "") -> None:
        """Remember where a group goes on reading."""

    def commits(self) -> Mapping[tuple[str, str, int], tuple[int, str]]:
        """What was remembered, by (group, topic, partition)."""


class Directory:
    """The registry as far as it was read; refusals by the position of the command that was refused."""

    def __init__(self, prefix: str, codecs: Codecs, log: Log) -> None:
        self.known: dict[str, AgentDefinition] = {}
        self.refused: dict[str, str] = {}
        self._registry, self._events = prefix + AGENT_REGISTRY.name, prefix + AGENT_EVENTS.name
        self._records, self._facts = codecs.of(AGENT_REGISTRY.subject), codecs.of(AGENT_EVENTS.subject)
        self._log = log
        self._next: dict[tuple[str, int], int] = {}

    def read(self) -> None:
        """Read what is new."""
        for topic in (self._registry, self._events):
            for partition in range(self._log.topics()[topic]):
                while records := self._log.read(topic, partition, self._next.get((topic, partition), 0), _AT_ONCE):
                    self._next[topic, partition] = records[-1].offset + 1
                    for record in records:
                        self._note(topic, record)

    def _note(self, topic: str, record: Lying) -> None:
        try:
            if topic == self._events:
                self._note_event(self._facts.decode(record.value or b""))
            elif record.value is None:
                self.known.pop((record.key or b"").decode(), None)
            else:
                said: AgentRecord = self._records.decode(record.value)
                self.known[said.agent_id] = said.definition
        except (DecodeError, UnknownSchemaId, UnicodeDecodeError):
            return  # not about us: ours will be written with a schema that is known

    def _note_event(self, event: AgentEvent) -> None:
        if event.kind is AgentEventKind.REFUSED:
            self.refused[event.cause] = event.error.message if event.error else "The registry refused the agent"
