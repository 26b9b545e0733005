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

    def __init__(self, decode_header: DecodeHeader) -> None:
        self._decode_header = decode_header
        self.pending: list[Any] = []

    def take(self, message: Any) -> Closed | None:
        """One record; the batch that it closes, or None. Raises UnknownSchemaId for a header of a newer version."""
        if message.key != HEADER_KEY:
            self.pending.append(message)
            return None
        before, self.pending = self.pending, []
        said = self._read(message.value)
        # Rows further back had a header that compaction removed, and where it was an offset is missing. Those that
        # reach up to this batch without a gap never had one.
        if said is not None and said.base == message.offset - said.count:
            older = [row for row in before if row.offset < said.base]
            cut = _run(older, said.base)
            return Closed(older[:cut] + before[len(older) :], older[cut:], said, message, said)
        cut = _run(before, message.offset)
        return Closed(before[:cut], before[cut:], None, message, said)

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
