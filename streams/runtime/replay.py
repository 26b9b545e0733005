"""Reading a changelog back, and taking it over: what is the same for a store on disk and for one in memory.

What counts in a changelog is said in `history.py`. The keys that a stray overwrote are kept as `losers`: the next owner
appends the winners again, because compaction keeps the last record of a key and knows nothing of strays. Until that is
acked the stored offset stays before the first stray, so that a crash in between does not forget them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from schemas.changelog import HEADER_KEY
from streams.runtime.expiry import FINISHED_HEADER, expiry_bytes
from streams.runtime.history import Closed, DecodeHeader, History
from streams.runtime.owner import Owner
from streams.runtime.partition import ChangelogRecord, Flush, Part, Partition, size_of

FOR_EVER = 1 << 62

LOOK_AGAIN_US = 1_000_000
"""Between looks for finished rows whose time has come, by the time of the logs."""

Stored = Callable[[bytes], tuple[bytes | None, int | None]]
"""By key: the value of a row, and when it may leave, None for an open one; (None, None) without a row."""

Leaving = Callable[[int, int], list[tuple[bytes, bytes]]]
"""By time and limit: (index key, row key) of finished rows that may leave, oldest first."""


class OtherLog(Exception):
    """The local copy was not made from this changelog."""


class Replay:
    """What one partition's changelog told: the batch not yet closed, losers, and the offset to hold back."""

    def __init__(self, decode_header: DecodeHeader, is_young: Callable[[Any], bool] = lambda message: False) -> None:
        self.history = History(decode_header, is_young)
        self.losers: set[bytes] = set()
        self.hold: int | None = None
        self.strays = 0
        self.ignored = 0
        self._decode_header = decode_header
        self._known: tuple[int, bytes] | None = None

    def expect(self, header: bytes) -> None:
        """The header row that the local copy ends with: it must lie in the log where it says."""
        said = self._decode_header(header)
        self._known = said.base + said.count, header

    def compare(self, message: Any) -> None:
        """Raises OtherLog if this is another record than the one that was expected at its offset."""
        if self._known is not None and message.offset == self._known[0]:
            if (message.key, message.value) != (HEADER_KEY, self._known[1]):
                raise OtherLog(f"offset {message.offset} of the changelog is another record than in the local store")
            self._known = None

    def ended(self, end: int) -> None:
        """The log was read to `end`. Raises OtherLog if the local copy knows of more."""
        if self._known is not None and self._known[0] >= end:
            raise OtherLog(f"the changelog ends at offset {end}, the local store has read up to {self._known[0]}")

    def lose(self, messages: list[Any]) -> None:
        """These do not count: their keys need their winners again, and reading begins before them until that is acked."""
        if messages:
            self.losers.update(message.key for message in messages)
            self.ignored += len(messages)
            self.hold = messages[0].offset - 1 if self.hold is None else self.hold

    def close(self, closed: Closed) -> int:
        """Count a batch; returns the offset from which a crash now would read again."""
        self.lose(closed.ignored)
        if closed.header is None:
            self.strays += 1
            self.lose([closed.last])
        self.losers.difference_update(message.key for message in closed.rows)
        offset: int = closed.last.offset
        return offset if self.hold is None else self.hold


def claims(partition: Partition, replay: Replay, stored: Stored, batch_bytes: int) -> Iterator[tuple[Part, int | None]]:
    """Our first appends, before any record is stepped: a header, and the winners over strays.

    Acked where expected they prove that what was recovered is complete, and make strays of whatever another writer still
    holds. Yields each part with the offset that the store keeps for it, None for its own.
    """
    part = Part(notes=list(partition.notes.values()))
    for key in sorted(replay.losers - {HEADER_KEY}):
        value, expires = stored(key)
        headers = () if expires is None else ((FINISHED_HEADER, expiry_bytes(expires)),)
        record = ChangelogRecord(key, value, headers)
        if part.records and part.size + size_of(record) > batch_bytes:
            yield part, replay.hold
            part = Part(notes=list(partition.notes.values()))
        part.add(record)
    yield part, None


def let_leave(owner: Owner, flush: Flush, leaving: Callable[[int], Leaving], keep_rows: int, limit: int) -> None:
    """Finished rows whose time has come go with a flush that writes rows of their partition, at most `limit` of each.

    Who found all of them looks again a second later: a look costs as much as writing a row.
    """
    read_until = -1
    for number, part in flush.parts.items():
        partition = owner.partitions[number]
        if part.records and partition.finished:
            read_until = owner.read_until() if read_until < 0 else read_until
            over = partition.finished > keep_rows
            if not over and read_until < partition.look_again:
                continue
            found = leaving(number)(FOR_EVER if over else read_until, limit)
            partition.look_again = read_until + LOOK_AGAIN_US if len(found) < limit else 0
            owner.drop(part, partition, found)
