"""From what the consumer polled to mailboxes, running handlers and dead letters.

Everything of one poll is noted before anything of it starts, so that an assignment and its cancel that arrive together
cost no handler. A record that cannot be worked on is buried before its offset counts as finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from actors.inbox import Taken, take
from actors.ledger import Ledger
from actors.mailbox import Mailbox
from actors.poison import Found, dead_letter, headers
from actors.runner import Runner
from actors.runtime.inboxes import Inboxes
from schemas.codec import Codecs
from schemas.errors import TroupeError, UnknownSchemaId
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, INBOX

Refresh = Callable[[int], Awaitable[None]]
"""Read `_schemas` again and admit what is new into the codecs."""

Polled = dict[TopicPartition, list[ConsumerRecord]]


class Intake:
    """Takes polled records in. `draining` are the mailboxes, by topic, that were told to stop."""

    def __init__(
        self,
        settings: Settings,
        codecs: Codecs,
        sender: AIOKafkaProducer,
        inboxes: Inboxes,
        runner: Runner,
        clock: Callable[[], int],
        refresh: Refresh | None,
    ) -> None:
        self.draining: dict[str, Mailbox] = {}
        self._codec, self._letters = codecs.of(INBOX.subject), codecs.of(DEAD_LETTERS.subject)
        self._letters_topic = settings.kafka.topic_prefix + DEAD_LETTERS.name
        self._limit_seconds = settings.kafka.request_timeout_seconds
        self._sender, self._inboxes, self._runner = sender, inboxes, runner
        self._clock, self._refresh = clock, refresh
        self._log = structlog.get_logger("actors")

    async def take(self, polled: Polled) -> None:
        """Do what the records say. Raises KafkaError or TimeoutError if a dead letter cannot be written."""
        taken = Taken()
        for place, messages in polled.items():
            mailbox = self._inboxes.mailboxes[place.topic]
            for message in messages:
                ledger = mailbox.ledgers.get(place.partition)
                if ledger is None:
                    break  # revoked meanwhile
                await self._note(_found(message), mailbox, ledger, taken)
        self.draining |= taken.stopped
        for work in taken.ended:
            self._runner.cancel(work)
        for mailbox, found, error in taken.poison:
            await self._bury(mailbox, found, error)
        self._runner.wake(taken.filled.values())

    async def _note(self, found: Found, mailbox: Mailbox, ledger: Ledger, taken: Taken) -> None:
        try:
            take(found, mailbox, ledger, self._codec, taken)
            return
        except UnknownSchemaId as error:
            unknown = error
        # The writer may be newer than we are: read the schemas once more, then it is poison.
        if self._refresh is not None:
            await self._refresh(unknown.schema_id)
        try:
            take(found, mailbox, ledger, self._codec, taken)
        except UnknownSchemaId:
            ledger.take(found.offset)
            taken.poison.append((mailbox, found, unknown))

    async def _bury(self, mailbox: Mailbox, found: Found, error: TroupeError) -> None:
        letter = dead_letter(found, error, mailbox.agent_id, self._clock())
        self._log.warning("dead_letter", position=found.position, error=str(error))
        async with asyncio.timeout(self._limit_seconds):
            await self._sender.send_and_wait(
                self._letters_topic,
                key=found.position.encode(),
                value=self._letters.encode(letter),
                headers=headers(letter, error),
            )
        mailbox.close(found.partition, found.offset)


def _found(message: ConsumerRecord) -> Found:
    return Found(
        message.topic, message.partition, message.offset, message.timestamp * 1000,
        message.key, message.value or b"", [(name, value or b"") for name, value in message.headers],
    )  # fmt: skip
