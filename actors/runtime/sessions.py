"""The consumer of a host, which may read a thousand inboxes: it fetches in sessions, at a request's own price."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer

from schemas.fetch_sessions import FetchSessions
from schemas.plain_requests import send_plainly


class SessionConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """A consumer that fetches in sessions. Whoever is given partitions has them renewed: else the end of a log that no
    record is added to would never be known again.
    """

    def __init__(self, *topics: str, **options: Any) -> None:
        super().__init__(*topics, **options)
        self.sessions = FetchSessions.of(self._client)
        send_plainly(self._client)

    def leave(self) -> None:
        """Have `stop` say to the group that we are gone for good. A static member says nothing by itself, as it may be back
        within its session, and until that is over nobody would have its inboxes.
        """
        if self._coordinator is not None:
            self._coordinator._group_instance_id = None
