"""Kafka as somebody has it who never heard of us: librdkafka through `confluent_kafka`, with its stock Avro serializers.

Nothing here uses our codec or our client, so what these read and write is what any tool of that family does.
"""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from ops.cli.roles import troupe_command
from tests.e2e.conftest import LIMIT_S, Visitor

SEEN_WITHIN_S = 100.0
ANSWER_S = 10.0
"""Longest wait for one answer of the broker."""

Record = dict[str, Any]


@contextmanager
def registry_served(system: Visitor) -> Iterator[str]:
    """URL of `troupe schemas serve` of a running system."""
    server = system.start(*troupe_command("schemas", "serve", "--port", "0"))
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("Schema registry: http://127.0.0.1:"), line + server.stdout.read()
        yield line.split()[2]
    finally:
        server.send_signal(signal.SIGINT)
        rest, _ = server.communicate(timeout=LIMIT_S)
    assert server.returncode == 0, rest


class Foreign:
    """A producer and a consumer at one broker; values are records, serialized by the registry's word alone."""

    def __init__(self, bootstrap: str, registry: str) -> None:
        self.bootstrap = bootstrap
        self.registry = SchemaRegistryClient({"url": registry})
        self._to_avro = AvroSerializer(self.registry, conf={"auto.register.schemas": False, "use.latest.version": True})
        self._from_avro = AvroDeserializer(self.registry)
        self._readers: dict[str, tuple[Consumer, list[TopicPartition], list[Message]]] = {}

    def avro(self, topic: str, record: Mapping[str, Any]) -> bytes:
        value: bytes = self._to_avro(record, SerializationContext(topic, MessageField.VALUE))
        return value

    def request(self, task_id: str, **fields: Any) -> bytes:
        """A submit; an envelope and what the caller says, the rest is left to the schema's defaults."""
        envelope = {"event_id": str(uuid.uuid4()), "occurred_at": time.time_ns() // 1000, "source": "somebody"}
        return self.avro("tasks.requests", {**envelope, "kind": "submit", "task_id": task_id, **fields})

    def produce(self, topic: str, records: list[dict[str, Any]], **config: Any) -> list[Message]:
        """Send records, each the arguments of `produce`; returns them as delivered.

        With a `transactional.id` in the configuration they are sent in one transaction.
        """
        delivered: list[Message] = []

        def note(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            delivered.append(message)

        producer = Producer({"bootstrap.servers": self.bootstrap, **config})
        if in_transaction := "transactional.id" in config:
            producer.init_transactions(SEEN_WITHIN_S)
            producer.begin_transaction()
        for record in records:
            producer.produce(topic, on_delivery=note, **record)
        assert producer.flush(SEEN_WITHIN_S) == 0
        if in_transaction:
            producer.commit_transaction(SEEN_WITHIN_S)
        return delivered

    def submit_json(self, value: str | Mapping[str, Any], **more: Any) -> str:
        """Send one JSON value; returns its position."""
        text = value if isinstance(value, str) else json.dumps(value)
        (message,) = self.produce("tasks.requests", [{"value": text.encode(), **more}])
        return f"{message.topic()}.{message.partition()}.{message.offset()}"

    def messages(self, topic: str) -> list[Message]:
        """All that lies in a topic now, in the order of each partition.

        A busy machine's broker may lose its leaders for a moment. A librdkafka consumer that saw that can take minutes
        to look again, so it gives way to a new one, which begins at the beginning.
        """
        end = time.monotonic() + SEEN_WITHIN_S
        while True:
            try:
                return list(self._read_to_end(topic))
            except KafkaException:
                if time.monotonic() > end:
                    raise
                if topic in self._readers:
                    self._readers.pop(topic)[0].close()

    def _read_to_end(self, topic: str) -> list[Message]:
        if topic not in self._readers:
            self._readers[topic] = self._reader(topic)
        consumer, places, found = self._readers[topic]
        ends = {each.partition: consumer.get_watermark_offsets(each, timeout=ANSWER_S)[1] for each in places}
        while any(read < end for end, read in self._progress(ends, found)):
            message = consumer.poll(ANSWER_S)
            if message is None or message.error():
                raise KafkaException(message and message.error())
            found.append(message)
        return found

    def _reader(self, topic: str) -> tuple[Consumer, list[TopicPartition], list[Message]]:
        """A consumer that belongs to no group's assignment, from the topic's beginning on."""
        config = {"bootstrap.servers": self.bootstrap, "group.id": "somebody", "fetch.wait.max.ms": 10}
        consumer = Consumer({**config, "enable.auto.commit": False})
        known = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
        if known.error is not None:
            raise KafkaException(known.error)
        places = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in known.partitions]
        consumer.assign(places)
        return consumer, places, []

    def _progress(self, ends: Mapping[int, int], found: list[Message]) -> list[tuple[int, int]]:
        """(end, one past the last record read) of each partition."""
        read = dict.fromkeys(ends, 0)
        read.update((each.partition(), each.offset() + 1) for each in found)
        return [(end, read[number]) for number, end in ends.items()]

    def committed(self, group: str, topic: str) -> int:
        """The offset that a group has committed for the one partition of a topic."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        try:
            return int(consumer.committed([TopicPartition(topic, 0)], timeout=SEEN_WITHIN_S)[0].offset)
        finally:
            consumer.close()

    def close(self) -> None:
        for consumer, *_ in self._readers.values():
            consumer.close()

    def records(self, topic: str, about: Callable[[Record], Any] = lambda _: True) -> list[Record]:
        """The same, decoded, as far as they are about something."""
        context = SerializationContext(topic, MessageField.VALUE)
        decoded = [self._from_avro(message.value(), context) for message in self.messages(topic)]
        return [record for record in decoded if about(record)]

    def until(self, look: Callable[[], Any]) -> Any:
        """What `look` finds, as soon as it finds something."""
        end = time.monotonic() + SEEN_WITHIN_S
        while time.monotonic() < end:
            if found := look():
                return found
            time.sleep(0.05)
        raise AssertionError(f"nothing was found within {SEEN_WITHIN_S} s")

    def result(self, task_id: str) -> Record:
        """The one outcome of a task, as soon as it is there."""
        (found,) = self.until(lambda: self.records("tasks.results", lambda each: each["task_id"] == task_id))
        return dict(found)


@pytest.fixture(scope="module")
def foreign(system: Visitor) -> Iterator[Foreign]:
    """Clients of another family on the system of the module; import it where it is used."""
    address = next(each["addresses"][0] for each in system.json("ps") if each["role"] == "broker")
    with registry_served(system) as url:
        made = Foreign(address, url)
        yield made
        made.close()
