"""The local copy of a table in memory: what `store.py` keeps on disk, in dictionaries.

It belongs to the machine and not to the process: a process that starts again may find it as it was left, older than it
was, or gone, and each of the three must come to the same rows.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator

NO_OFFSET = -1


class MemoryTable:
    """One partition. open and finished: values of rows by key, the latter with when they may leave, microseconds.

    header: the last header row that counts. offset: the changelog is in here up to this offset.
    """

    def __init__(self) -> None:
        self.open: dict[bytes, bytes] = {}
        self.finished: dict[bytes, tuple[bytes, int]] = {}
        self.header: bytes | None = None
        self.offset = NO_OFFSET
        self._by_time: list[tuple[int, bytes]] = []

    def put(self, key: bytes, value: bytes, expires: int | None) -> None:
        """Keep a row; `expires` is None for an open one."""
        if expires is None:
            self.open[key] = value
            return
        self.open.pop(key, None)
        self.finished[key] = value, expires
        insort(self._by_time, (expires, key))

    def drop(self, key: bytes) -> None:
        """Take a row out."""
        self.open.pop(key, None)
        self.finished.pop(key, None)

    def stored(self, key: bytes) -> tuple[bytes | None, int | None]:
        """The value of a row, and when it may leave; (None, None) for a key that is not here."""
        value = self.open.get(key)
        if value is not None:
            return value, None
        return self.finished.get(key, (None, None))

    def leaving(self, until: int, limit: int) -> list[tuple[bytes, bytes]]:
        """(nothing, key) of finished rows that may leave at `until`, oldest first; the shape that `Owner.drop` takes.

        What an entry says may be out of date; such a one is forgotten here.
        """
        end = bisect_left(self._by_time, (until + 1, b""))
        looked, rest = self._by_time[: min(limit, end)], self._by_time[min(limit, end) :]
        found = [
            (expires, key)
            for expires, key in looked
            if key not in self.open and self.finished.get(key, (b"", None))[1] == expires
        ]
        self._by_time = found + rest
        return [(b"", key) for _, key in found]

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of every row, open or finished. An ended row may lie under one whose key began anew."""
        yield from self.open.items()
        yield from ((key, value) for key, (value, _) in self.finished.items() if key not in self.open)


class Disk:
    """The tables of one machine, by processor and partition."""

    def __init__(self) -> None:
        self.tables: defaultdict[tuple[str, int], MemoryTable] = defaultdict(MemoryTable)
