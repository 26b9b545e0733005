"""Fetching under Faust, in the main loop: what closes the holes around seeks, and hears what the group says.

Faust gives its consumer a thread and a loop of its own. At a few hundred records a second a quarter of the coordinator's
processor time went into passing the interpreter to and fro, so the consumer is a task of the main loop here. A fetch waits in
it while seeks pass, and records could be lost around one; each method says which hole it closes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from faust.transport.drivers import aiokafka as driver
from mode.utils.futures import maybe_async

from schemas.changelog import ChangelogHeader
from schemas.fetch_sessions import FetchSessions
from schemas.plain_requests import send_plainly
from streams.runtime.delivered import Chunk
from streams.runtime.fetched import read_any_header_name

REMOVED = frozenset({25, 82})
"""Kafka's answers to a member that the group no longer has: unknown member id, fenced instance id."""

_CLOSE = 4
"""Fetches at most so many waits apart follow each other closely; a fetch that waits takes one to two."""

_STILL_SECONDS = 0.05
"""Records that flowed have stopped when none came for so long."""

_COMMIT, _JOIN_HEARTBEAT_SYNC = 8, (11, 12, 14)


class Replaced(Exception):
    """The group has given our place to somebody else; `silent_s` seconds after it last heard of us."""

    def __init__(self, silent_s: float) -> None:
        super().__init__(f"the group removed us {silent_s:.1f} s after it last heard of us")
        self.silent_s = silent_s


@dataclass(slots=True)
class Hooks:
    """What the app tells its owner; set before the app starts.

    deliver: takes a chunk of an input topic; is_full: whether so much was delivered and not taken yet that fetching waits.
    full_at: when it last did, by the steady clock.
    """

    group_error: Callable[[BaseException], None]
    start_offsets: Callable[[Mapping[Any, int]], None]
    committed: Callable[[], None]
    deliver: Callable[[str, Chunk], None]
    is_full: Callable[[], bool]
    decode_header: Callable[[bytes], ChangelogHeader]
    store_broken: Callable[[str], NoReturn]
    gather_bytes: int = 65_536
    gather_ms: int = 4
    fetch_max_wait_ms: int = 500
    max_partition_fetch_bytes: int = 8 * 1024 * 1024
    max_request_bytes: int = 8 * 1024 * 1024
    heartbeat_at: float = field(default_factory=time.monotonic)
    full_at: float = 0.0


class _Live:
    """The main loop's set of active partitions, read while a fetch waits.

    Faust hands over the set itself; pausing its last partition empties it, which aiokafka takes for "all partitions",
    and the records taken then are dropped as not active. An object that only answers `in` means what it says.
    """

    def __init__(self, partitions: Any) -> None:
        self._partitions = partitions

    def __contains__(self, partition: Any) -> bool:
        return partition in self._partitions


class Taken(dict[Any, Any]):
    """What a fetch took, and the seeks that it knew of."""

    seeks: Counter[Any]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seeks = Counter()


class Pace:
    """How long the broker holds a fetch, by how the records come.

    At a few hundred records a second each would be a fetch of its own, and a fetch costs more than a record: so while they
    flow it waits a moment for company. They flow when at least one more is to be expected within that moment, and when the
    fetches follow each other closely: where the work between two of them is longer, it is what the records gather behind,
    and to be held costs the broker a look at each append. A record that comes alone is not held, and an idle process asks
    twice a second.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._wait = hooks.gather_ms / 1000
        self._gap = self._record_gap = 1.0
        self._at = 0.0
        self.flowing = False

    def heard(self, now: float, count: int) -> None:
        """A fetch ended with so many records; seconds of a steady clock."""
        if count:
            gap = min(1.0, now - self._at)
            self._gap = 0.8 * self._gap + 0.2 * gap
            self._record_gap = 0.8 * self._record_gap + 0.2 * gap / count
            self._at = now
        self.flowing = count > 0 and self._record_gap < self._wait and self._gap < _CLOSE * self._wait

    def apply(self, fetcher: Any) -> None:
        """The next fetches are asked for in this way."""
        fetcher._fetch_min_bytes = self._hooks.gather_bytes if self.flowing else 1
        fetcher._fetch_max_wait_ms = self._hooks.gather_ms if self.flowing else self._hooks.fetch_max_wait_ms


class _Worker:
    """What Faust takes for a thread: its service is served by a task."""

    def __init__(self, service: Any) -> None:
        self._service = service
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve."""
        self._task = self._service.loop.create_task(self._service._serve())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """As mode's thread: who waits for the end hears of it, also where it failed, which was said before."""
        if task.cancelled() or task.exception() is not None:
            self._service.set_shutdown()

    def stop(self) -> None:
        """Nothing: who asks has waited for the service."""


class ConsumerTask(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's fetching thread as a task, with fetch settings and sessions, and a fetch that a seek overtook given back.

    A fetch waits for up to a second while seeks pass it. What it took counts only if its partition was not sought since the
    fetch began; else the records go back in the same step in which they were taken.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.seeks: Counter[Any] = Counter()
        self.last: dict[Any, int] = {}
        self.given_back = 0
        self.sessions: FetchSessions | None = None
        self._settled = False
        super().__init__(*args, thread_loop=kwargs["loop"], Worker=_Worker, **kwargs)
        self._pace = Pace(self._hooks)

    @property
    def _hooks(self) -> Hooks:
        hooks: Hooks = self.consumer.app.hooks
        return hooks

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)  # Faust fixes these at 1500 ms and 1 byte
        consumer._fetch_min_bytes = 1
        consumer._fetch_max_wait_ms = self._hooks.fetch_max_wait_ms
        consumer._max_partition_fetch_bytes = self._hooks.max_partition_fetch_bytes
        self.sessions = FetchSessions.of(consumer._client)
        send_plainly(consumer._client)
        return consumer

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Faust's way into the thread; here it is a call."""
        return await maybe_async(fun(*args, **kwargs))

    async def _gather_remaining_tasks(self) -> None:
        """Nothing: Faust ends whatever is left in the thread's loop, and this one is everybody's."""

    async def _fetch_records(
        self, consumer: Any, active_partitions: Any, timeout: float | None = None, max_records: int | None = None
    ) -> Taken:
        before = self.seeks.copy()
        live = None if active_partitions is None else _Live(active_partitions)
        if self._pace.flowing:
            timeout = _STILL_SECONDS  # so that the pace is looked at soon
        taken = Taken(await super()._fetch_records(consumer, live, timeout, max_records))
        self._pace.heard(time.monotonic(), sum(map(len, taken.values())))
        self._pace.apply(consumer._fetcher)
        for partition in [tp for tp in taken if self.seeks[tp] != before[tp]]:  # no await since they were taken
            first = taken.pop(partition)[0].offset
            self.given_back += 1
            if partition in consumer.assignment():
                consumer.seek(partition, first)
        self.last.update((partition, records[-1].offset) for partition, records in taken.items())
        taken.seeks = before
        return taken

    def _sought(self, partitions: Iterable[Any]) -> None:
        for partition in list(partitions):
            self.seeks[partition] += 1
            self.last.pop(partition, None)
        if self.sessions is not None:
            self.sessions.renew()  # the answer under way may be dropped, and tells the ends of quiet partitions

    async def on_start(self) -> None:
        await super().on_start()
        read_any_header_name(self._consumer._fetcher)
        self._listen_for_heartbeats(self._consumer._coordinator)

    def _listen_for_heartbeats(self, coordinator: Any) -> None:
        """Remember when the group last heard of us: after a pause a process must know that it may be a zombie."""
        send = coordinator._do_heartbeat

        async def beat() -> Any:
            heard = await send()
            if heard:
                self._hooks.heartbeat_at = time.monotonic()
            return heard

        coordinator._do_heartbeat = beat
        self._listen_for_removal(coordinator)

    async def beat(self) -> None:
        """Ask the group now whether we are still in it; `Hooks.group_error` hears if not."""
        await self._ensure_consumer()._coordinator._do_heartbeat()

    def _listen_for_removal(self, coordinator: Any) -> None:
        """aiokafka would join again under its name and take the place back from whoever has it by now, without end."""
        send = coordinator._send_req

        async def listening(request: Any) -> Any:
            answer = await send(request)
            # Who has no partitions yet may join again: it started too slowly, and there is nothing to fight about.
            if self._settled and REMOVED & _codes(answer):
                self._hooks.group_error(Replaced(time.monotonic() - self._hooks.heartbeat_at))
            return answer

        coordinator._send_req = listening

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        self._hooks.heartbeat_at = time.monotonic()
        self._sought(assigned)
        self._settled = True
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: Any) -> None:
        self._settled = False
        await super().on_partitions_revoked(revoked)

    async def _seek_wait(self, consumer: Any, partitions: Any) -> None:
        self._sought(partitions)
        await super()._seek_wait(consumer, partitions)

    async def seek_to_committed(self) -> dict[Any, int]:
        """All inputs in one step, to their commit or the log's start, whichever is later.

        aiokafka seeks one by one, and only to a commit above 0; elsewhere the position would stay where a fetch between
        the join and the pause had come to, and those records would be skipped.
        """
        consumer = self._ensure_consumer()
        inputs = [tp for tp in self.assignment() if not self.consumer._is_changelog_tp(tp)]
        starts = await consumer.beginning_offsets(inputs) if inputs else {}
        wanted = {tp: max(await consumer.committed(tp) or 0, starts.get(tp) or 0) for tp in inputs}
        self._sought(wanted)
        for partition, offset in wanted.items():
            consumer.seek(partition, offset)
        return wanted

    async def reached(self, *partitions: Any) -> dict[Any, tuple[int, int]]:
        """(position, last record taken); a marker of a user's transaction moves only the first."""
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        return {tp: (await consumer.position(tp), self.last.get(tp, -1)) for tp in partitions if tp in assigned}


def _codes(answer: Any) -> set[int]:
    """The error codes of an answer to a commit, join, heartbeat or sync; of others none."""
    if answer.API_KEY == _COMMIT:
        return {code for _, places in answer.topics for _, code in places}
    return {answer.error_code} if answer.API_KEY in _JOIN_HEARTBEAT_SYNC else set()
