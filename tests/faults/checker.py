"""Reads every topic from its beginning and judges the invariants I1 to I4 and I7, each named in what is reported.

Nothing is believed but the log, the submitter's ledger and the local store: the checker shares codecs with the product,
and no logic.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rocksdict
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from schemas.agents import AgentState
from schemas.changelog import HEADER_KEY
from schemas.codec import Codecs
from schemas.deadletters import DeadLetterKind
from schemas.errors import DecodeError
from schemas.settings import Settings
from schemas.tasks import TERMINAL, ReportKind, TaskEventKind, TaskState
from schemas.topics import (
    AGENT_EVENTS,
    DEAD_LETTERS,
    INBOX,
    TASK_EVENTS,
    TASK_REPORTS,
    TASK_REQUESTS,
    TASK_RESULTS,
    Topic,
    inbox_name,
)
from streams.processor import ProcessorSpec
from tests.faults.submitter import Entry
from topology import troupe

RUNNING = (TaskState.ASSIGNED, TaskState.RUNNING)
TRANSITIONS = frozenset([*list(TaskEventKind)[:11], TaskEventKind.REASSIGNED])


@dataclass
class Found:
    """One record of a topic as it lies in the log."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    record: Any


@dataclass
class Fold:
    """A changelog read by its header rows: rows by (partition, key), and what was found on the way."""

    rows: dict[tuple[int, bytes], Any] = field(default_factory=dict)
    values: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    last: dict[tuple[int, bytes], bytes | None] = field(default_factory=dict)
    strays: int = 0
    jumps: list[str] = field(default_factory=list)
    unclosed: int = 0


@dataclass
class Report:
    """violations by name with a few examples; facts are counts worth printing."""

    violations: dict[str, list[str]]
    facts: dict[str, Any]

    def text(self) -> str:
        bad = {name: (len(found), found[:3]) for name, found in self.violations.items() if found}
        return f"{bad or 'no violation'} {self.facts}"


class Checker:
    """Judges one installation; the coordinator must be stopped when the local store is compared."""

    def __init__(self, settings: Settings, codecs: Codecs, entries: list[Entry]) -> None:
        self._settings, self._codecs, self._entries = settings, codecs, entries
        self._prefix = settings.kafka.topic_prefix
        self._bad: dict[str, list[str]] = defaultdict(list)
        self._facts: dict[str, Any] = {}

    agents: tuple[str, ...] = ("first", "second")

    async def _all(self, name: str, partitions: int) -> list[Found]:
        """Every record of a topic, by its real name; where the log lies is all that a run in memory changes."""
        return await read_all(self._settings.kafka.bootstrap_servers, name, partitions)

    async def check(self) -> Report:
        """Read everything and judge."""
        self.events = await self.read(TASK_EVENTS)
        self.results = await self.read(TASK_RESULTS)
        self.letters = await self.read(DEAD_LETTERS)
        self.reports = await self.read(TASK_REPORTS)
        self.inboxes = [each for name in self.agents for each in await self.read(INBOX, inbox_name(name))]
        agent_events = await self.read(AGENT_EVENTS)
        self._outcomes()
        self._versions()
        self._ids([*self.events, *self.results, *self.letters, *self.inboxes, *agent_events])
        self._dead_letters()
        self._refusals()
        for spec in troupe().processors:
            self._table(spec, await self._fold(spec))
        self._spurious_timeouts()
        return Report(dict(self._bad), self._facts)

    async def read(self, topic: Topic, name: str | None = None) -> list[Found]:
        """All records of a topic, decoded, by partition and offset."""
        codec = self._codecs.of(topic.subject)
        count = topic.partitions or self._settings.kafka.partitions
        found = await self._all(self._prefix + (name or topic.name), count)
        for each in found:
            each.record = None if each.value is None else codec.decode(each.value)
        return found

    # --- I1, I2: outcomes

    def _wanted(self) -> set[str]:
        return {entry.id for entry in self._entries if entry.id and entry.ack}

    def _outcomes(self) -> None:
        by_task: dict[str, set[bytes]] = defaultdict(set)
        for each in self.results:
            by_task[each.record.task_id].add(each.value)
        wanted = self._wanted()
        self._bad["I1 missing outcome"] = sorted(wanted - set(by_task))
        self._bad["I2 two outcomes"] = [task for task, values in by_task.items() if len(values) > 1]
        self._bad["I2 outcome of nothing submitted"] = sorted(set(by_task) - {entry.id for entry in self._entries})
        states = Counter(str(each.status) for each in {e.record.task_id: e.record for e in self.results}.values())
        self._facts |= {"tasks": len(wanted), "outcomes": dict(states), "duplicates": len(self.results) - len(by_task)}

    # --- I3: versions and states

    def _versions(self) -> None:
        chains: dict[str, dict[int, Any]] = defaultdict(dict)
        for each in self.events:
            event = each.record
            if event.kind not in TRANSITIONS:
                continue
            known = chains[event.task_id].setdefault(event.version, each)
            if known.value != each.value:
                text = f"{event.task_id} {event.version} {_difference(known, each)}"
                self._bad["I3 one version, two events"].append(text)
        for task, chain in chains.items():
            versions = sorted(chain)
            if versions != list(range(1, len(versions) + 1)):
                self._bad["I3 version gap"].append(f"{task} {versions}")
                continue
            state: TaskState | None = None
            for version in versions:
                event = chain[version].record
                if event.from_state != state:
                    self._bad["I3 broken chain"].append(f"{task} {version}: from {event.from_state}, was {state}")
                if state in TERMINAL:
                    self._bad["I3 left a terminal state"].append(f"{task} {version}")
                state = event.to_state
            if state not in TERMINAL:
                self._bad["I1 open at the end"].append(f"{task} {state}")
        kinds = Counter(str(each.record.kind) for each in self.events)
        names = ("queued", "retry_scheduled", "requeued", "late_report")
        self._facts |= {name: kinds[name] for name in names if kinds[name]}

    def _ids(self, found: list[Found]) -> None:
        """One id names one record, however often it was written."""
        by_id: dict[str, Found] = {}
        again = 0
        for each in found:
            if each.record is None:
                continue
            first = by_id.setdefault(each.record.event_id, each)
            again += first is not each
            if (first.value, first.topic) != (each.value, each.topic):
                self._bad["I2 one id, two records"].append(f"{each.record.event_id} {_difference(first, each)}")
        self._facts["re_emitted"] = again

    # --- I7: what was refused or could not be read

    def _dead_letters(self) -> None:
        unread = [each for each in self.letters if each.record.kind is DeadLetterKind.POISON]
        poison = {each.record.original_value: each for each in unread}
        garbage = {entry.value for entry in self._entries if not entry.id and entry.ack}
        self._bad["I7 no dead letter"] = [repr(value) for value in garbage - set(poison)]
        for value, each in poison.items():
            if value not in garbage:
                self._bad["I7 dead letter of a sound record"].append(f"{each.record.error} {value[:60]!r}")
        places = {entry.value: entry.ack for entry in self._entries if not entry.id}
        for value in garbage & set(poison):
            letter = poison[value].record
            if f"{letter.source_topic}.{letter.partition}.{letter.offset}" != places[value]:
                self._bad["I7 wrong origin"].append(f"{letter.source_topic}.{letter.partition}.{letter.offset}")
        dead = {each.record.task_id for each in self.results if each.record.status is TaskState.DEAD_LETTERED}
        of_tasks: dict[str, set[bytes]] = defaultdict(set)
        for each in self.letters:
            if each.record.kind is DeadLetterKind.TASK:
                of_tasks[each.record.task_id].add(each.value)
        self._bad["I7 dead-lettered without its letter"] = sorted(dead ^ set(of_tasks))
        self._bad["I2 two dead letters"] = [task for task, values in of_tasks.items() if len(values) > 1]
        self._facts["poison"] = len(poison)

    def _refusals(self) -> None:
        refused: dict[str, set[str]] = defaultdict(set)
        for each in self.events:
            if each.record.kind is TaskEventKind.REFUSED:
                refused[each.record.task_id].add(each.record.event_id)
        conflicts = {entry.id: entry.ack for entry in self._entries if entry.kind == "conflict"}
        self._bad["I7 conflict without refusal"] = sorted({task for task, ack in conflicts.items() if ack} - set(refused))
        self._bad["I7 refused twice or without a conflict"] = [
            task for task, ids in refused.items() if len(ids) > 1 or task not in conflicts  # not acked may yet be written
        ]
        self._facts["refused"] = len(refused)

    # --- I3, I4: tables

    async def _fold(self, spec: ProcessorSpec) -> Fold:
        fold, pending = Fold(), defaultdict(list)
        rows, headers = self._codecs.of(spec.changelog.subject), self._codecs.of("changelog.header-value")
        for each in await self._all(self._prefix + spec.changelog.name, self._settings.kafka.partitions):
            if each.key != HEADER_KEY:
                pending[each.partition].append(each)
                fold.last[each.partition, each.key] = each.value
                continue
            batch, pending[each.partition] = pending[each.partition], []
            header = _readable(headers, each.value)
            if header is None or header.base != each.offset - header.count or header.count != len(batch):
                fold.strays += 1
                continue
            for row in batch:
                self._apply(fold, row, None if row.value is None else rows.decode(row.value))
        fold.unclosed = sum(map(len, pending.values()))
        return fold

    def _apply(self, fold: Fold, found: Found, row: Any) -> None:
        place = found.partition, found.key
        before = fold.rows.get(place)
        if row is None:
            fold.rows.pop(place, None)
            fold.values.pop(place, None)
            return
        again = before is not None and fold.values[place] == found.value
        anew = before is None or getattr(before, "state", None) is AgentState.ABSENT  # an ended row's key begins anew
        if not again and row.version != (1 if anew else before.version + 1):
            fold.jumps.append(f"{found.key!r} {before and before.version} -> {row.version}")
        left = before is not None and getattr(before, "state", None) in TERMINAL and row.state != before.state
        if left:
            fold.jumps.append(f"{found.key!r} left {before.state}")
        fold.rows[place], fold.values[place] = row, found.value

    def _table(self, spec: ProcessorSpec, fold: Fold) -> None:
        name = spec.name
        self._bad[f"I3 {name}: versions in the changelog"] = fold.jumps
        self._bad[f"I4 {name}: rows without a header"] = [str(fold.unclosed)] if fold.unclosed else []
        if name == "tasks":
            open_rows = [row.task_id for row in fold.rows.values() if row.state not in TERMINAL]
            self._bad["I1 row open at the end"] = open_rows
        homes: dict[bytes, set[int]] = defaultdict(set)
        for partition, key in fold.last:
            homes[key].add(partition)
        self._bad[f"I4 {name}: key in two partitions"] = [repr(key) for key, at in homes.items() if len(at) > 1]
        kept = {place: value for place, value in fold.last.items() if value is not None}
        self._bad[f"I4 {name}: compaction would keep another row"] = [
            repr(place) for place in kept.keys() | fold.values.keys() if kept.get(place) != fold.values.get(place)
        ]
        stored = self._stored(spec)
        self._bad[f"I4 {name}: local store differs from the fold"] = [
            repr(place) for place in stored.keys() | fold.values.keys() if stored.get(place) != fold.values.get(place)
        ]
        self._facts["strays"] = self._facts.get("strays", 0) + fold.strays

    def _stored(self, spec: ProcessorSpec) -> dict[tuple[int, bytes], bytes]:
        found: dict[tuple[int, bytes], bytes] = {}
        for path in Path(self._settings.data_dir / "tables").glob(f"**/{spec.name}-*.db"):
            partition = int(path.stem.rsplit("-", 1)[1])
            database = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
            for key, value in database.items():
                if key[:1] == b"o":
                    found[partition, key[1:]] = value
                elif key[:1] == b"f":
                    found[partition, key[1:]] = value[8:]  # in front lies when it may leave
            database.close()
        return found

    # --- no attempt times out whose report is in the log

    def _spurious_timeouts(self) -> None:
        deadlines = {
            (each.record.task.task_id, each.record.task.epoch): each.record.task.deadline_at
            for each in self.inboxes
            if each.record.task is not None
        }
        told: dict[tuple[str, int], int] = {}
        for each in self.reports:
            if each.record.kind in (ReportKind.COMPLETED, ReportKind.FAILED):
                told.setdefault((each.record.task_id, each.record.epoch), each.timestamp * 1000)
        timeouts = 0
        for each in self.events:
            event = each.record
            if event.kind not in TRANSITIONS or event.error is None or event.error.code != "timeout":
                continue
            timeouts += 1
            place = event.task_id, event.epoch
            if place in told and place in deadlines and told[place] < deadlines[place]:
                self._bad["timed out with its report in the log"].append(f"{place}")
        self._facts["timeouts"] = timeouts


def _readable(codec: Any, value: bytes | None) -> Any:
    """The header row of a value, None for one that somebody else wrote."""
    try:
        return None if value is None else codec.decode(value)
    except DecodeError:
        return None


def top_load(events: list[Found], begun: int, ended: int) -> int:
    """The most tasks that one agent had at once between two instants, microseconds, by when it was decided."""
    changes: list[tuple[int, int, str]] = []
    for event in {each.record.event_id: each.record for each in events if each.record.kind in TRANSITIONS}.values():
        held, holds = event.from_state in RUNNING, event.to_state in RUNNING
        if begun <= event.decided_at <= ended and held != holds:
            changes.append((event.decided_at, 1 if holds else -1, event.agent_id))
    load, top = Counter[str](), 0
    for _, change, agent in sorted(changes):
        load[agent] += change
        top = max(top, load[agent])
    return top


def _difference(one: Found, other: Found) -> str:
    """What differs between two records that should be one."""
    if one.topic != other.topic:
        return f"{one.topic} {other.topic}"
    first, second = one.record.model_dump(), other.record.model_dump()
    return str({name: (first[name], second[name]) for name in first if first[name] != second[name]})


async def read_all(bootstrap: str, topic: str, partitions: int) -> list[Found]:
    """All records that a topic has now, by partition and offset."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        found: list[Found] = []
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                found += [
                    Found(each.topic, each.partition, each.offset, each.key, each.value, each.timestamp, None)
                    for each in batch
                ]
    finally:
        await consumer.stop()
    return sorted(found, key=lambda each: (each.partition, each.offset))


async def ends(settings: Settings) -> dict[TopicPartition, int]:
    """Where the coordinator's inputs end now; heartbeats go on, so later there will be more."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    try:
        names = [settings.kafka.topic_prefix + topic.name for spec in troupe().processors for topic in spec.reads]
        places = [TopicPartition(name, number) for name in names for number in range(settings.kafka.partitions)]
        return await consumer.end_offsets(places)
    finally:
        await consumer.stop()


async def lag(settings: Settings, until: dict[TopicPartition, int]) -> dict[str, int]:
    """Records of the coordinator's inputs before these ends that are not committed yet, where there are any."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    await admin.start()
    try:
        commits = await admin.list_consumer_group_offsets(f"{settings.kafka.topic_prefix}coordinator")
    finally:
        await admin.close()
    done = {place: max(0, commits[place].offset) if place in commits else 0 for place in until}
    return {f"{place.topic}.{place.partition}": end - done[place] for place, end in until.items() if end > done[place]}


def handler_starts(path: Path) -> Counter:
    """How often each attempt was started, by (task_id, attempt)."""
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter((each["id"], each["attempt"]) for each in map(json.loads, lines))


__all__ = ["TASK_REQUESTS", "Checker", "Report", "ends", "handler_starts", "lag", "read_all", "top_load"]
