"""Requests written and read plainly are those of aiokafka, and a limit that passes ends as it does there."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from io import BytesIO
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import RequestTimedOutError
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v7

from schemas.plain_requests import Answer, _Produce, send_plainly

TOPICS: list[list[tuple[str, list[tuple[int, bytes]]]]] = [
    [],
    [("tasks", [])],
    [("tasks", [(0, b"batch")])],
    [("tasks", [(0, b""), (1, bytearray(b"x" * 70_000))]), ("übung", [(2**31 - 1, b"\0\xff")]), ("", [(7, b"z")])],
]


def message(request: Any, client_id: str, versions: Any) -> bytes:
    made = request.prepare(versions)
    header = made.build_request_header(correlation_id=77, client_id=client_id)
    return bytes(header.encode() + made.encode())


@pytest.mark.parametrize(
    ("owner", "name", "lines"),
    [
        (AIOKafkaClient, "ready", ["await self._get_conn(node_id, group=group)"]),
        (AIOKafkaClient, "send", ["await self.ready(node_id, group=group)", "self._conns[(node_id, group)].send("]),
        (AIOKafkaClient, "send", ["result = await future", "except asyncio.TimeoutError", "RequestTimedOutError()"]),
        (AIOKafkaConnection, "send", ["request.prepare(self._versions)", "header.encode() + request_struct.encode()"]),
        (AIOKafkaConnection, "send", ["self._requests.append(", "return wait_for(fut, self._request_timeout)"]),
        (AIOKafkaConnection, "_handle_frame", ["request.parse_response_header(resp)", "if not fut.done():"]),
        (AIOKafkaConnection, "_handle_frame", ["resp_type = request.RESPONSE_TYPE", "resp_type.decode(resp)"]),
        (SendProduceReqHandler, "handle_response", ["response.API_VERSION", "response.topics"]),
    ],
)
def test_the_code_that_is_relied_on(owner: Any, name: str, lines: list[str]) -> None:
    text = inspect.getsource(getattr(owner, name))
    for line in lines:
        assert line in text, f"{owner.__name__}.{name} no longer contains {line!r}"


@pytest.mark.parametrize("topics", TOPICS)
@pytest.mark.parametrize("versions", [(0, 6), (3, 7), (3, 13), (9, 13)])
@pytest.mark.parametrize("transaction", [None, "mine"])
def test_the_bytes_are_those_of_aiokafka(topics: Any, versions: tuple[int, int], transaction: str | None) -> None:
    request = ProduceRequest(required_acks=-1, timeout=30_000, topics=topics, transactional_id=transaction)
    known = {ProduceRequest.API_KEY: versions}
    try:
        wanted = message(request, "ähnlich", known)
    except NotImplementedError as error:
        with pytest.raises(type(error)):
            message(_Produce(request), "ähnlich", known)
    else:
        assert message(_Produce(request), "ähnlich", known) == wanted


@pytest.mark.parametrize(
    "topics",
    [
        [],
        [("tasks", [])],
        [("tasks", [(0, 0, 12, -1, 0)]), ("übung", [(1, 6, -1, 1_700_000_000_000, -1), (2, 0, 2**62, -1, 9)])],
    ],
)
def test_an_answer_is_read_as_aiokafka_reads_it(topics: Any) -> None:
    request = _Produce(ProduceRequest(required_acks=-1, timeout=1, topics=[], transactional_id=None))
    made = request.prepare({ProduceRequest.API_KEY: (3, 13)})
    raw = (77).to_bytes(4, "big") + ProduceResponse_v7(topics=topics, throttle_time_ms=5).encode()
    data = BytesIO(raw)
    assert made.parse_response_header(data).correlation_id == 77
    answer = made.RESPONSE_TYPE.decode(data)
    assert (answer.API_VERSION, answer.topics) == (ProduceResponse_v7.API_VERSION, topics)
    wanted = ProduceResponse_v7.decode(raw[4:])
    assert answer.topics == wanted.topics


def test_half_an_answer_is_none() -> None:
    raw = ProduceResponse_v7(topics=[("tasks", [(0, 0, 12, -1, 0)])], throttle_time_ms=5).encode()
    for end in range(len(raw) - 4):
        with pytest.raises(Exception, match=r"unpack|codec"):
            Answer.decode(BytesIO(raw[:end]))


@pytest.fixture
async def topic(broker: str) -> str:
    """The name of a new topic with one partition."""
    name = f"plain-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1)])
    await admin.close()
    return name


@pytest.mark.kafka
async def test_what_is_sent_arrives_and_is_acknowledged(broker: str, topic: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", enable_idempotence=True)
    send_plainly(producer.client)
    await producer.start()
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=broker, auto_offset_reset="earliest")
    await consumer.start()
    answers: list[Any] = []
    client_send = producer.client.send

    async def noted(node: int, request: Any, **options: Any) -> Any:
        answers.append(await client_send(node, request, **options))
        return answers[-1]

    producer.client.send = noted
    try:
        for number in range(3):
            acked = await producer.send_and_wait(topic, str(number).encode(), partition=0)
            assert acked.offset == number
            assert (await consumer.getone()).value == str(number).encode()
        assert [type(each) for each in answers[-3:]] == [Answer] * 3
    finally:
        await consumer.stop()
        await producer.stop()


@pytest.mark.kafka
@pytest.mark.parametrize("plain", [False, True])
async def test_a_limit_that_passes_closes_the_connection(broker: str, topic: str, plain: bool) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    if plain:
        send_plainly(producer.client)
    await producer.start()
    client = producer.client
    try:
        (node,) = (each.nodeId for each in client.cluster.brokers())
        assert await client.ready(node)
        connection = client._conns[node, ConnectionGroup.DEFAULT]
        connection._request_timeout = 0.05
        with pytest.raises(RequestTimedOutError):
            await client.send(node, FetchRequest(5_000, 1, 1_000, 0, [(topic, [(0, 0, 1_000)])]))
        assert not connection.connected()
        assert await client.ready(node)
    finally:
        await producer.stop()


async def test_who_expects_no_answer_waits_for_none() -> None:
    sent: list[Any] = []

    class Connection:
        """Of aiokafka, as far as a request without an answer goes."""

        def send(self, request: Any, expect_response: bool = True) -> Any:
            sent.append((request, expect_response))
            return asyncio.sleep(0, "drained")

    class Client:
        connection = Connection()

        async def _get_conn(self, node: int) -> Connection:
            return self.connection

    client, request = Client(), ProduceRequest(required_acks=0, timeout=1, topics=[], transactional_id=None)
    send_plainly(client)
    connection = await client._get_conn(0)
    first = connection.send
    assert (await client._get_conn(0)).send == first, "it is replaced once"
    assert await connection.send(request, expect_response=False) == "drained"
    assert sent == [(request, False)]
