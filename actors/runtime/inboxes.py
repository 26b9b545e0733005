"""The inboxes of a host as Kafka hands them out: where each begins, how far it is done, and whose it is right now.

The consumer gives out offsets only; what was finished beyond them is in the commits' metadata, so each partition is
opened here: its commit read, its ledger made, and the consumer put at that place. Whatever was polled before that is
dropped and comes again. A partition that is opened for the first time begins where the groups that had it before left off
(`actors/handover.py`); that is committed at once, so that from then on our own commit says it all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, RebalanceInProgressError
from aiokafka.structs import OffsetAndMetadata

from actors.handover import merged
from actors.ledger import Ledger
from actors.mailbox import Mailbox
from actors.runtime.commits import Committed, read_commits
from actors.runtime.sessions import SessionConsumer
from schemas.failpoint import Failpoints
from schemas.settings import Settings

_COMMIT_LOST = (CommitFailedError, IllegalStateError, RebalanceInProgressError, TimeoutError)


class Inboxes(ConsumerRebalanceListener):  # type: ignore[misc]
    """The mailboxes by topic, and the partitions behind them. `flush` waits for reports that are under way."""

    def __init__(
        self,
        settings: Settings,
        consumer: SessionConsumer,
        group: str,
        mailboxes: Mapping[str, Mailbox],
        flush: Callable[[], Awaitable[None]],
        failpoints: Failpoints,
    ) -> None:
        self.mailboxes = mailboxes
        self.moved = False
        """Partitions were handed out and are not open yet: what is polled now must be dropped."""
        self._settings, self._consumer, self._group = settings, consumer, group
        self._flush, self._failpoints = flush, failpoints
        self._paused: set[TopicPartition] = set()
        self._taken_over: set[TopicPartition] = set()
        """Our group's commit has what other groups had done; they are not asked again."""
        self._log = structlog.get_logger("actors")

    def subscribe(self) -> None:
        self._consumer.subscribe(list(self.mailboxes), listener=self)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.moved = True

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let reports under way be acknowledged, commit, and leave to the next owner what has not started."""
        try:
            async with asyncio.timeout(self._settings.actors.session_timeout_seconds / 2):
                await self._flush()
                await self.commit()
        except TimeoutError:
            pass  # what is not committed is delivered again
        for partition in revoked:
            self.mailboxes[partition.topic].revoke(partition.partition)

    async def open(self) -> list[str]:
        """Begin each assigned partition at its commit; returns the ids of the agents that have one.

        Raises KafkaError or BrokerUnavailable if the commits cannot be read.
        """
        self.moved = False
        self._paused.clear()
        assignment = self._consumer.assignment()
        new = {each: self.mailboxes[each.topic].agent_id for each in assignment - self._taken_over}
        committed = await read_commits(self._settings, self._group, new) if assignment else Committed({}, {})
        ends = await self._consumer.end_offsets(list(assignment)) if assignment else {}
        self._forget_all_but(assignment)
        for partition in assignment & self._consumer.assignment():
            ledger = self._ledger(partition, committed, ends[partition])
            self.mailboxes[partition.topic].ledgers[partition.partition] = ledger
            self._consumer.seek(partition, ledger.position)
        self._consumer.sessions.renew()
        self._log.info("inboxes_assigned", count=len(assignment))
        await self._take_over(new)
        return [box.agent_id for box in self.mailboxes.values() if box.ledgers]

    def _ledger(self, place: TopicPartition, committed: Committed, end: int) -> Ledger:
        own = committed.own.get(place, (0, ""))
        commits = [own, *committed.others.get(place, ())]
        for offset, _ in commits:
            if offset > end:
                self._log.error("inbox_truncated", topic=place.topic, committed=offset, end=end)
        return Ledger(*merged(commits, end), saved=own)

    async def _take_over(self, opened: Iterable[TopicPartition]) -> None:
        """Make our own what others had done; a commit that is lost is tried again, and they are asked again."""
        await self.commit()
        for place in opened:
            ledger = self.mailboxes[place.topic].ledgers.get(place.partition)
            if ledger is not None and ledger.unsaved() is None:
                self._taken_over.add(place)

    def _forget_all_but(self, assignment: Collection[TopicPartition]) -> None:
        """A rebalance while partitions were being opened leaves ledgers behind that nobody revoked."""
        for topic, box in self.mailboxes.items():
            for partition in [each for each in box.ledgers if TopicPartition(topic, each) not in assignment]:
                box.revoke(partition)

    async def commit(self) -> None:
        """Commit what has moved. A commit that fails because the partitions have is lost: redelivered, known again."""
        unsaved = {
            TopicPartition(topic, partition): (ledger, commit)
            for topic, box in self.mailboxes.items()
            for partition, ledger in box.ledgers.items()
            if (commit := ledger.unsaved()) is not None
        }
        if not unsaved:
            return
        try:
            async with asyncio.timeout(self._settings.kafka.request_timeout_seconds):
                await self._consumer.commit({each: OffsetAndMetadata(*commit) for each, (_, commit) in unsaved.items()})
        except _COMMIT_LOST as error:
            self._log.info("commit_lost", error=repr(error))
            return
        for ledger, commit in unsaved.values():
            ledger.saved(commit)
        self._failpoints.hit("offsets-committed")

    def lag(self, topic: str, mailbox: Mailbox) -> int | None:
        """Records not yet taken, as of the last fetch; None if that is not known. May be asked from another thread."""
        lag = 0
        for partition, ledger in list(mailbox.ledgers.items()):
            try:
                end = self._consumer.highwater(TopicPartition(topic, partition))
            except (IllegalStateError, AssertionError):
                return None
            if end is None:
                return None
            lag += max(0, end - ledger.position)
        return lag

    def ease(self) -> bool:
        """Fetch no more for agents that have work waiting while the group holds too much of it; whether any is held back.

        What runs does not count, and a coordinator assigns no more than may run, so this is rare: it must be, since a
        paused inbox does not show its cancels either.
        """
        limit = self._settings.actors.max_records
        waiting = sum(box.waiting for box in self.mailboxes.values())
        if waiting >= limit:
            full = {
                TopicPartition(topic, partition)
                for topic, box in self.mailboxes.items() if box.waiting
                for partition in box.ledgers
            } & self._consumer.assignment() - self._paused  # fmt: skip
            self._paused |= full
            self._consumer.pause(*full)
        elif self._paused and waiting < limit // 2:
            self._consumer.resume(*(self._paused & self._consumer.assignment()))
            self._paused.clear()
        return bool(self._paused)
