"""The host of Python actors on Kafka: one consumer for all their inboxes, one producer for all their reports.

Four things run side by side: polling, sending reports, committing, and heartbeats in a thread of their own. A report is
acknowledged before the offset of its assignment is committed. What Kafka refuses for good ends the host without a
commit: its supervisor starts it again and everything unfinished is delivered again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, RebalanceInProgressError
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata

from actors.api import Actor
from actors.heartbeats import Heartbeats, Pulse
from actors.inbox import Taken, take
from actors.journal import Journal
from actors.ledger import Ledger, unpack
from actors.mailbox import Mailbox, Work
from actors.member import Member
from actors.poison import Found, dead_letter, headers
from actors.reports import Reporter
from actors.runner import Limits, Runner
from actors.runtime.clients import consumer, heartbeat_connection, producer
from actors.runtime.outbox import Outbox
from actors.runtime.registration import register
from schemas.codec import Codecs
from schemas.errors import Retryable, TroupeError, UnknownSchemaId
from schemas.failpoint import Failpoints
from schemas.settings import Settings
from schemas.topics import AGENT_COMMANDS, DEAD_LETTERS, INBOX, TASK_REPORTS, inbox_name

POLL_MS = 100
"""Longest time without a look at what else there is to do."""

_COMMIT_LOST = (CommitFailedError, IllegalStateError, RebalanceInProgressError)

Refresh = Callable[[], Awaitable[None]]
"""Read `_schemas` again and admit what is new into the codecs."""


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
) -> None:
    """Register the actors and work on their inboxes until `stop` is set, then drain, commit and leave.

    `on_ready` is called once, when all inboxes are assigned. Raises OperatorError if the host cannot start as it is,
    KafkaError when Kafka refuses for good, DrainTimeout when handlers outlived `actors.drain_seconds`.
    """
    member = Member.claim(settings.data_dir / "hosts" / settings.actors.host)
    client_id = f"{settings.kafka.topic_prefix}actors.{settings.actors.host}"
    sender = producer(settings, client_id)
    receiver = consumer(settings, client_id, client_id, f"{settings.actors.host}-{member.name}")
    try:
        await sender.start()
        await register(settings, [actor.definition() for actor in actors], codecs, sender, now_micros)
        await receiver.start()
        host = _Host(settings, actors, codecs, sender, receiver, member, failpoints or Failpoints(), refresh)
        await host.open()
        await host.run(on_ready, stop)
    finally:
        await receiver.stop()
        await sender.stop()
        member.release()


class _Host(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(
        self,
        settings: Settings,
        actors: Sequence[Actor],
        codecs: Codecs,
        sender: AIOKafkaProducer,
        receiver: AIOKafkaConsumer,
        member: Member,
        failpoints: Failpoints,
        refresh: Refresh | None,
    ) -> None:
        self._settings, self._codecs, self._failpoints, self._refresh = settings, codecs, failpoints, refresh
        self._sender, self._receiver = sender, receiver
        self._prefix = settings.kafka.topic_prefix
        self._log = structlog.get_logger("actors")
        self._mailboxes = {
            self._prefix + inbox_name(actor.agent_id): Mailbox(actor.agent_id, actor.max_in_flight, actor.operations)
            for actor in actors
        }
        self._intervals = {actor.agent_id: float(actor.heartbeat_interval_seconds) for actor in actors}
        self._inbox = codecs.of(INBOX.subject)
        self._journal = Journal(member.directory / "journal", now_micros())
        self._reassigned = False
        self._room = asyncio.Event()

    async def open(self) -> None:
        """Build what needs the started clients, and subscribe."""
        settings = self._settings
        reports = self._prefix + TASK_REPORTS.name
        partitions = len(await self._sender.partitions_for(reports))
        self._outbox = Outbox(self._sender, reports, partitions, self._settled, self._failpoints)
        reporter = Reporter(self._codecs.of(TASK_REPORTS.subject), now_micros, self._outbox.put)
        limits = Limits(
            report_after_seconds=settings.actors.report_after_seconds,
            progress_interval_seconds=settings.actors.progress_interval_seconds,
            max_starts=settings.actors.max_starts,
            data_dir=settings.data_dir,
            sources_root=settings.sources,
        )
        self._runner = Runner(limits, reporter, self._journal, now_micros, self._failpoints)
        self._heartbeats = Heartbeats(
            [self._pulse(topic, mailbox) for topic, mailbox in self._mailboxes.items()],
            self._codecs.of(AGENT_COMMANDS.subject),
            partial(heartbeat_connection, settings, self._prefix + AGENT_COMMANDS.name),
            now_micros,
        )
        self._receiver.subscribe(list(self._mailboxes), listener=self)

    async def run(self, on_ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Poll, report and commit until `stop`; a failure of any of them is raised."""
        sending = asyncio.create_task(self._outbox.run())
        others = [asyncio.create_task(self._poll(on_ready)), asyncio.create_task(self._commit_often())]
        asked = asyncio.create_task(stop.wait())
        clean = False
        self._heartbeats.start()
        try:
            done, _ = await asyncio.wait([sending, *others, asked], return_when=asyncio.FIRST_COMPLETED)
            _raise_first(done - {asked})
            await _cancelled(others)
            clean = True
            await self._drain(sending)
        finally:
            self._heartbeats.stop(1.0)
            await _cancelled([sending, asked, *others])
            self._journal.close(clean)

    # --- polling

    async def _poll(self, on_ready: Callable[[], None]) -> None:
        ready = False
        limit = self._settings.actors.max_records
        while True:
            room = limit - sum(box.load for box in self._mailboxes.values())
            if room <= 0:
                await self._wait_for_room()
                continue
            got = await self._receiver.getmany(timeout_ms=POLL_MS, max_records=room)
            if self._reassigned:
                await self._open_ledgers()
                if not ready and self._receiver.assignment():
                    ready = True
                    on_ready()
                continue
            if got:
                self._failpoints.hit("inbox-polled")
                await self._take(got)
            self._beat_for_stopped()

    async def _wait_for_room(self) -> None:
        self._room.clear()
        try:
            async with asyncio.timeout(POLL_MS / 1000):
                await self._room.wait()
        except TimeoutError:
            pass

    async def _take(self, got: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        taken = Taken()
        for partition, messages in got.items():
            mailbox = self._mailboxes[partition.topic]
            for message in messages:
                ledger = mailbox.ledgers.get(partition.partition)
                if ledger is None:
                    break  # revoked meanwhile
                found = Found(
                    message.topic, message.partition, message.offset, message.timestamp * 1000,
                    message.key, message.value or b"", message.headers,
                )  # fmt: skip
                try:
                    take(found, mailbox, ledger, self._inbox, taken)
                except UnknownSchemaId as unknown:
                    await self._take_again(found, mailbox, ledger, taken, unknown)
        for work in taken.ended:
            self._runner.cancel(work)
        for mailbox, found, error in taken.poison:
            await self._bury(mailbox, found, error)
        self._runner.wake(taken.filled.values())

    async def _take_again(
        self, found: Found, mailbox: Mailbox, ledger: Ledger, taken: Taken, unknown: UnknownSchemaId
    ) -> None:
        """The writer may be newer than we are: read the schemas once more, then it is poison."""
        if self._refresh is not None:
            await self._refresh()
        try:
            take(found, mailbox, ledger, self._inbox, taken)
        except UnknownSchemaId:
            ledger.take(found.offset)
            taken.poison.append((mailbox, found, unknown))

    async def _bury(self, mailbox: Mailbox, found: Found, error: TroupeError) -> None:
        letter = dead_letter(found, error, mailbox.agent_id, now_micros())
        self._log.warning("dead_letter", position=found.position, error=str(error))
        await self._sender.send_and_wait(
            self._prefix + DEAD_LETTERS.name,
            key=found.position.encode(),
            value=self._codecs.of(DEAD_LETTERS.subject).encode(letter),
            headers=headers(letter, error),
        )
        mailbox.close(found.partition, found.offset)

    def _settled(self, works: list[Work]) -> None:
        for work in works:
            work.mailbox.settle(work)
        self._journal.end(works)
        self._room.set()

    def _beat_for_stopped(self) -> None:
        """A draining agent says at once that its inbox is read to its end and nothing is in hand (spec 4.2)."""
        done = [
            box for topic, box in self._mailboxes.items()
            if box.stop_asked and box.load == 0 and self._lag(topic, box) == 0
        ]  # fmt: skip
        for box in done:
            box.stop_asked = False
        if done:
            self._heartbeats.now([box.agent_id for box in done])

    def _pulse(self, topic: str, mailbox: Mailbox) -> Pulse:
        def read() -> tuple[int, int | None] | None:
            return (mailbox.load, self._lag(topic, mailbox)) if mailbox.ledgers else None

        return Pulse(mailbox.agent_id, self._intervals[mailbox.agent_id], read)

    def _lag(self, topic: str, mailbox: Mailbox) -> int | None:
        """Records not yet taken, as of the last fetch; None if that is not known."""
        lag = 0
        for partition, ledger in list(mailbox.ledgers.items()):
            try:
                end = self._receiver.highwater(TopicPartition(topic, partition))
            except (IllegalStateError, AssertionError):
                return None
            if end is None:
                return None
            lag += max(0, end - ledger.position)
        return lag

    # --- partitions come and go

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._reassigned = True

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let reports under way be acknowledged, commit, and leave to the next owner what has not started."""
        try:
            async with asyncio.timeout(self._settings.actors.session_timeout_seconds / 2):
                await self._outbox.idle()
                await self._commit()
        except TimeoutError:
            pass  # what is not committed is delivered again
        for partition in revoked:
            self._mailboxes[partition.topic].revoke(partition.partition)

    async def _open_ledgers(self) -> None:
        """Begin each assigned partition at its commit. What was polled before is dropped; the seek brings it again."""
        self._reassigned = False
        assignment = self._receiver.assignment()
        committed = await self._committed() if assignment else {}
        for partition in assignment:
            saved = committed.get(partition)
            offset = max(0, saved.offset) if saved else 0
            mailbox = self._mailboxes[partition.topic]
            mailbox.ledgers[partition.partition] = Ledger(offset, unpack(offset, saved.metadata if saved else ""))
            self._receiver.seek(partition, offset)
        self._log.info("inboxes_assigned", count=len(assignment))
        self._heartbeats.now([box.agent_id for box in self._mailboxes.values() if box.ledgers])

    async def _committed(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """Commits with their metadata, which the consumer does not hand out."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._settings.kafka.bootstrap_servers)
        await admin.start()
        try:
            found: dict[TopicPartition, OffsetAndMetadata] = await admin.list_consumer_group_offsets(
                f"{self._prefix}actors.{self._settings.actors.host}"
            )
            return found
        finally:
            await admin.close()

    # --- committing and leaving

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(self._settings.actors.commit_interval_seconds)
            await self._commit()

    async def _commit(self) -> None:
        unsaved = {
            TopicPartition(topic, partition): (ledger, commit)
            for topic, box in self._mailboxes.items()
            for partition, ledger in box.ledgers.items()
            if (commit := ledger.unsaved()) is not None
        }
        if not unsaved:
            return
        try:
            await self._receiver.commit({each: OffsetAndMetadata(*commit) for each, (_, commit) in unsaved.items()})
        except _COMMIT_LOST as error:
            self._log.info("commit_lost", error=repr(error))  # the partitions moved: redelivered, and known by identity
            return
        for ledger, commit in unsaved.values():
            ledger.saved(commit)
        self._failpoints.hit("offsets-committed")

    async def _drain(self, sending: asyncio.Task[None]) -> None:
        """Start nothing more; let running handlers end, their reports be acknowledged, and commit."""
        self._runner.close()
        late = False
        try:
            async with asyncio.timeout(self._settings.actors.drain_seconds):
                await self._runner.quiet()
        except TimeoutError:
            late = True
            await self._runner.abandon()
        idle = asyncio.create_task(self._outbox.idle())
        await asyncio.wait([idle, sending], timeout=self._settings.kafka.request_timeout_seconds,
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        idle.cancel()
        _raise_first({sending} if sending.done() else set())
        await self._commit()
        if late:
            raise DrainTimeout(f"handlers still ran after {self._settings.actors.drain_seconds:g} s")


def _raise_first(done: Iterable[asyncio.Task[Any]]) -> None:
    for task in done:
        task.result()


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


__all__ = ["DrainTimeout", "KafkaError", "Refresh", "now_micros", "run_host"]
