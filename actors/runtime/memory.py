"""The host of Python actors on a log in memory, so that agents can be tried without a Kafka and without waiting.

Mailboxes, handlers, ledgers, reports and the journal are those of the host on Kafka; what differs is who turns the wheel.
Nothing here runs by itself: `poll` does what can be done at this moment, `due` says when there will be more, and handlers
run as ever on the loop that polls. The order of the promise is the same: a report is appended before the offset of its
assignment is committed, and what was finished beyond the committed prefix rides in the commit's metadata.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from actors.api import Actor
from actors.handover import Commit, merged, works_for
from actors.inbox import Taken, take
from actors.journal import Journal
from actors.ledger import Ledger
from actors.mailbox import Mailbox, Past
from actors.poison import Found, dead_letter, headers
from actors.reports import Report, Reporter
from actors.runner import Limits, Runner
from actors.runtime.directory import Directory, Log, New, refuse_lookalikes
from schemas.agents import AgentCommand, AgentCommandKind, AgentDefinition
from schemas.codec import Codecs
from schemas.errors import OperatorError, TroupeError, UnknownSchemaId
from schemas.failpoint import Failpoints
from schemas.partitioning import home
from schemas.settings import Settings
from schemas.topics import AGENT_COMMANDS, DEAD_LETTERS, INBOX, TASK_REPORTS, Topic, inbox_name

MICROS = 1_000_000
POLL_MICROS = 100_000
"""Longest time without a look at agents that drain."""

THREADS_SECONDS = 1.0
"""Real time that threads get to end with a host that is killed."""


class MemoryHost:
    """One host process, as it were: `start`, then `poll` whenever there is news, at last `stop` or `kill`."""

    def __init__(
        self,
        settings: Settings,
        actors: Sequence[Actor],
        codecs: Codecs,
        log: Log,
        clock: Callable[[], int],
        seat: Path,
        news: Callable[[], None],
    ) -> None:
        """`clock` gives microseconds, `seat` is the directory of the journal, which a next host may find; `news` is called
        when a handler left something for `poll`. Made and used within one running loop. Raises OperatorError for an agent
        whose name differs from another's in case only, or is there twice.
        """
        past, prefix = Past(settings.actors.remembered), settings.kafka.topic_prefix
        self._settings, self._codecs, self._log, self._clock, self._news = settings, codecs, log, clock, news
        self._groups = {actor.agent_id: _group(settings, actor) for actor in actors}
        self._actors = {actor.agent_id: actor for actor in actors}
        self._boxes = {
            prefix + inbox_name(actor.agent_id): Mailbox(actor.agent_id, actor.max_in_flight, actor.operations, past)
            for actor in actors
        }
        self._directory = Directory(prefix, codecs, log)
        self._directory.read()
        refuse_lookalikes([actor.agent_id for actor in actors], self._directory.known)
        self._announced: dict[str, str] = {}  # position of the command, by agent whose inbox is not open yet
        self._beats: dict[str, int] = {}
        self._draining: dict[str, Mailbox] = {}
        self._reports: list[Report] = []
        self._commit_at: int | None = None
        self._look_at: int | None = None
        self._commands = 0
        self._born = clock()
        self._journal = Journal(seat / "journal", self._born)
        reporter = Reporter(codecs.of(TASK_REPORTS.subject), clock, self._put)
        self._runner = Runner(Limits.of(settings), reporter, self._journal, clock, Failpoints())
        self._console = structlog.get_logger("actors")

    # --- what can be asked

    @property
    def ready(self) -> bool:
        """Whether every agent is registered and its inbox is open."""
        return not self._announced

    @property
    def running(self) -> int:
        """Handlers that run now."""
        return sum(box.running for box in self._boxes.values())

    @property
    def in_threads(self) -> int:
        """Those of them that run in threads."""
        return self._runner.in_threads

    @property
    def next_end(self) -> int | None:
        """When a handler that takes long is ended unasked, microseconds."""
        return self._runner.next_end

    def hosts(self, agent_id: str) -> bool:
        """Whether this agent is one of ours."""
        return agent_id in self._actors

    def due(self) -> int | None:
        """When `poll` has something to do although nothing came: the next heartbeat, commit or look, microseconds."""
        times = (self._commit_at, self._look_at, *self._beats.values())
        return min((each for each in times if each is not None), default=None)

    # --- life

    def start(self) -> None:
        """Announce the agents; `poll` opens the inbox of each when the registry has it."""
        self._directory.read()
        for actor in self._actors.values():
            definition = actor.definition()
            known = self._directory.known.get(actor.agent_id)
            changes = {"definition": definition, "replace": known is not None and known != definition}
            self._announced[actor.agent_id] = self._tell(AgentCommandKind.REGISTER, actor.agent_id, **changes)

    def poll(self) -> bool:
        """Do what can be done now; whether that was anything.

        Raises OperatorError if the registry refused an agent, BeginAnew when handlers have worn the host out (what they
        reported is appended first, and only a new host goes on), or what broke the host itself.
        """
        if self._runner.broken.done():
            self._runner.broken.result()
        if self._runner.worn.done():
            self._runner.close()
            self._send()
            raise self._runner.worn.result()
        done = [self._open(), self._send(), self._take(), self._commit(), self._beat()]
        self._look_at = self._clock() + POLL_MICROS if self._draining else None
        return any(done)

    async def stop(self) -> bool:
        """Start nothing more, let handlers end within `actors.drain_seconds`, report and commit; whether all ended. Then
        the registry is told that the agents are gone.
        """
        self._runner.close()
        try:
            async with asyncio.timeout(self._settings.actors.drain_seconds):
                await self._runner.quiet()
            clean = True
        except TimeoutError:
            clean = False
            await self._runner.abandon()
        self._send()
        self._commit_at = self._clock()
        self._commit()
        for agent_id in self._beats:
            self._heartbeat(agent_id, goodbye=True)
        self._journal.close(clean=True)
        return clean

    async def kill(self) -> None:
        """End as a killed process does: nothing more is reported or committed, and the journal keeps what ran.

        A thread cannot be killed, so it gets `THREADS_SECONDS` of real time to come back by itself.
        """
        self._runner.close()
        await self._runner.abandon()
        until = time.monotonic() + THREADS_SECONDS
        while self._runner.threads_at_work and time.monotonic() < until:
            time.sleep(0.002)  # noqa: ASYNC251 - the loop's own time may be virtual
        self._reports.clear()
        self._journal.close(clean=False)

    # --- the parts of a poll

    def _open(self) -> bool:
        """Begin the inbox of each agent that the registry has as announced: a record there implies that it exists."""
        if not self._announced:
            return False
        self._directory.read()
        opened = [each for each in self._announced if self._directory.known.get(each) == self._definition(each)]
        committed = self._committed() if opened else {}
        for agent_id in opened:
            del self._announced[agent_id]
            topic = self._settings.kafka.topic_prefix + inbox_name(agent_id)
            for partition in range(self._log.topics()[topic]):
                commits = committed.get((topic, partition), {})
                begin = merged(commits.values(), self._log.end(topic, partition))
                ledger = Ledger(*begin, saved=commits.get(self._groups[agent_id], (0, "")))
                self._boxes[topic].ledgers[partition] = ledger
                if ledger.unsaved() is not None:
                    self._commit_soon()
            self._beats[agent_id] = self._clock()
        for position in self._announced.values():
            if refusal := self._directory.refused.get(position):
                raise OperatorError(refusal, hint="give the agent another id, or unregister the old one")
        return bool(opened)

    def _committed(self) -> dict[tuple[str, int], dict[str, Commit]]:
        """By inbox and partition, what each group that may have worked there has committed."""
        found: dict[tuple[str, int], dict[str, Commit]] = {}
        for (group, topic, partition), commit in self._log.commits().items():
            box = self._boxes.get(topic)
            if box is not None and works_for(group, self._settings.kafka.topic_prefix, box.agent_id):
                found.setdefault((topic, partition), {})[group] = commit
        return found

    def _take(self) -> bool:
        """Note all that lies in the inboxes before anything of it starts, so that a cancel spares its handler."""
        taken, limit, found = Taken(), self._settings.actors.max_records, False
        crowded = sum(box.waiting for box in self._boxes.values()) >= limit
        for topic, box in self._boxes.items():
            if crowded and box.waiting:
                continue
            for partition, ledger in box.ledgers.items():
                for stored in self._log.read(topic, partition, ledger.position, limit):
                    found = True
                    lay = Found(
                        topic, partition, stored.offset, stored.timestamp, stored.key, stored.value or b"", stored.headers
                    )
                    self._note(lay, box, ledger, taken)
        if not found:
            return False
        self._draining |= taken.stopped
        for work in taken.ended:
            self._runner.cancel(work)
        for box, lay, error in taken.poison:
            self._bury(lay, error, box)
        self._runner.wake(taken.filled.values())
        self._commit_soon()
        return True

    def _note(self, found: Found, box: Mailbox, ledger: Ledger, taken: Taken) -> None:
        try:
            take(found, box, ledger, self._codecs.of(INBOX.subject), taken)
        except UnknownSchemaId as unknown:  # there is no registry to ask again: nobody else writes to this log
            ledger.take(found.offset)
            taken.poison.append((box, found, unknown))

    def _bury(self, found: Found, error: TroupeError, box: Mailbox) -> None:
        letter = dead_letter(found, error, box.agent_id, self._clock())
        self._console.warning("dead_letter", position=found.position, error=str(error))
        value = self._codecs.of(DEAD_LETTERS.subject).encode(letter)
        self._append(DEAD_LETTERS, found.position, [(found.position.encode(), value, tuple(headers(letter, error)))])
        box.close(found.partition, found.offset)

    def _put(self, report: Report) -> None:
        self._reports.append(report)
        self._news()

    def _send(self) -> bool:
        """Append the reports, and only then count their assignments as finished."""
        if not self._reports:
            return False
        reports, self._reports = self._reports, []
        for report in reports:
            record = (report.key.encode(), report.value, tuple(report.headers))
            self._append(TASK_REPORTS, report.key, [record])
        works = [report.settles for report in reports if report.settles is not None]
        for work in works:
            work.mailbox.settle(work)
        self._journal.end(works)
        self._commit_soon()
        return True

    def _commit_soon(self) -> None:
        if self._commit_at is None:
            self._commit_at = self._clock() + int(self._settings.actors.commit_interval_seconds * MICROS)

    def _commit(self) -> bool:
        if self._commit_at is None or self._clock() < self._commit_at:
            return False
        self._commit_at = None
        for topic, box in self._boxes.items():
            for partition, ledger in box.ledgers.items():
                if (commit := ledger.unsaved()) is not None:
                    self._log.commit(self._groups[box.agent_id], topic, partition, *commit)
                    ledger.saved(commit)
        return True

    def _beat(self) -> bool:
        """Heartbeats that are due; one at once of an agent whose drain is over."""
        now = self._clock()
        for topic, box in list(self._draining.items()):
            if box.load == 0 and self._lag(topic, box) == 0:
                del self._draining[topic]
                self._beats[box.agent_id] = now
        due = [agent_id for agent_id, at in self._beats.items() if at <= now]
        for agent_id in due:
            self._beats[agent_id] = now + self._actors[agent_id].heartbeat_interval_seconds * MICROS
            self._heartbeat(agent_id)
        return bool(due)

    def _heartbeat(self, agent_id: str, *, goodbye: bool = False) -> None:
        topic = self._settings.kafka.topic_prefix + inbox_name(agent_id)
        box, incarnation = self._boxes[topic], f"{self._settings.actors.host}.{self._born}"
        fields = {"load": box.load, "inbox_lag": self._lag(topic, box), "goodbye": goodbye, "incarnation": incarnation}
        self._tell(AgentCommandKind.HEARTBEAT, agent_id, **fields)

    # --- helpers

    def _lag(self, topic: str, box: Mailbox) -> int:
        return sum(self._log.end(topic, partition) - ledger.position for partition, ledger in box.ledgers.items())

    def _definition(self, agent_id: str) -> AgentDefinition:
        return self._actors[agent_id].definition()

    def _tell(self, kind: AgentCommandKind, agent_id: str, **fields: object) -> str:
        """Append a command about an agent; returns its position."""
        self._commands += 1
        command = AgentCommand.model_validate(
            {
                "event_id": f"{self._settings.actors.host}.{self._born}.{self._commands}",
                "occurred_at": self._clock(), "source": agent_id, "kind": kind, "agent_id": agent_id, **fields,
            }
        )  # fmt: skip
        value = self._codecs.of(AGENT_COMMANDS.subject).encode(command)
        return self._append(AGENT_COMMANDS, agent_id, [(agent_id.encode(), value, ())])

    def _append(self, topic: Topic, key: str, records: Sequence[New]) -> str:
        name = self._settings.kafka.topic_prefix + topic.name
        partition = home(key, self._log.topics()[name])
        return f"{name}.{partition}.{self._log.append(name, partition, records)}"


def _group(settings: Settings, actor: Actor) -> str:
    """The group in which an agent's inbox is read."""
    name = f"agents.{actor.agent_id}" if actor.own_group else f"actors.{settings.actors.host}"
    return settings.kafka.topic_prefix + name
