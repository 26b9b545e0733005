"""Fetches that name only what has changed: a host with a thousand inboxes would else name them all each time.

Kafka keeps, for a fetch session, which partitions a consumer reads and from where; a fetch then carries the differences,
and the answer only partitions that have something to tell. aiokafka knows the fields of that protocol and always asks
without a session, so at a thousand inboxes four fifths of a host's processor time went into writing and reading lists
in which nothing had changed. This stands between its fetcher and its client, and both stay as they are: the fetcher asks
for all partitions, and is answered about those that have news. Hosts and coordinators both read so; the client is theirs,
and a fetch is known here by its number in Kafka's protocol.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

_FETCH = 1
"""A fetch, among Kafka's requests."""

_VERSION = 7
"""The first version of the request that knows sessions."""

_LAST_EPOCH = 2**31 - 1

Place = tuple[str, int]
"""Topic and partition."""

Wanted = Mapping[Place, tuple[int, int]]
"""From which offset on a place is read, and how many bytes at most."""


class Session(NamedTuple):
    """What a broker knows of our fetches. Id 0 is no session; epoch 0 names all places and asks for a new session."""

    id: int = 0
    epoch: int = 0
    known: Wanted = MappingProxyType({})

    def anew(self) -> Session:
        """The beginning of the session in the place of this one, which the broker then lets go of."""
        return Session(self.id)


class FetchSessions:
    """The fetch sessions of one consumer, one with each broker. `send` is its client's own.

    Whoever is given partitions, or seeks, has them renewed: a partition to which no record is added tells its end in the
    first answer alone, and that one may be dropped for a position that has moved meanwhile.
    """

    def __init__(self, send: Callable[..., Awaitable[Any]]) -> None:
        self._send = send
        self._sessions: dict[int, Session] = {}

    @classmethod
    def of(cls, client: Any) -> FetchSessions:
        """Have this client of aiokafka fetch in sessions from now on."""
        sessions = cls(client.send)
        client.send = sessions.send
        return sessions

    def renew(self) -> None:
        """Be told of every place once more."""
        self._sessions = {node: session.anew() for node, session in self._sessions.items()}

    async def send(self, node: int, request: Any, **options: Any) -> Any:
        """Send a request of the consumer; a fetch in a session. Raises what the client raises."""
        if request.API_KEY != _FETCH:
            return await self._send(node, request, **options)
        wanted = {(topic, number): (offset, size) for topic, parts in request.topics for number, offset, size in parts}
        response = await self._ask(node, request, wanted, options)
        told = [(topic, [part for part in parts if (topic, part[0]) in wanted]) for topic, parts in response.topics]
        response.topics = told
        # The fetcher now looks up where it asked for what it is told; the rest of its list it need not walk again.
        request._topics = [(topic, [(part[0], *wanted[topic, part[0]]) for part in parts]) for topic, parts in told]
        return response

    async def _ask(self, node: int, request: Any, wanted: Wanted, options: Mapping[str, Any]) -> Any:
        session = self._sessions.get(node, Session())
        # Who fails, is cancelled or is refused does not know what the broker has noted, so the next one asks anew.
        unsure = self._sessions[node] = session.anew()
        known = session.known
        changed = ((place, (place[1], *what)) for place, what in wanted.items() if known.get(place) != what)
        request._topics = _by_topic(changed)
        forgotten = _by_topic((place, place[1]) for place in known.keys() - wanted.keys())
        response = await self._send(node, _Fetch(request, session, forgotten), **options)
        agreed = response.API_VERSION >= _VERSION and not response.error_code and response.session_id
        if agreed and self._sessions[node] is unsure:
            self._sessions[node] = Session(response.session_id, session.epoch % _LAST_EPOCH + 1, wanted)
        return response


class _Fetch:
    """A fetch as a connection takes it: made when the version is known."""

    API_KEY = _FETCH

    def __init__(self, request: Any, session: Session, forgotten: Any) -> None:
        self._request, self._session, self._forgotten = request, session, forgotten

    def prepare(self, versions: Any) -> Any:
        """The record to send."""
        made: Any = self._request.prepare(versions)
        if made.API_VERSION >= _VERSION:
            made.session_id, made.session_epoch = self._session.id, self._session.epoch
            made.forgotten_topics_data = self._forgotten
        return made


def _by_topic(places: Iterable[tuple[Place, Any]]) -> list[tuple[str, list[Any]]]:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for (topic, _), what in places:
        found[topic].append(what)
    return list(found.items())
