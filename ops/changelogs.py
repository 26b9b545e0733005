"""What the next owner of a changelog partition would find in it, for people: strays, their keys, and the header's state.

Reading is all that happens here, through a consumer that belongs to no group. What counts in a changelog is decided by the
same class as in a recovery.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.changelog import HEADER_KEY, ChangelogHeader
from schemas.errors import BrokerUnavailable
from streams.runtime.history import YOUNG_SECONDS, Closed, History

_POLL_MS = 500
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Stray:
    """Records from offset `first` to `last` that do not count.

    expected: the offset at which their writer expected its batch, None if no header row of ours closes them; instance: the
    writer's `coordinator.instance`, empty in that case.
    """

    first: int
    last: int
    expected: int | None
    instance: str


@dataclass(slots=True)
class ChangelogState:
    """One changelog partition as its next owner would read it.

    start, end: offsets of the log. batches: whole batches at their place. records: rows and tombstones in them. strays:
    the newest 100, `stray_count` of them in all. header: the last header row that counts, at offset `header_at`; None if
    the log has none. overwritten: keys whose last record is a stray's, so that compaction would keep the wrong one; the
    next claim appends the right ones again. closed: whether a header row ends the log.
    """

    topic: str
    partition: int
    start: int = 0
    end: int = 0
    batches: int = 0
    records: int = 0
    strays: list[Stray] = field(default_factory=list)
    stray_count: int = 0
    header: ChangelogHeader | None = None
    header_at: int | None = None
    overwritten: set[bytes] = field(default_factory=set)
    closed: bool = True

    @property
    def claimed(self) -> bool:
        """Whether what strays overwrote was appended again, as each start of an owner does."""
        return not self.overwritten and self.closed


async def read_changelog(
    consumer: AIOKafkaConsumer, place: TopicPartition, decode_header: Callable[[bytes], ChangelogHeader], limit_s: float
) -> ChangelogState:
    """Read a partition from its begin to the end that it has now.

    `consumer` is started, belongs to no group, and is assigned this partition alone afterwards. `decode_header` is
    `codecs.of("changelog.header-value").decode`. Raises BrokerUnavailable if nothing comes for `limit_s` seconds,
    UnknownSchemaId for a header row of a newer version.
    """
    state, history = ChangelogState(place.topic, place.partition), History(decode_header, _is_young)
    try:
        async with asyncio.timeout(limit_s) as limit:
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            state.start = (await consumer.beginning_offsets([place]))[place]
            state.end = (await consumer.end_offsets([place]))[place]
            while await consumer.position(place) < state.end:
                for batch in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                    limit.reschedule(asyncio.get_running_loop().time() + limit_s)
                    for message in batch:
                        if message.offset < state.end and (closed := history.take(message)) is not None:
                            _add(state, closed)
    except TimeoutError as late:
        raise BrokerUnavailable(f"{place.topic}.{place.partition} was not read on within {limit_s:g} s") from late
    if rest := history.rest():
        _stray(state, rest[0].offset, rest[-1].offset, None)
        state.overwritten.update(row.key for row in rest)
        state.closed = False
    return state


def ahead_of_inputs(state: ChangelogState, ends: dict[str, int]) -> list[tuple[str, int, int]]:
    """(input, offset that the header covers, end of that input) where the header is ahead: the input was made anew.

    `ends` are end offsets of the same partition by the input's name without prefix; a coordinator refuses to start.
    """
    inputs = [] if state.header is None else state.header.inputs
    return [
        (each.topic, each.offset, ends[each.topic]) for each in inputs if each.offset >= ends.get(each.topic, 1 << 62)
    ]


def _is_young(message: Any) -> bool:
    return bool(time.time() - message.timestamp / 1000 < YOUNG_SECONDS)


def _add(state: ChangelogState, closed: Closed) -> None:
    state.overwritten.update(_keys(closed.ignored))
    state.overwritten.difference_update(_keys(closed.rows))
    state.records += len(closed.rows)
    if closed.ignored and closed.header is not None:
        _stray(state, closed.ignored[0].offset, closed.ignored[-1].offset, None)
    if closed.header is None:
        first = closed.ignored[0].offset if closed.ignored else closed.last.offset
        _stray(state, first, closed.last.offset, closed.said)
        state.overwritten.add(HEADER_KEY)
        return
    state.batches += 1
    state.overwritten.discard(HEADER_KEY)
    state.header, state.header_at = closed.header, closed.last.offset


def _stray(state: ChangelogState, first: int, last: int, said: ChangelogHeader | None) -> None:
    state.stray_count += 1
    state.strays.append(Stray(first, last, said.base if said else None, said.instance if said else ""))
    del state.strays[:-_SHOWN]


def _keys(messages: Iterable[Any]) -> Iterable[bytes]:
    return (message.key for message in messages)
