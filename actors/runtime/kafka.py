"""The host of Python actors on Kafka: a consumer for each group of inboxes, one producer for all reports.

Four things run side by side: polling, sending reports, committing, and heartbeats in a thread of their own. A report is
acknowledged before the offset of its assignment is committed. What Kafka refuses for good ends the host without a
commit: its supervisor starts it again and everything unfinished is delivered again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer

from actors.api import Actor
from actors.heartbeats import Heartbeats, Pulse
from actors.journal import Journal
from actors.mailbox import Mailbox, Past, Work
from actors.member import Member
from actors.reports import Reporter
from actors.runner import Limits, Runner
from actors.runtime.clients import consumer, heartbeat_connection, producer
from actors.runtime.intake import Refresh
from actors.runtime.outbox import Outbox
from actors.runtime.reader import Reader, groups_of
from actors.runtime.registration import register
from actors.runtime.rivals import last_of, refuse_rivals
from actors.runtime.sessions import SessionConsumer
from actors.watch import Watch
from schemas.closing import closed
from schemas.codec import Codecs
from schemas.errors import Retryable
from schemas.failpoint import Failpoints
from schemas.settings import Settings
from schemas.topics import AGENT_COMMANDS, TASK_REPORTS, inbox_name


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
    handlers have worn the process out; after the last two the process must end, and what a thread of it still does is no
    longer its own. `watch` guards the loop meanwhile.
    """
    group = f"{settings.kafka.topic_prefix}actors.{settings.actors.host}"
    member = Member.claim(settings.data_dir / "hosts" / settings.actors.host)
    sender = producer(settings, group)
    name = f"{settings.actors.host}-{member.name}"
    receivers = {each: consumer(settings, each, name) for each in groups_of(settings, actors)}
    try:
        await sender.start()
        if not await _done_before(stop, _known(settings, actors, codecs, sender)):
            return
        await asyncio.gather(*(each.start() for each in receivers.values()))
        partitions = len(await sender.partitions_for(settings.kafka.topic_prefix + TASK_REPORTS.name))
        journal = Journal(member.directory / "journal", now_micros())
        clients = _Clients(sender, receivers, partitions, name)
        host = _Host(settings, actors, codecs, clients, journal, failpoints or Failpoints(), refresh)
        if watch is not None:
            watch.begin(host.runner.holder)
        await host.run(on_ready, stop)
    finally:
        if watch is not None:
            watch.close()
        limit_s = settings.kafka.metadata_timeout_seconds
        await asyncio.gather(*(closed(each.stop(), limit_s) for each in receivers.values()))
        await closed(sender.stop(), limit_s)
        member.release()


async def _known(settings: Settings, actors: Sequence[Actor], codecs: Codecs, sender: AIOKafkaProducer) -> None:
    """See that nobody else reads these inboxes, then register: to register first would replace a living one's."""
    groups = {actor.agent_id: group for group, own in groups_of(settings, actors).items() for actor in own}
    await refuse_rivals(settings, groups, joined_as=None)
    await register(settings, [actor.definition() for actor in actors], codecs, sender, now_micros)


class _Clients(NamedTuple):
    sender: AIOKafkaProducer
    receivers: Mapping[str, SessionConsumer]
    report_partitions: int
    name: str


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
        self._settings, self._journal, self._name = settings, journal, clients.name
        reports, limit = prefix + TASK_REPORTS.name, settings.kafka.request_timeout_seconds
        self._outbox = Outbox(clients.sender, reports, clients.report_partitions, self._settled, failpoints, limit)
        reporter = Reporter(codecs.of(TASK_REPORTS.subject), now_micros, self._outbox.put)
        self.runner = Runner(Limits.of(settings), reporter, journal, now_micros, failpoints)
        self._readers: list[Reader] = []
        self._alone = asyncio.Event()
        self._groups: dict[str, str] = {}
        pulses: list[Pulse] = []
        for group, own in groups_of(settings, actors).items():
            boxes = {
                prefix + inbox_name(each.agent_id): Mailbox(each.agent_id, each.max_in_flight, each.operations, past)
                for each in own
            }
            reader = Reader(
                settings, codecs, clients.sender, clients.receivers[group], group, boxes, self.runner, now_micros,
                self._outbox.flushed, failpoints, refresh,
            )  # fmt: skip
            self._readers.append(reader)
            self._groups |= {each.agent_id: group for each in own}
            pulses += [Pulse(x.agent_id, float(x.heartbeat_interval_seconds), reader.pulse(x.agent_id)) for x in own]
        connect = partial(heartbeat_connection, settings, prefix + AGENT_COMMANDS.name)
        self._heartbeats = Heartbeats(pulses, codecs.of(AGENT_COMMANDS.subject), connect, now_micros)

    async def run(self, on_ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Poll, report and commit until `stop`; a failure of any of them is raised."""
        sending = asyncio.create_task(self._outbox.run())
        others = [asyncio.create_task(reader.poll(self._heartbeats, self._alone)) for reader in self._readers]
        others += [asyncio.create_task(self._commit_often()), asyncio.create_task(self._begin(on_ready))]
        asked = asyncio.create_task(stop.wait())
        clean, leaving = False, list[str]()
        goodbye_s = self._settings.actors.goodbye_seconds
        self._heartbeats.start()
        try:
            watched: list[asyncio.Future[Any]] = [sending, *others, asked, self.runner.broken, self.runner.worn]
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            _raise_first(done)
            await _cancelled(others)
            clean = True
            drained = await self._drain()
            await self._settle(sending)
            if self.runner.worn in done:
                raise self.runner.worn.result()
            if self._alone.is_set():
                emptied = await last_of(self._settings, set(self._groups.values()), self._name, goodbye_s)
                await self._settle(sending)  # of handlers that could not be ended: nothing may follow the goodbye
                leaving = [agent_id for agent_id, group in self._groups.items() if group in emptied]
            for reader in self._readers:
                reader.leave()
            if not drained:
                raise DrainTimeout(f"handlers still ran after {self._settings.actors.drain_seconds:g} s")
        finally:
            self._heartbeats.stop(goodbye_s, leaving)
            await _cancelled([sending, asked, *others])
            self._journal.close(clean)

    async def _begin(self, on_ready: Callable[[], None]) -> None:
        """Take work and say so, once all inboxes are ours and nobody came at the same moment; then wait for ever."""
        await asyncio.gather(*(reader.ready for reader in self._readers))
        await refuse_rivals(self._settings, self._groups, joined_as=self._name)
        self._alone.set()
        on_ready()
        await asyncio.Event().wait()

    def _settled(self, works: list[Work]) -> None:
        for work in works:
            work.mailbox.settle(work)
        self._journal.end(works)

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(self._settings.actors.commit_interval_seconds)
            await self._commit()

    async def _commit(self) -> None:
        for reader in self._readers:
            await reader.commit()

    async def _drain(self) -> bool:
        """Start nothing more and let running handlers end; whether all did in time. The others are ended."""
        self.runner.close()
        drained = True
        try:
            async with asyncio.timeout(self._settings.actors.drain_seconds):
                await self.runner.quiet()
        except TimeoutError:
            drained = False
        await self.runner.abandon()
        return drained

    async def _settle(self, sending: asyncio.Task[None]) -> None:
        """Let all reports be acknowledged, and commit."""
        flushed = asyncio.create_task(self._outbox.flushed())
        await asyncio.wait([flushed, sending], return_when=asyncio.FIRST_COMPLETED)  # sending has its limit
        await _cancelled([flushed])
        if sending.done():
            sending.result()
        await self._commit()


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


def _raise_first(done: Iterable[asyncio.Future[Any]]) -> None:
    for task in done:
        task.result()


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
