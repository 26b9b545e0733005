"""What of a changelog partition counts: one history, told by header rows, whoever else wrote in between.

A changelog is read in whole batches. A batch ends with its header row, which says at which offset the batch was expected;
one that lies elsewhere was written by somebody who did not know of everything before it (a *stray*) and is ignored. So are
rows that no header closes: nothing of ours is written without one. The owner's recovery and `troupe doctor` both read with
this class, so that what the one shows is what the other does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from schemas.changelog import HEADER_KEY, ChangelogHeader
from schemas.errors import DecodeError

DecodeHeader = Callable[[bytes], ChangelogHeader]
YOUNG_SECONDS = 1800.0
"""Age below which nothing can have been compacted: half of the lag that changelogs are made with."""


class Closed(NamedTuple):
    """A batch that was read to its header row.

    rows: records that count, in order. ignored: records that do not. header: None if it does not count. last: the header
    row's own message. said: what the header row says, None if it is no header.
    """

    rows: list[Any]
    ignored: list[Any]
    header: ChangelogHeader | None
    last: Any
    said: ChangelogHeader | None


class History:
    """Reads one partition from a batch's begin on; messages have `offset`, `key` and `value`."""

    def __init__(self, decode_header: DecodeHeader, is_young: Callable[[Any], bool] = lambda message: False) -> None:
        """`is_young` tells whether a message was appended less than YOUNG_SECONDS ago."""
        self._decode_header, self._is_young = decode_header, is_young
        self._met_header = False
        self.pending: list[Any] = []

    def take(self, message: Any) -> Closed | None:
        """One record; the batch that it closes, or None. Raises UnknownSchemaId for a header of a newer version."""
        if message.key != HEADER_KEY:
            self.pending.append(message)
            return None
        before, self.pending = self.pending, []
        said = self._read(message.value)
        in_place = said is not None and said.base == message.offset - said.count
        first = said.base if said is not None and in_place else message.offset
        older = [row for row in before if row.offset < first]
        believed, ignored = self._believed(older, first)
        self._met_header = True
        own = before[len(older) :]
        return Closed([*believed, *own], ignored, said if in_place else None, message, said)

    def _believed(self, rows: list[Any], first: int) -> tuple[list[Any], list[Any]]:
        """Rows in front of a batch that begins at `first`, parted by whether they count.

        Rows further back had a header that compaction removed, and where it was an offset is missing. Those that reach up
        to the batch without a gap never had one. A gap may also be the marker of somebody's transaction: compaction takes
        older header rows first and young records not at all, so behind a header row a young row had none either.
        """
        cut = _run(rows, first)
        foreign = [row for row in rows[:cut] if self._met_header and self._is_young(row)]
        if not foreign:
            return rows[:cut], rows[cut:]
        return [row for row in rows[:cut] if not self._is_young(row)], [*foreign, *rows[cut:]]

    def rest(self) -> list[Any]:
        """At the end of the log: records that no header closes. They do not count."""
        rest, self.pending = self.pending, []
        return rest

    def _read(self, value: bytes | None) -> ChangelogHeader | None:
        if value is None:
            return None
        try:
            return self._decode_header(value)
        except DecodeError:
            return None


def _run(rows: list[Any], end: int) -> int:
    """Index of the first of those rows that lie without a gap before the offset `end`."""
    index = len(rows)
    while index and rows[index - 1].offset == end - 1:
        index, end = index - 1, end - 1
    return index
