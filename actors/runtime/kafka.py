"""The host of Python actors on Kafka: one consumer for all their inboxes, one producer for all their reports.

Four things run side by side: polling, sending reports, committing, and heartbeats in a thread of their own. A report is
acknowledged before the offset of its assignment is committed. What Kafka refuses for good ends the host without a
commit: its supervisor starts it again and everything unfinished is delivered again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from actors.api import Actor
from actors.heartbeats import Heartbeats, Pulse
from actors.journal import Journal
from actors.mailbox import Mailbox, Past, Work
from actors.member import Member
from actors.reports import Reporter
from actors.runner import Limits, Runner
from actors.runtime.clients import consumer, heartbeat_connection, producer
from actors.runtime.inboxes import Inboxes
from actors.runtime.intake import Intake, Refresh
from actors.runtime.outbox import Outbox
from actors.runtime.registration import register
from actors.watch import Watch
from schemas.codec import Codecs
from schemas.errors import Retryable
from schemas.failpoint import Failpoints
from schemas.settings import Settings
from schemas.topics import AGENT_COMMANDS, TASK_REPORTS, inbox_name

POLL_MS = 100
"""Longest time without a look at what else there is to do."""


class DrainTimeout(Retryable):
    """Handlers still ran when the time to drain was over; their assignments will be delivered again."""


def now_micros() -> int:
    """The process clock, in microseconds."""
    return time.time_ns() // 1000


async def run_host(
    settings: Settings,
    actors: Sequence[Actor],
    codecs: Codecs,
    on_ready: Callable[[], None],
    stop: asyncio.Event,
    *,
    failpoints: Failpoints | None = None,
    refresh: Refresh | None = None,
    watch: Watch | None = None,
) -> None:
    """Register the actors and work on their inboxes until `stop` is set, then drain, commit and leave.

    `on_ready` is called once, when inboxes are assigned. Raises OperatorError if the host cannot start as things are,
    KafkaError when Kafka refuses for good, DrainTimeout when handlers outlived `actors.drain_seconds`, BeginAnew when
    handlers have worn the process out. `watch` guards the loop meanwhile.
    """
    group = f"{settings.kafka.topic_prefix}actors.{settings.actors.host}"
    member = Member.claim(settings.data_dir / "hosts" / settings.actors.host)
    sender = producer(settings, group)
    receiver = consumer(settings, group, group, f"{settings.actors.host}-{member.name}")
    try:
        await sender.start()
        known = register(settings, [actor.definition() for actor in actors], codecs, sender, now_micros)
        if not await _done_before(stop, known):
            return
        await receiver.start()
        partitions = len(await sender.partitions_for(settings.kafka.topic_prefix + TASK_REPORTS.name))
        journal = Journal(member.directory / "journal", now_micros())
        clients = _Clients(sender, receiver, group, partitions)
        host = _Host(settings, actors, codecs, clients, journal, failpoints or Failpoints(), refresh)
        if watch is not None:
            watch.begin(host.runner.holder)
        await host.run(on_ready, stop)
    finally:
        if watch is not None:
            watch.close()
        await _closed(receiver.stop(), settings)
        await _closed(sender.stop(), settings)
        member.release()


class _Clients(NamedTuple):
    sender: AIOKafkaProducer
    receiver: AIOKafkaConsumer
    group: str
    report_partitions: int


class _Host:
    """Wires the parts together; made when the clients are started, used once."""

    def __init__(
        self,
        settings: Settings,
        actors: Sequence[Actor],
        codecs: Codecs,
        clients: _Clients,
        journal: Journal,
        failpoints: Failpoints,
        refresh: Refresh | None,
    ) -> None:
        prefix, past = settings.kafka.topic_prefix, Past(settings.actors.remembered)
        mailboxes = {
            prefix + inbox_name(actor.agent_id): Mailbox(actor.agent_id, actor.max_in_flight, actor.operations, past)
            for actor in actors
        }
        self._settings, self._failpoints, self._journal = settings, failpoints, journal
        self._receiver = clients.receiver
        reports, limit = prefix + TASK_REPORTS.name, settings.kafka.request_timeout_seconds
        self._outbox = Outbox(clients.sender, reports, clients.report_partitions, self._settled, failpoints, limit)
        reporter = Reporter(codecs.of(TASK_REPORTS.subject), now_micros, self._outbox.put)
        self.runner = Runner(Limits.of(settings), reporter, journal, now_micros, failpoints)
        self._inboxes = Inboxes(settings, clients.receiver, clients.group, mailboxes, self._outbox.flushed, failpoints)
        self._intake = Intake(settings, codecs, clients.sender, self._inboxes, self.runner, now_micros, refresh)
        by_agent = {actor.agent_id: float(actor.heartbeat_interval_seconds) for actor in actors}
        self._heartbeats = Heartbeats(
            [Pulse(box.agent_id, by_agent[box.agent_id], self._reader(topic)) for topic, box in mailboxes.items()],
            codecs.of(AGENT_COMMANDS.subject),
            partial(heartbeat_connection, settings, prefix + AGENT_COMMANDS.name),
            now_micros,
        )

    async def run(self, on_ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Poll, report and commit until `stop`; a failure of any of them is raised."""
        self._inboxes.subscribe()
        sending = asyncio.create_task(self._outbox.run())
        others = [asyncio.create_task(self._poll(on_ready)), asyncio.create_task(self._commit_often())]
        asked = asyncio.create_task(stop.wait())
        clean = False
        self._heartbeats.start()
        try:
            watched: list[asyncio.Future[Any]] = [sending, *others, asked, self.runner.broken, self.runner.worn]
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            _raise_first(done)
            await _cancelled(others)
            clean = True
            await self._drain(sending)
            if self.runner.worn in done:
                raise self.runner.worn.result()
        finally:
            self._heartbeats.stop(1.0)
            await _cancelled([sending, asked, *others])
            self._journal.close(clean)

    async def _poll(self, on_ready: Callable[[], None]) -> None:
        ready = False
        while True:
            got = await self._receiver.getmany(timeout_ms=POLL_MS, max_records=self._settings.actors.max_records)
            if self._inboxes.moved:
                self._heartbeats.now(await self._inboxes.open())
                if not ready:
                    ready = True
                    on_ready()
                continue
            if got:
                self._failpoints.hit("inbox-polled")
                await self._intake.take(got)
            self._inboxes.ease()
            if self._intake.draining:
                self._beat_for_drained()

    def _settled(self, works: list[Work]) -> None:
        for work in works:
            work.mailbox.settle(work)
        self._journal.end(works)

    def _beat_for_drained(self) -> None:
        """A draining agent says at once that its inbox is read to its end and nothing is in hand."""
        for topic, box in list(self._intake.draining.items()):
            if box.load == 0 and self._inboxes.lag(topic, box) == 0:
                del self._intake.draining[topic]
                self._heartbeats.now([box.agent_id])

    def _reader(self, topic: str) -> Callable[[], tuple[int, int | None] | None]:
        """What the thread of heartbeats asks for; None as long as no partition of the inbox is ours."""
        mailbox = self._inboxes.mailboxes[topic]
        return lambda: (mailbox.load, self._inboxes.lag(topic, mailbox)) if mailbox.ledgers else None

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(self._settings.actors.commit_interval_seconds)
            await self._inboxes.commit()

    async def _drain(self, sending: asyncio.Task[None]) -> None:
        """Start nothing more; let running handlers end and their reports be acknowledged, and commit."""
        self.runner.close()
        late = False
        try:
            async with asyncio.timeout(self._settings.actors.drain_seconds):
                await self.runner.quiet()
        except TimeoutError:
            late = True
            await self.runner.abandon()
        flushed = asyncio.create_task(self._outbox.flushed())
        await asyncio.wait([flushed, sending], return_when=asyncio.FIRST_COMPLETED)  # sending has its limit
        await _cancelled([flushed])
        if sending.done():
            sending.result()
        await self._inboxes.commit()
        if late:
            raise DrainTimeout(f"handlers still ran after {self._settings.actors.drain_seconds:g} s")


async def _done_before(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether the work was done before `stop` was set; it is given up then."""
    working, asked = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, asked], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        await _cancelled([working, asked])


async def _closed(closing: Awaitable[None], settings: Settings) -> None:
    """Close a client; without a broker it would wait for ever, and what is not committed is delivered again anyway."""
    try:
        async with asyncio.timeout(settings.kafka.metadata_timeout_seconds):
            await closing
    except TimeoutError:
        structlog.get_logger("actors").warning("client_not_closed")


def _raise_first(done: Iterable[asyncio.Future[Any]]) -> None:
    for task in done:
        task.result()


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
