"""One consumer group of a host: its consumer, the inboxes that it reads, and the two loops that poll and commit.

The agents of a host share one; an agent with `config.own_group` has one for itself, so that it can be scaled on its own
lag by hosts of any name. Handlers, reports and heartbeats are the whole host's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiokafka import AIOKafkaProducer

from actors.api import Actor
from actors.heartbeats import Heartbeats
from actors.mailbox import Mailbox
from actors.runner import Runner
from actors.runtime.inboxes import Inboxes
from actors.runtime.intake import Intake, Refresh
from actors.runtime.sessions import SessionConsumer
from schemas.codec import Codecs
from schemas.failpoint import Failpoints
from schemas.settings import Settings
from schemas.topics import inbox_name

POLL_MS = 100
"""Longest time without a look at what else there is to do."""


def groups_of(settings: Settings, actors: Sequence[Actor]) -> dict[str, list[Actor]]:
    """The actors of a host by the group in which their inboxes are read."""
    prefix = settings.kafka.topic_prefix
    found: dict[str, list[Actor]] = {}
    for actor in actors:
        own = f"{prefix}agents.{actor.agent_id}"
        found.setdefault(own if actor.own_group else f"{prefix}actors.{settings.actors.host}", []).append(actor)
    return found


class Reader:
    """Reads the inboxes of one group into their mailboxes. `flush` waits for reports that are under way."""

    def __init__(
        self,
        settings: Settings,
        codecs: Codecs,
        sender: AIOKafkaProducer,
        receiver: SessionConsumer,
        group: str,
        mailboxes: Mapping[str, Mailbox],
        runner: Runner,
        clock: Callable[[], int],
        flush: Callable[[], Awaitable[None]],
        failpoints: Failpoints,
        refresh: Refresh | None,
    ) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the group has given this process its inboxes for the first time."""
        self._settings, self._receiver, self._failpoints = settings, receiver, failpoints
        self._inboxes = Inboxes(settings, receiver, group, mailboxes, flush, failpoints)
        self._intake = Intake(settings, codecs, sender, self._inboxes, runner, clock, refresh)
        self.mailboxes = mailboxes
        self.commit = self._inboxes.commit
        self.leave = receiver.leave

    async def poll(self, heartbeats: Heartbeats, alone: asyncio.Event) -> None:
        """Take in what comes, for ever, once it is known that nobody else does. Raises KafkaError when Kafka refuses for
        good.
        """
        self._inboxes.subscribe()
        limit, crowded = self._settings.actors.max_records, False
        while True:
            got = await self._receiver.getmany(timeout_ms=POLL_MS, max_records=limit)
            if self._inboxes.moved:
                heartbeats.now(await self._inboxes.open())
                if not self.ready.done():
                    self.ready.set_result(None)
                await alone.wait()  # whoever sets it ends the host otherwise
                continue
            if got:
                self._failpoints.hit("inbox-polled")
                await self._intake.take(got)
            if got or crowded:
                crowded = self._inboxes.ease()
            if self._intake.draining:
                self._beat_for_drained(heartbeats)

    def pulse(self, agent_id: str) -> Callable[[], tuple[int, int | None] | None]:
        """What the thread of heartbeats asks for: (load, lag), or None as long as no partition of the inbox is ours."""
        topic = self._settings.kafka.topic_prefix + inbox_name(agent_id)
        mailbox = self.mailboxes[topic]
        return lambda: (mailbox.load, self._inboxes.lag(topic, mailbox)) if mailbox.ledgers else None

    def _beat_for_drained(self, heartbeats: Heartbeats) -> None:
        """A draining agent says at once that its inbox is read to its end and nothing is in hand."""
        for topic, box in list(self._intake.draining.items()):
            if box.load == 0 and self._inboxes.lag(topic, box) == 0:
                del self._intake.draining[topic]
                heartbeats.now([box.agent_id])
