"""Requests to Kafka at their own price: at a few hundred records a second a process pays by the request, not by the record.

aiokafka writes a produce request field by field through generic types, each level of which copies what is below it, and
keeps a context manager per request for its time limit. Here a produce request is joined once and its answer read with a few
unpacks, and the limit of any request is one timer. Which request is sent when, what an answer means and what a limit that
has passed leads to stays aiokafka's: a connection is given another `send`, and the client the same answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from io import BytesIO
from struct import Struct
from typing import Any, NamedTuple

_PRODUCE = 0
"""Of Kafka's requests."""

_VERSION = 7
"""Of a produce request, and of its answer, as they are written here; aiokafka uses no newer one."""

_HEADER = Struct(">hhih")  # request, version, number of the request, length of the client's name
_BEGIN = Struct(">hhii")  # no transaction, acks, time limit in ms, count of topics
_LENGTH, _COUNT = Struct(">h"), Struct(">i")
_PART = Struct(">ii")  # number, length of the batch
_TOLD = Struct(">ihqqq")  # number, error, offset, timestamp in ms, begin of the log

Told = tuple[int, int, int, int, int]


def send_plainly(client: Any) -> None:
    """From now on all connections that this client of aiokafka opens send in this way."""
    connect = client._get_conn

    async def get(*args: Any, **options: Any) -> Any:
        connection = await connect(*args, **options)
        if connection is not None and "send" not in vars(connection):
            connection.send = _Sending(connection).send
        return connection

    client._get_conn = get


class _Sending:
    """The `send` of a connection."""

    def __init__(self, connection: Any) -> None:
        self._connection, self._send = connection, connection.send

    def send(self, request: Any, expect_response: bool = True) -> Coroutine[Any, Any, Any]:
        """Send a request; the answer, or TimeoutError after the connection's limit. Raises what the connection raises."""
        if request.API_KEY == _PRODUCE and expect_response:
            request = _Produce(request)
        waiting: Coroutine[Any, Any, Any] = self._send(request, expect_response)
        if not expect_response:
            return waiting
        waiting.close()  # it would keep the limit; what it would have waited for is last in the queue
        return _within(self._connection._request_timeout, self._connection._requests[-1][-1])


async def _within(limit_s: float, answer: asyncio.Future[Any]) -> Any:
    timer = answer.get_loop().call_later(limit_s, _late, answer)
    try:
        return await answer
    finally:
        timer.cancel()


def _late(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


class _Produce:
    """A produce request as a connection takes it: made when the version is known."""

    API_KEY = _PRODUCE

    def __init__(self, request: Any) -> None:
        self._request = request

    def prepare(self, versions: Any) -> Any:
        """The record to send."""
        least, most = versions.get(_PRODUCE, (0, 0))
        if least <= _VERSION <= most and self._request._transactional_id is None:
            return _Plain(self._request)
        return self._request.prepare(versions)


class _Encoded(bytes):
    def encode(self) -> bytes:
        return self


class _Number(NamedTuple):
    correlation_id: int


class Answer:
    """The answer to a produce request, by topic."""

    API_VERSION = _VERSION

    def __init__(self, topics: list[tuple[str, list[Told]]]) -> None:
        self.topics = topics

    @classmethod
    def decode(cls, data: BytesIO) -> Answer:
        """Raises struct.error if it ends too early."""
        raw, at = data.read(), _COUNT.size
        topics = []
        for _ in range(*_COUNT.unpack_from(raw)):
            (length,) = _LENGTH.unpack_from(raw, at)
            name_at = at + _LENGTH.size
            at = name_at + length
            (count,) = _COUNT.unpack_from(raw, at)
            places = range(at + _COUNT.size, at + _COUNT.size + count * _TOLD.size, _TOLD.size)
            topics.append((raw[name_at:at].decode(), [_TOLD.unpack_from(raw, place) for place in places]))
            at = places.stop
        return cls(topics)


class _Plain:
    """What a connection knows of a request under way."""

    RESPONSE_TYPE = Answer

    def __init__(self, request: Any) -> None:
        self._request = request

    def build_request_header(self, correlation_id: int, client_id: str) -> _Encoded:
        name = client_id.encode()
        return _Encoded(_HEADER.pack(_PRODUCE, _VERSION, correlation_id, len(name)) + name)

    def encode(self) -> bytes:
        request = self._request
        pieces = [_BEGIN.pack(-1, request._required_acks, request._timeout, len(request._topics))]
        for topic, parts in request._topics:
            name = topic.encode()
            pieces += _LENGTH.pack(len(name)), name, _COUNT.pack(len(parts))
            for number, batch in parts:
                pieces += _PART.pack(number, len(batch)), batch
        return b"".join(pieces)

    def parse_response_header(self, data: BytesIO) -> _Number:
        return _Number(*_COUNT.unpack(data.read(_COUNT.size)))
