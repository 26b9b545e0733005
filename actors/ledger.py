"""Which offsets of one partition are finished: a host finishes out of order, but Kafka's commit is one number.

So the contiguous prefix is the committed offset and what was finished beyond it rides in the commit's metadata, as runs
counted from that offset. After a crash the records between are delivered again and the finished ones among them are
skipped. What does not fit into the metadata is left out: it is merely delivered again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

METADATA_CHARS = 4000
"""The broker takes 4096 bytes (`offset.metadata.max.bytes`)."""

_VERSION = "1;"


class Ledger:
    """The open and finished offsets of one partition since it was assigned."""

    __slots__ = ("_done", "_open", "_saved", "position")

    def __init__(self, committed: int, finished: Iterable[int] = (), saved: tuple[int, str] | None = None) -> None:
        """`committed`: offset to begin at; `finished`: offsets beyond it that need not be done again; `saved`: what our
        group has committed, if that is something else.
        """
        self.position = committed  # one past the last record that was taken
        self._open: deque[int] = deque()
        self._done = {offset for offset in finished if offset >= committed}
        self._saved = saved or (committed, pack(committed, self._done))

    def wants(self, offset: int) -> bool:
        """Whether a delivered offset needs work: it is neither finished nor taken already."""
        return offset >= self.position and offset not in self._done

    def take(self, offset: int) -> None:
        """Note a delivered offset; offsets come in order."""
        if offset >= self.position:
            self.position = offset + 1
            self._open.append(offset)

    def done(self, offset: int) -> None:
        """Note that all that follows from this record is acknowledged."""
        self._done.add(offset)

    def unsaved(self) -> tuple[int, str] | None:
        """Offset and metadata to commit, or None if that is committed already."""
        opened, done = self._open, self._done
        while opened and opened[0] in done:
            done.discard(opened.popleft())
        if not opened and done:  # what the metadata named but retention took away is never delivered
            self._done = done = {offset for offset in done if offset >= self.position}
        offset = opened[0] if opened else self.position
        now = (offset, pack(offset, done) if done else "")
        return None if now == self._saved else now

    def saved(self, commit: tuple[int, str]) -> None:
        """Note what the broker has acknowledged."""
        self._saved = commit


def pack(base: int, offsets: Iterable[int]) -> str:
    """Offsets as `1;first+length,...` counted from base; empty for none; as many as fit."""
    runs: list[list[int]] = []
    for offset in sorted(offsets):
        if runs and offset == runs[-1][0] + runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([offset, 1])
    text = ""
    for first, length in runs:
        item = f"{',' if text else _VERSION}{first - base}+{length}"
        if len(text) + len(item) > METADATA_CHARS:
            break
        text += item
    return text


def unpack(base: int, metadata: str | None) -> set[int]:
    """The offsets that `pack` wrote; empty for text of another origin, which costs a repetition and no record."""
    if not metadata or not metadata.startswith(_VERSION):
        return set()
    found: set[int] = set()
    try:
        for item in metadata.removeprefix(_VERSION).split(","):
            first, length = (int(part) for part in item.split("+"))
            if not 0 <= length <= 1_000_000:
                return set()
            found.update(range(base + first, base + first + length))
    except ValueError:
        return set()
    return found
