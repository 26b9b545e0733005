"""Sending in hand-built batches: one future per batch and partition, each of them checked.

A future per record costs more than the record. A produce to one of our topics that fails for good raises, and the process
stops; on a user's topic its fallback is written instead. Which partition of an inbox a record goes to is settled here, by its
key: how many there are is known to the cluster alone, as each agent chooses, and another coordinator may have made the topic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code
from aiokafka.producer.message_accumulator import BatchBuilder

from schemas.errors import BrokerUnavailable
from schemas.settings import Settings
from streams.processor import EnsureTopic
from streams.runtime.batches import append, by_key, empty
from streams.runtime.replies import Replies
from streams.runtime.wire import Encoded, Wire

log = structlog.get_logger("outbox")


class Sent(list["asyncio.Future[Any]"]):
    """Futures of batches, and where each of them goes."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def add(self, future: asyncio.Future[Any], topic: str, partition: int) -> None:
        """A batch that is on its way."""
        self.append(future)
        self.places.append(f"{topic}.{partition}")


async def acked(futures: Sequence[asyncio.Future[Any]], limit_s: float) -> list[Any]:
    """The broker's answers, all of them.

    Raises KafkaError for a produce that was refused for good, with its place if it is known; BrokerUnavailable after
    `limit_s` seconds: an idempotent producer tries for ever by itself, since giving a batch up would tear its sequence.
    """
    try:
        async with asyncio.timeout(limit_s):
            return await asyncio.gather(*futures)
    except TimeoutError as late:
        unanswered = _places(futures, lambda future: future.cancelled())
        raise BrokerUnavailable(f"Kafka did not acknowledge {unanswered} within {limit_s:g} s") from late
    except KafkaError as error:
        refused = _places(futures, lambda future: future.done() and not future.cancelled() and future.exception())
        raise KafkaError(f"Kafka refused {refused} for good: {error!r}") from error


def _places(futures: Sequence[asyncio.Future[Any]], wanted: Callable[[asyncio.Future[Any]], object]) -> str:
    places = futures.places if isinstance(futures, Sent) else []
    found = [place for place, future in zip(places, futures, strict=True) if wanted(future)] if places else []
    return f"a batch for {', '.join(found[:3])}" if found else "a batch"


class Outbox:
    """Sends outputs of any topic; knows inboxes that exist."""

    def __init__(self, producer: AIOKafkaProducer, wire: Wire, settings: Settings) -> None:
        self._producer = producer
        self._wire = wire
        self._settings = settings
        self._batch_bytes = settings.coordinator.batch_bytes
        self._inboxes: dict[str, int] = {}  # wanted partitions of those that are there
        self._replies = Replies(settings, self._started_admin)
        self._counts: dict[str, int] = {}  # partitions of the topics that the producer knows
        self._admin: AIOKafkaAdminClient | None = None
        self._starting = asyncio.Lock()

    async def send(self, outputs: Sequence[Encoded]) -> Sent:
        """Hand batches to the producer; the futures end with the broker's acks.

        A batch is closed at `coordinator.batch_bytes`, as a topic need not take a whole flush at once; a record that is
        larger goes alone.
        """
        open_: dict[tuple[str, int], BatchBuilder] = {}
        replies: dict[str, list[Encoded]] = {}
        sent, counts = Sent(), self._counts
        for output in outputs:
            if output.users:
                replies.setdefault(output.topic, []).append(output)
                continue
            topic, number = output.topic, output.partition
            if number < 0:
                count = counts.get(topic)
                if count is None:
                    await self._meet_inboxes({each.topic for each in outputs if each.partition < 0 and not each.users})
                    count = counts[topic]
                number = by_key(output, count) if count > 1 else 0
            place = topic, number
            batch = open_.get(place)
            if batch is None:
                batch = open_[place] = empty(self._batch_bytes)
            if not append(batch, output):
                sent.add(await self._producer.send_batch(batch, place[0], partition=place[1]), *place)
                batch = open_[place] = empty(self._batch_bytes)
                append(batch, output)
        for topic, copies in replies.items():
            sent.add(asyncio.ensure_future(self._reply(topic, copies)), topic, -1)
        await self._meet({topic for topic, _ in open_})
        for place, batch in open_.items():
            sent.add(await self._producer.send_batch(batch, place[0], partition=place[1]), *place)
        return sent

    async def _meet_inboxes(self, topics: set[str]) -> None:
        """As `_meet`; one that somebody deleted is made again, with one partition.

        A cancel may be for an agent that has gone, and nobody else would make its inbox: the process would stop for it at
        each start.
        """
        strange = [topic for topic in topics if topic not in self._counts]
        async with asyncio.timeout(self._settings.kafka.request_timeout_seconds):
            found = await (await self._started_admin()).describe_topics(strange)
            missing = {
                each["topic"]: 1 for each in found if for_code(each["error_code"]) is UnknownTopicOrPartitionError
            }
            if missing:
                log.warning("inbox_made_again", topics=sorted(missing))
                await self._create(missing)
        await self._meet(topics)

    async def _meet(self, topics: set[str]) -> None:
        """Have the producer know these topics, and how many partitions each has from now on.

        Together: the producer would ask the broker for each in turn, and a thousand inboxes took 40 s. A count is kept, so
        that a record that is sent again goes where it went before.
        """
        if strange := [topic for topic in topics if topic not in self._counts]:
            found = await asyncio.gather(*(self._producer.partitions_for(topic) for topic in strange))
            self._counts.update((topic, len(partitions)) for topic, partitions in zip(strange, found, strict=True))

    async def ensure(self, topics: Sequence[EnsureTopic]) -> None:
        """Create the topics that do not exist yet. Raises KafkaError if the broker refuses.

        One that is there keeps its partitions, whatever its agent asks for: records go where there is a place for them.
        """
        new = {each.name: each for each in topics if self._inboxes.get(each.name) != each.partitions}
        if new:
            await self._create({self._wire.real(name): each.partitions for name, each in new.items()})
            self._inboxes.update((name, each.partitions) for name, each in new.items())

    async def _create(self, wanted: dict[str, int]) -> None:
        admin = await self._started_admin()
        limit = str(self._settings.limits.max_wrapped_bytes)
        retention = str(self._settings.retention_days.l * 86_400_000)
        config = {"cleanup.policy": "delete", "retention.ms": retention, "max.message.bytes": limit}
        replicas = await self._replicas(admin)
        new = [NewTopic(name, count, replicas, topic_configs=config) for name, count in wanted.items()]
        response = await admin.create_topics(new)
        there: list[str] = []
        for name, code, *_ in response.topic_errors:
            if for_code(code) is TopicAlreadyExistsError:
                there.append(name)
            elif code:
                raise for_code(code)(f"cannot create {name}")
            else:
                self._counts.pop(name, None)  # one of this name was there before
        for found in await admin.describe_topics(there) if there else ():
            name, count = found["topic"], len(found["partitions"])
            if count not in (0, wanted[name]):
                log.warning("inbox_keeps_its_partitions", topic=name, wanted=wanted[name], found=count)

    async def close(self) -> None:
        """Close the connections of its own."""
        await self._replies.close()
        if self._admin is not None:
            await self._admin.close()

    async def _reply(self, topic: str, copies: list[Encoded]) -> None:
        """Copies to a user's topic; of those that it does not take the fallbacks to ours."""
        refused = await self._replies.send(topic, copies)
        if instead := [copy.fallback for copy in refused if copy.fallback is not None]:
            await acked(await self.send(instead), self._settings.kafka.request_timeout_seconds)

    async def _replicas(self, admin: AIOKafkaAdminClient) -> int:
        if self._settings.kafka.replication_factor is not None:
            return self._settings.kafka.replication_factor
        return 1 if len((await admin.describe_cluster())["brokers"]) == 1 else 3

    async def _started_admin(self) -> AIOKafkaAdminClient:
        async with self._starting:
            if self._admin is None:
                admin = AIOKafkaAdminClient(bootstrap_servers=self._settings.kafka.bootstrap_servers)
                await admin.start()
                self._admin = admin
        return self._admin
