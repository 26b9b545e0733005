"""Copies of outcomes for their users, on topics that are theirs: what may go wrong there stays there.

They have a producer of their own. Ours is idempotent: it would try a batch for ever, and after one that a topic refused it
could write nothing more to that partition, as the broker misses the sequence numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, for_code

from schemas.errors import BrokerUnavailable
from schemas.settings import Settings
from streams.runtime.batches import append, by_key, empty
from streams.runtime.wire import Encoded

log = structlog.get_logger("outbox")

KNOWN_SECONDS = 30.0
"""How long it is believed what a user's topic was found to be: its partition count, or that it refuses."""

KNOWN_TOPICS = 1000
"""Topics of which that is remembered; who names another for each task must not fill the memory."""


class Replies:
    """Writes to users' topics."""

    def __init__(self, settings: Settings, admin: Callable[[], Awaitable[AIOKafkaAdminClient]]) -> None:
        """`admin` gives a client that is started."""
        self._bootstrap, self._limit_s = settings.kafka.bootstrap_servers, settings.kafka.reply_timeout_seconds
        self._batch_bytes = settings.coordinator.batch_bytes
        self._admin = admin
        self._known: dict[str, tuple[int, float]] = {}
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def send(self, topic: str, copies: list[Encoded]) -> list[Encoded]:
        """Those that the topic did not take, or did not say that it has, within a few times
        `kafka.reply_timeout_seconds`.

        A topic that cannot be written to is left alone for a while. One that only refuses a copy is not: others may have
        named it too.
        """
        try:
            count = await self._partitions(topic)
        except (KafkaError, ValueError, BrokerUnavailable, TimeoutError) as error:
            return self._failed(topic, copies, error)
        refused = [copy for copy in copies if copy.partition >= count]
        places: dict[int, list[Encoded]] = {}
        for copy in copies:
            if copy.partition < count:
                number = copy.partition if copy.partition >= 0 else by_key(copy, count)
                places.setdefault(number, []).append(copy)
        unanswered: list[Encoded] = []
        for large, lost in await asyncio.gather(*(self._write(topic, *place) for place in places.items())):
            refused += large
            unanswered += lost
        if refused:
            log.warning("reply_refused", topic=topic, copies=len(refused), meaning="too large, or no such partition")
        return refused + unanswered

    async def close(self) -> None:
        """Close the connections."""
        if self._producer is not None:
            await self._producer.stop()

    async def _write(self, topic: str, partition: int, copies: list[Encoded]) -> tuple[list[Encoded], list[Encoded]]:
        """Those that are too large for the topic; and, after a failure, those that are not known to be there."""
        todo, refused = [copies], list[Encoded]()
        try:
            async with asyncio.timeout(self._limit_s):
                producer = await self._started()
                while todo:
                    some, batch = todo[-1], empty(self._batch_bytes)  # there until it is answered
                    full = next((n for n, copy in enumerate(some) if not append(batch, copy)), len(some))
                    left = [some[full:]] if full < len(some) else []
                    try:
                        await (await producer.send_batch(batch, topic, partition=partition))
                    except MessageSizeTooLargeError:
                        if full == 1:
                            refused += some[:1]
                        else:  # perhaps only one of them is too large
                            left += [some[: full // 2], some[full // 2 : full]]
                    todo[-1:] = left
        except (KafkaError, TimeoutError) as error:
            return refused, self._failed(topic, [copy for some in todo for copy in some], error)
        return refused, []

    def _failed(self, topic: str, copies: list[Encoded], error: Exception) -> list[Encoded]:
        log.warning("reply_failed", topic=topic, copies=len(copies), error=repr(error))
        self._remember(topic, 0)
        return copies

    async def _partitions(self, topic: str) -> int:
        count, until = self._known.get(topic, (0, 0.0))
        if until > asyncio.get_running_loop().time():
            if not count:
                raise ValueError(f"{topic} refused a record less than {KNOWN_SECONDS:g} s ago")
            return count
        async with asyncio.timeout(self._limit_s):
            (found,) = await (await self._admin()).describe_topics([topic])
        wrong = found["error_code"] or next((each["error_code"] for each in found["partitions"]), 0)
        if wrong:
            raise for_code(wrong)(topic)
        count = len(found["partitions"])
        self._remember(topic, count)
        return count

    def _remember(self, topic: str, count: int) -> None:
        self._known.pop(topic, None)
        self._known[topic] = count, asyncio.get_running_loop().time() + KNOWN_SECONDS
        if len(self._known) > KNOWN_TOPICS:
            del self._known[next(iter(self._known))]  # the oldest

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                limit_ms = int(self._limit_s * 1000)
                producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", request_timeout_ms=limit_ms)
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
        return self._producer
