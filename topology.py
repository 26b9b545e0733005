"""The wiring of troupe as one value: every topic, table, processor, view and role, to be read top to bottom.

Nothing here runs. The Kafka runtime, `topology apply`, `describe` and the tests all start from the value that `troupe()`
returns, so a rewiring is a change of this file and shows as a diff of `Topology.describe()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from schemas.agents import AgentRow
from schemas.base import Record
from schemas.changelog import ChangelogHeader
from schemas.errors import SchemaError
from schemas.settings import Settings
from schemas.task_row import TaskRow
from schemas.topics import (
    AGENT_COMMANDS,
    AGENT_EVENTS,
    AGENT_HEALTH,
    AGENT_REGISTRY,
    CLIENT_REPLIES,
    COMPACT_LAG_MICROS,
    DEAD_LETTERS,
    INBOX,
    REPLY_TO,
    TASK_EVENTS,
    TASK_REPORTS,
    TASK_REQUESTS,
    TASK_RESULTS,
    Topic,
    TopicClass,
)
from streams.processor import ProcessorSpec

MICROS_PER_DAY = 86_400_000_000

@dataclass(frozen=True, slots=True)
class RoleSpec:
    """One kind of process and what it does."""

    name: str
    does: str


@dataclass(frozen=True, slots=True)
class Topology:
    """The whole wiring."""

    topics: tuple[Topic, ...]
    processors: tuple[ProcessorSpec, ...]
    roles: tuple[RoleSpec, ...]

    def all_topics(self) -> Iterator[Topic]:
        """Public topics, families left out, then the internal ones of each processor."""
        yield from (topic for topic in self.topics if not topic.family)
        for spec in self.processors:
            yield from (spec.wakes, spec.repartition, spec.changelog)

    def models(self) -> dict[str, type[Record]]:
        """Record by subject, for the registry and the codecs."""
        found = {topic.subject: topic.record for topic in self.topics}
        for spec in self.processors:
            found |= {spec.wakes.subject: spec.wakes.record, spec.changelog.subject: spec.row}
        found["changelog.header-value"] = ChangelogHeader
        return found

    def validate(self) -> None:
        """Refuse wiring that cannot work; raises SchemaError naming the first fault."""
        names = [topic.name for topic in self.all_topics()]
        _refuse_double(names, "topic")
        _refuse_double([spec.name for spec in self.processors], "processor")
        records: dict[str, type[Record]] = {}
        for topic in self.topics:
            if records.setdefault(topic.subject, topic.record) is not topic.record:
                raise SchemaError(f"subject '{topic.subject}' is used for two records")
            if topic.key not in topic.record.model_fields and topic is not INBOX:
                raise SchemaError(f"topic '{topic.name}': its key '{topic.key}' is no field of {topic.record.__name__}")
        for spec in self.processors:
            self._validate_processor(spec)

    def _validate_processor(self, spec: ProcessorSpec) -> None:
        for topic in spec.inputs:
            if not topic.input or topic.partitions is not None:
                raise SchemaError(f"processor '{spec.name}' reads '{topic.name}', which is not laid out as an input")
        if len({topic.key for topic in spec.inputs}) > 1:
            raise SchemaError(f"processor '{spec.name}': its inputs are keyed differently")
        for topic in (*spec.inputs, *spec.outputs_to, *spec.views):
            if topic not in self.topics:
                raise SchemaError(f"processor '{spec.name}' uses '{topic.name}', which the topology does not list")
        for topic in spec.views:
            if topic.retention is not TopicClass.COMPACT:
                raise SchemaError(f"processor '{spec.name}' looks at '{topic.name}', which is not compacted")
        for field in ("version", "cause"):
            if field not in spec.row.model_fields:
                raise SchemaError(f"row {spec.row.__name__} of '{spec.name}' has no '{field}'")

    def describe(self) -> str:
        """The wiring as text; asserted whole in a test."""
        lines = ["topics"]
        for topic in self.topics:
            marks = [m for m, on in (("input", topic.input), ("edge", topic.edge), ("wraps", topic.wraps)) if on]
            count = "" if topic.partitions is None else f" partitions={topic.partitions}"
            lines.append(
                f"  {topic.name}  key={topic.key} record={topic.record.__name__} class={topic.retention.name}"
                f"{count}{' ' if marks else ''}{' '.join(marks)}"
            )
        for spec in self.processors:
            lines += [f"processor {spec.name}  row={spec.row.__name__} changelog={spec.changelog.name}"]
            lines += [f"  <- {topic.name}" for topic in spec.reads]
            lines += [f"  .. {topic.name}" for topic in spec.views]
            lines += [f"  -> {topic.name}" for topic in spec.outputs_to]
        lines += ["roles", *(f"  {role.name}: {role.does}" for role in self.roles)]
        return "\n".join(lines) + "\n"

    def document(self) -> dict[str, Any]:
        """The wiring as JSON values."""
        return {
            "topics": [
                {"name": topic.name, "key": topic.key, "record": topic.record.__name__, "class": topic.retention.name}
                for topic in self.topics
            ],
            "processors": [
                {
                    "name": spec.name,
                    "row": spec.row.__name__,
                    "changelog": spec.changelog.name,
                    "reads": [topic.name for topic in spec.reads],
                    "views": [topic.name for topic in spec.views],
                    "writes": [topic.name for topic in spec.outputs_to],
                }
                for spec in self.processors
            ],
            "roles": [{"name": role.name, "does": role.does} for role in self.roles],
        }

    def mermaid(self) -> str:
        """The wiring as a mermaid flow chart."""
        ids = {topic.name: f"t{n}" for n, topic in enumerate(self.topics)}
        lines = ["flowchart LR", *(f'  {ids[topic.name]}(["{_escape(topic.name)}"])' for topic in self.topics)]
        for spec in self.processors:
            box = f"p_{spec.name}"
            lines.append(f'  {box}["{spec.name}<br/>table: {spec.row.__name__}"]')
            lines += [f"  {ids[topic.name]} --> {box}" for topic in spec.inputs]
            lines += [f"  {ids[topic.name]} -.-> {box}" for topic in spec.views]
            lines += [f"  {box} --> {ids[topic.name]}" for topic in spec.outputs_to]
        lines += ['  actors["actors"]', f"  {ids[INBOX.name]} --> actors", f"  actors --> {ids[TASK_REPORTS.name]}"]
        return "\n".join(lines) + "\n"


def troupe() -> Topology:
    """The wiring of this version."""
    return Topology(
        topics=(
            TASK_REQUESTS, TASK_REPORTS, TASK_EVENTS, TASK_RESULTS, REPLY_TO, DEAD_LETTERS, INBOX,
            AGENT_COMMANDS, AGENT_EVENTS, AGENT_REGISTRY, AGENT_HEALTH, CLIENT_REPLIES,
        ),
        processors=(
            ProcessorSpec(
                "tasks", TaskRow,
                inputs=(TASK_REQUESTS, TASK_REPORTS),
                outputs_to=(INBOX, TASK_EVENTS, TASK_RESULTS, REPLY_TO, DEAD_LETTERS),
                views=(AGENT_REGISTRY, AGENT_HEALTH),
            ),
            ProcessorSpec(
                "agents", AgentRow,
                inputs=(AGENT_COMMANDS,),
                outputs_to=(AGENT_EVENTS, AGENT_REGISTRY, AGENT_HEALTH, INBOX, DEAD_LETTERS),
            ),
        ),
        roles=(
            RoleSpec("broker", "Apache Kafka, only when embedded"),
            RoleSpec("coordinator", "runs the processors: decides, explains, remembers"),
            RoleSpec("actors", "hosts agents: reads inboxes, runs handlers, reports"),
        ),
    )  # fmt: skip


def partitions_of(topic: Topic, settings: Settings) -> int:
    """Partition count with which a topic is created."""
    return topic.partitions or settings.kafka.partitions


def config_of(topic: Topic, settings: Settings) -> dict[str, str]:
    """Kafka's own settings of a topic, as `topology apply` sets them."""
    days = settings.retention_days
    kept = {TopicClass.L: days.l, TopicClass.E: days.e, TopicClass.D: days.d}
    config: dict[str, str] = {}
    if topic.retention in kept:
        config |= {"cleanup.policy": "delete", "retention.ms": str(kept[topic.retention] * MICROS_PER_DAY // 1000)}
    elif topic.retention is TopicClass.COMPACT:
        config |= {"cleanup.policy": "compact", "min.compaction.lag.ms": str(COMPACT_LAG_MICROS // 1000)}
    else:
        config |= {"cleanup.policy": "compact", "min.compaction.lag.ms": "3600000"}
    if topic.input or topic.retention is TopicClass.CHANGELOG:  # a changelog's acks show the broker's clock
        config["message.timestamp.type"] = "LogAppendTime"
    if topic.wraps:
        config["max.message.bytes"] = str(settings.limits.max_wrapped_bytes)
    return config


def _refuse_double(names: list[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(f"{what} '{name}' is listed twice")


def _escape(name: str) -> str:
    return name.replace("<", "&lt;").replace(">", "&gt;")
