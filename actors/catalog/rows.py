"""What every kind of source is turned into before anybody asks what its values mean: rows of text, each whole or with
the reason why not.

A number is kept as it was written, so the same rows give the same data set whether they come as CSV, JSON lines or
SQLite: there is one guess of types and one reading of values for all. Nothing in a bad row may stop the good ones and
nothing in a source may take unbounded memory: lines, cells and columns have limits, and bytes that are no UTF-8 spoil
only their own row.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from actors.catalog.datasets import shown

LINE_CHARS_MAX = 1 << 20
CELL_CHARS_MAX = 1 << 17  # what the csv module takes by itself
COLUMNS_MAX = 2_000

Cell = str | None
"""The text of a value as it was written; None where there is none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `number` counts data rows from 1; `line` is the line of the file where it ends and `rowid` the row of an
    SQLite table, None where there are none. `reason` says what is wrong with it as a whole (empty if nothing), `value`
    shows the text in question and `place` is its column, if it is of one.
    """

    number: int
    line: int | None
    cells: Sequence[Cell]
    reason: str = ""
    value: str | None = None
    place: int | None = None
    rowid: int | None = None


class Rows(Protocol):
    """The rows of one source, in order, once.

    header: names of the columns. A source without a header of its own adds to it while its rows are read; it is whole
    after `checksum`.
    """

    header: list[str]

    def __iter__(self) -> Iterator[Row]: ...

    @property
    def share(self) -> float:
        """How much of the source was read, 0 to 1."""

    def checksum(self) -> str:
        """SHA-256 (hex) of the whole source; what was not asked for is read now."""


class LineTooLong(ValueError):
    """A line was skipped since it is over the limit."""


class _CountedBytes(io.RawIOBase):
    """Bytes on their way to the decoder: counted for the progress and digested for the checksum."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.count = 0
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        self.digest.update(data)
        return len(data)


class TextLines:
    """The lines of a text source, with their ends; one may ask on after LineTooLong. `count` is of the lines read."""

    def __init__(self, source: BinaryIO) -> None:
        self._bytes = _CountedBytes(source)
        # utf-8-sig drops the byte order mark that spreadsheets write; surrogates keep the bytes that are no UTF-8.
        self._text = io.TextIOWrapper(
            io.BufferedReader(self._bytes, 1 << 16), encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        self.count = 0

    def __iter__(self) -> TextLines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(LINE_CHARS_MAX)
        if not line:
            raise StopIteration
        self.count += 1
        if len(line) < LINE_CHARS_MAX or line[-1] in "\r\n":
            return line
        while (rest := self._text.readline(LINE_CHARS_MAX)) and rest[-1] not in "\r\n":
            pass
        raise LineTooLong(f"line is longer than {LINE_CHARS_MAX} characters")

    @property
    def bytes_read(self) -> int:
        return self._bytes.count

    def checksum(self) -> str:
        """SHA-256 (hex) of all bytes; what was not asked for is read now."""
        while self._text.buffer.read(1 << 20):
            pass
        return self._bytes.digest.hexdigest()


def checked(row: Row) -> Row:
    """The row, or the row with a reason if one of its cells cannot be kept."""
    for place, cell in enumerate(row.cells):
        reason = "" if cell is None else spoiled(cell)
        if reason:
            return Row(row.number, row.line, row.cells, reason, shown(cell), place, row.rowid)
    return row


def spoiled(cell: str) -> str:
    """Why this text cannot be kept; empty if it can."""
    if len(cell) > CELL_CHARS_MAX:
        return f"is longer than {CELL_CHARS_MAX} characters"
    return "" if cell.isascii() or not has_stray_bytes(cell) else "is not UTF-8"


def has_stray_bytes(text: str) -> bool:
    """Whether UTF-8 has no bytes for this text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
