"""Agent hosts as small as they can be: they keep to the contract of an agent, but for what a test switches off.

An agent reads its inbox, works for a while, reports, and commits the contiguous prefix of what it has reported. It may fail,
hang, answer late or twice, die with work in hand, or say nothing for so long that it counts as gone.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from schemas.codec import Codecs
from schemas.inbox import InboxKind
from schemas.partitioning import home
from schemas.tasks import ReportKind, TaskError, TaskReport
from schemas.topics import INBOX, TASK_REPORTS, inbox_name
from streams.runtime.memory_log import Producer, Sending
from tests.simulation.installation import PARTITIONS, SECOND, RecordedLog
from tests.simulation.users import Users, definition_of

HEARTBEAT = 5 * SECOND
OUTCOMES = ("completed",) * 7 + ("brink",) * 4 + ("failed",) * 2 + ("fatal", "hang", "late", "twice")


@dataclass
class Work:
    """One assignment in hand; `until` is when it is reported, microseconds."""

    offset: int
    task_id: str
    epoch: int
    attempt: int
    until: int
    outcome: str
    started: bool = False
    sendings: tuple[Sending, ...] = ()


class Host:
    """One agent and its consumer group."""

    commits_before_acks = False
    """The rule that a test may switch off: a report is acked before its assignment's offset is committed."""

    def __init__(self, agent_id: str, log: RecordedLog, codecs: Codecs, rng: random.Random, users: Users) -> None:
        self.agent_id, self.log, self.codecs, self.rng, self.users = agent_id, log, codecs, rng, users
        self.topic, self.group = f"s.{inbox_name(agent_id)}", f"s.actors.{agent_id}"
        self.definition = definition_of(agent_id, rng.choice([1, 1, 1, 2, 4]))
        self.registered = self.tame = False
        self.born = 0
        self.settled: set[tuple[str, int]] = set()
        """Assignments, by task and epoch, whose offset is committed because of a report."""
        self.begin()

    def begin(self) -> None:
        """Start, or start again: what was in hand is gone, and the inbox is read from the last commit."""
        self.producer = Producer(self.log, at_once=False)
        self.works: list[Work] = []
        self.done: set[int] = set()
        self.reported: dict[int, tuple[str, int]] = {}
        self.beat_at = 0
        committed = self.log.committed(self.group, self.topic, 0) if self.topic in self.log.topics() else None
        self.position = self.committed = committed[0] if committed else 0
        self.born += 1

    def register(self) -> str:
        self.registered = True
        return "register at " + self.users.agent_command(self.agent_id, "register", definition=self.definition)

    # --- what a scheduler does

    def due(self) -> int:
        """When there is something to do, microseconds."""
        if not self.registered:
            return 0
        ends = [work.until for work in self.works if not work.sendings]
        return min([self.beat_at, *ends])

    def busy(self) -> bool:
        """Whether a step now would do something."""
        return self.due() <= self.log.clock.now or self._unread() or self._to_commit() > self.committed

    def step(self) -> str:
        """One thing that there is to do."""
        now = self.log.clock.now
        if not self.registered:
            return self.register()
        if now >= self.beat_at:
            self.beat_at = now + HEARTBEAT
            load = len(self.works)
            return "heartbeat at " + self.users.agent_command(self.agent_id, "heartbeat", load=load, inbox_lag=0)
        ripe = [work for work in self.works if work.until <= now and not work.sendings]
        if ripe and (not self._unread() or self.rng.random() < 0.6):
            return self._report(ripe[0])
        if self._unread():
            return self._read()
        return self._commit()

    def _unread(self) -> bool:
        return self.topic in self.log.topics() and self.position < self.log.end(self.topic, 0)

    def _read(self) -> str:
        (stored,) = self.log.read(self.topic, 0, self.position, 1)
        self.position = stored.offset + 1
        record = self.codecs.of(INBOX.subject).decode(stored.value)
        task = record.task
        if record.kind is not InboxKind.ASSIGN or task is None:
            self.done.add(stored.offset)
            for work in [each for each in self.works if (each.task_id, each.epoch) == (record.task_id, record.epoch)]:
                self._drop(work)
            return f"reads {record.kind} {record.task_id}"
        outcome = "completed" if self.tame else self.rng.choice(OUTCOMES)
        after = 0 if self.tame else self.rng.choice([0, 0, SECOND // 10, SECOND, 3 * SECOND])
        until = self.log.clock.now + after
        if outcome == "late":
            until = max(until, task.deadline_at + SECOND)
        if outcome == "brink":  # in time, but not by much
            until = max(self.log.clock.now, task.deadline_at - self.rng.choice([1_000, SECOND, 2 * SECOND]))
        self.works.append(Work(stored.offset, task.task_id, task.epoch, task.attempt, until, outcome))
        return f"takes {task.task_id} epoch {task.epoch}, will be {outcome}"

    def _drop(self, work: Work) -> None:
        self.works.remove(work)
        self.done.add(work.offset)

    def _report(self, work: Work) -> str:
        if work.outcome == "hang":
            work.until = self.log.clock.now + (1 << 50)
            return f"hangs in {work.task_id}"
        if not work.started and not self.tame and self.rng.random() < 0.3:
            work.started = True
            self._send(work, ReportKind.STARTED)
            return f"started {work.task_id}"
        failed = work.outcome in ("failed", "fatal")
        times = 2 if work.outcome == "twice" else 1
        kind = ReportKind.FAILED if failed else ReportKind.COMPLETED
        work.sendings = tuple(self._send(work, kind) for _ in range(times))
        return f"reports {kind} {work.task_id} epoch {work.epoch}"

    def _send(self, work: Work, kind: ReportKind) -> Sending:
        error = TaskError(code="agent_error", message="no", retryable=work.outcome == "failed")
        now = self.log.clock.now
        report = TaskReport(
            event_id=f"{self.agent_id}-{self.born}-{work.task_id}-{work.epoch}-{kind}", occurred_at=now,
            source=self.agent_id, kind=kind, task_id=work.task_id, agent_id=self.agent_id, attempt=work.attempt,
            epoch=work.epoch, error=error if kind is ReportKind.FAILED else None,
            result='{"ok":true}' if kind is ReportKind.COMPLETED else None,
        )  # fmt: skip
        value, key = self.codecs.of(TASK_REPORTS.subject).encode(report), work.task_id.encode()
        foreign = not self.tame and self.rng.random() < 0.05
        partition = zlib.crc32(key) % PARTITIONS if foreign else home(work.task_id, PARTITIONS)
        return self.producer.send(f"s.{TASK_REPORTS.name}", partition, [(key, value, ())])

    def _to_commit(self) -> int:
        for work in list(self.works):
            acked = all(sending.offset is not None for sending in work.sendings)
            if work.sendings and (acked or self.commits_before_acks):
                self._drop(work)
                self.reported[work.offset] = work.task_id, work.epoch
        at = self.committed
        while at in self.done:
            at += 1
        return at

    def _commit(self) -> str:
        at = self._to_commit()
        if at == self.committed:
            return "waits"
        self.done -= set(range(self.committed, at))
        self.committed = at
        self.log.commit(self.group, self.topic, 0, at)
        self.settled |= {place for offset, place in self.reported.items() if offset < at}
        return f"commits {at}"
