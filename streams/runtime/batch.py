"""The order of a batch, shared by both runtimes.

    1 step in memory
    2 rows and header to the changelog, acked where expected
    3 the same, with the changelog's offset, into the local store in one write
    4 outputs, acked
    5 the records acked, their offsets committed

After an assignment the tail, what lies at or below the recovered header, is read and its outputs are acked before a newer
record goes into a changelog batch: the header names only the last flush's notes, so an older one's outputs must be proven
before another header takes its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from streams.runtime.owner import Owner
from streams.runtime.partition import Arrival, Flush

GROUP = 64
"""Records that are taken before rows and outputs are made of them: enough that the stages' code is fetched seldom, few
enough that what they touch fits the processor's second cache."""

Write = Callable[[Flush], Awaitable[None]]
Track = Callable[[Any, bool], None]
Turn = Callable[[], Awaitable[None] | None]
"""Something to await when it is time that others in the loop have their turn, else None."""


def alone() -> None:
    """The turn of who shares its loop with nobody."""


async def run_batch(
    owner: Owner, arrivals: Iterable[Arrival], write: Write, track: Track, turn: Turn = alone
) -> None:
    """Take all arrivals in order, writing a flush whenever one must be closed.

    write: steps 2 to 5 of a flush. track(handle, waiting): a record is held back (True) or taken up again (False), so that
    a rebalance does not wait for one that waits itself. turn: asked between two records while nothing is half done.
    """
    flush, todo, group = Flush(), await _prepared(owner, arrivals, turn), GROUP

    async def settle() -> None:
        nonlocal flush, group
        settled, again = owner.settle(flush)
        if again:
            todo.extendleft(reversed(again))
            group = 1  # where one breaks others may, and each would undo what came after it
        while settled := owner.keep(flush, settled):
            await write(flush)
            flush = Flush()

    async def close() -> None:
        nonlocal flush
        await settle()
        await write(flush)
        flush = Flush()

    while todo or flush.group:
        if not todo or len(flush.group) >= group:
            await settle()
            if (others := turn()) is not None:
                await others
            continue
        arrival = todo.popleft()
        delivery = arrival.delivery
        partition = owner.partitions.get(delivery.partition)
        if partition is None:
            track(delivery.handle, True)
            continue  # revoked while it waited; its next owner reads it
        name = delivery.topic.name
        newer = delivery.offset > partition.tail.get(name, -1)
        if newer:
            partition.left.discard(name)
        if newer and partition.left:
            partition.held.append(arrival)
            track(delivery.handle, True)
            continue
        if (newer and partition.number in flush.tail) or not owner.take(flush, arrival):
            todo.appendleft(arrival)
            await close()
            continue
        if not newer and delivery.offset == partition.tail[name]:
            partition.left.discard(name)
        if partition.held and not partition.left:
            held, partition.held = partition.held, []
            for waiting in held:
                track(waiting.delivery.handle, False)
            todo.extendleft(reversed(held))
    await write(flush)


async def _prepared(owner: Owner, arrivals: Iterable[Arrival], turn: Turn) -> deque[Arrival]:
    found = deque[Arrival]()
    for arrival in owner.prepare(arrivals):
        found.append(arrival)
        if (others := turn()) is not None:
            await others
    return found
