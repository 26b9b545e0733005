"""How the agents of a host become known: a wish on `agents.commands`, and the registry's answer.

A record in `agents.registry` implies that the agent's inbox exists, so the host waits for it before it subscribes. The
author of a file changes it and runs it again; another definition under a known id therefore replaces the old one.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from actors.runtime.directory import refuse_lookalikes
from schemas.agents import AgentCommand, AgentCommandKind, AgentDefinition, AgentEvent, AgentEventKind, AgentRecord
from schemas.closing import closed
from schemas.codec import Codecs
from schemas.errors import BrokerUnavailable, DecodeError, OperatorError, UnknownSchemaId
from schemas.settings import Settings
from schemas.topics import AGENT_COMMANDS, AGENT_EVENTS, AGENT_REGISTRY, inbox_name

_POLL_MS = 100


async def register(
    settings: Settings, definitions: Sequence[AgentDefinition], codecs: Codecs, producer: AIOKafkaProducer,
    clock: Callable[[], int],
) -> None:  # fmt: skip
    """Announce the agents and wait until the registry has each as announced, and its inbox is there.

    Raises OperatorError if the registry refuses one or does not answer within `coordinator.ready_seconds`, or if the
    topics are missing.
    """
    directory = _Directory(settings, codecs)
    limit = settings.coordinator.ready_seconds
    try:
        async with asyncio.timeout(limit):
            await directory.open(producer)
            await directory.read_to_end()
            refuse_lookalikes([each.agent_id for each in definitions], directory.known)
            announced = [_announce(settings, each, directory, codecs, producer, clock) for each in definitions]
            sent = dict(zip((each.agent_id for each in definitions), await asyncio.gather(*announced), strict=True))
            while missing := [each for each in definitions if directory.known.get(each.agent_id) != each]:
                for each in missing:
                    if refusal := directory.refused.get(sent[each.agent_id]):
                        raise OperatorError(refusal, hint="troupe agents")
                await directory.read(_POLL_MS)
    except TimeoutError:
        late = ", ".join(each.agent_id for each in definitions if directory.known.get(each.agent_id) != each)
        raise OperatorError(
            f"The coordinator did not register {late} within {limit:g} s",
            hint="`troupe ps` shows whether it runs; `troupe up` starts it",
        ) from None
    finally:
        await closed(directory.close(), settings.kafka.metadata_timeout_seconds)
    await _wait_for_inboxes(settings, definitions, producer)


async def _announce(
    settings: Settings, definition: AgentDefinition, directory: _Directory, codecs: Codecs,
    producer: AIOKafkaProducer, clock: Callable[[], int],
) -> str:  # fmt: skip
    """Send the register command; returns its position, by which a refusal names it."""
    known = directory.known.get(definition.agent_id)
    replace = known is not None and known != definition
    if replace:
        structlog.get_logger("actors").info("agent_replaced", agent=definition.agent_id)
    command = AgentCommand(
        event_id=str(uuid.uuid4()), occurred_at=clock(), source=definition.agent_id, kind=AgentCommandKind.REGISTER,
        agent_id=definition.agent_id, definition=definition, replace=replace,
    )  # fmt: skip
    topic = settings.kafka.topic_prefix + AGENT_COMMANDS.name
    value = codecs.of(AGENT_COMMANDS.subject).encode(command)
    placed = await producer.send_and_wait(topic, key=definition.agent_id.encode(), value=value)
    return f"{placed.topic}.{placed.partition}.{placed.offset}"


async def _wait_for_inboxes(
    settings: Settings, definitions: Sequence[AgentDefinition], producer: AIOKafkaProducer
) -> None:
    """Wait until this client's metadata has the inboxes, or the first subscription would be made without them."""
    topics = [settings.kafka.topic_prefix + inbox_name(each.agent_id) for each in definitions]
    try:
        async with asyncio.timeout(settings.kafka.metadata_timeout_seconds):
            await asyncio.gather(*(producer.partitions_for(topic) for topic in topics))
    except (TimeoutError, KafkaError) as error:
        raise BrokerUnavailable(f"The broker does not show the inboxes of registered agents: {error}") from error


class _Directory:
    """The registry as far as it was read, and the refusals since we began."""

    def __init__(self, settings: Settings, codecs: Codecs) -> None:
        prefix = settings.kafka.topic_prefix
        self._registry, self._events = prefix + AGENT_REGISTRY.name, prefix + AGENT_EVENTS.name
        self._records = codecs.of(AGENT_REGISTRY.subject)
        self._facts = codecs.of(AGENT_EVENTS.subject)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka.bootstrap_servers, enable_auto_commit=False, fetch_max_wait_ms=_POLL_MS
        )
        self.known: dict[str, AgentDefinition] = {}
        self.refused: dict[str, str] = {}

    async def open(self, producer: AIOKafkaProducer) -> None:
        """Begin: the registry from its start, the events from their end. Raises OperatorError if they are missing."""
        await self._consumer.start()
        there = await self._consumer.topics()
        if missing := {self._registry, self._events} - there:
            raise OperatorError(f"Topics are missing: {', '.join(sorted(missing))}", hint="troupe topology apply")
        registry = [TopicPartition(self._registry, each) for each in await producer.partitions_for(self._registry)]
        events = [TopicPartition(self._events, each) for each in await producer.partitions_for(self._events)]
        self._consumer.assign(registry + events)
        await self._consumer.seek_to_beginning(*registry)
        for partition, end in (await self._consumer.end_offsets(events)).items():
            self._consumer.seek(partition, end)
        self._ends = await self._consumer.end_offsets(registry)

    async def read_to_end(self) -> None:
        """Read the registry up to the end that it had when it was opened."""
        for partition, end in self._ends.items():
            while await self._consumer.position(partition) < end:
                await self.read(_POLL_MS)

    async def read(self, timeout_ms: int) -> None:
        for partition, messages in (await self._consumer.getmany(timeout_ms=timeout_ms)).items():
            for message in messages:
                try:
                    if partition.topic == self._registry:
                        self._note_record((message.key or b"").decode(), message.value)
                    else:
                        self._note_event(self._facts.decode(message.value or b""))
                except (DecodeError, UnknownSchemaId, UnicodeDecodeError):
                    continue  # not about us: ours will be written with a schema that is known

    async def close(self) -> None:
        await self._consumer.stop()

    def _note_record(self, agent_id: str, value: bytes | None) -> None:
        if not value:
            self.known.pop(agent_id, None)
            return
        record: AgentRecord = self._records.decode(value)
        self.known[record.agent_id] = record.definition

    def _note_event(self, event: AgentEvent) -> None:
        if event.kind is AgentEventKind.REFUSED:
            self.refused[event.cause] = event.error.message if event.error else "The registry refused the agent"
