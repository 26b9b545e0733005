"""A CSV file is whatever somebody's export made of it; this turns its bytes into rows, each whole or with the reason
why not.

Nothing in a bad row may stop the good ones, and nothing in a file may take unbounded memory: a line has a limit, a
cell has the limit of the csv module (128 KiB), and bytes that are no UTF-8 spoil only their own row. Only what makes
every row meaningless is an error of the whole file: no header, a header that names a column twice, another encoding.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from actors.catalog.datasets import named, shown
from schemas.errors import InvalidInput

LINE_CHARS_MAX = 1 << 20
COLUMNS_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `number` counts data rows from 1, `line` is the line of the file where it ends, `reason` says what is
    wrong with it as a whole (empty if nothing) and `value` shows the text in question.
    """

    number: int
    line: int
    cells: list[str]
    reason: str = ""
    value: str | None = None


class _LineTooLong(ValueError):
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


class _Lines:
    """Lines for the csv reader, which may ask on after one of them raised."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.count = 0  # the reader's own count leaves out a line that raised

    def __iter__(self) -> _Lines:
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
        raise _LineTooLong(f"line is longer than {LINE_CHARS_MAX} characters")


class CsvRows:
    """The rows of one CSV source in order; `header` is read at once, rows as they are asked for.

    Raises InvalidInput for a source that cannot be read as a table at all; `name` is how messages call it.
    """

    def __init__(self, source: BinaryIO, name: str, delimiter: str = ",") -> None:
        self._name = name
        self._bytes = _CountedBytes(source)
        # utf-8-sig drops the byte order mark that spreadsheets write; surrogates keep the bytes that are no UTF-8.
        text = io.TextIOWrapper(
            io.BufferedReader(self._bytes, 1 << 16), encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        # strict: an open quote at the end is an error of its row and not a cell that holds the rest of the file.
        self._lines = _Lines(text)
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)
        self._text = text
        self.header = self._read_header()

    def __iter__(self) -> Iterator[Row]:
        number = 0
        while True:
            begins = self._lines.count + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except (csv.Error, _LineTooLong) as error:
                number += 1
                ends = self._lines.count
                where = f" (lines {begins} to {ends})" if ends > begins else ""
                yield Row(number, ends, [], f"{error}{where}")
                continue
            if not cells:  # a blank line
                continue
            number += 1
            yield self._checked(number, cells)

    @property
    def bytes_read(self) -> int:
        return self._bytes.count

    def checksum(self) -> str:
        """SHA-256 (hex) of the whole source; what was not asked for is read now."""
        while self._text.buffer.read(1 << 20):
            pass
        return self._bytes.digest.hexdigest()

    def _checked(self, number: int, cells: list[str]) -> Row:
        line = self._lines.count
        if len(cells) != len(self.header):
            reason = f"has {len(cells)} columns, the header has {len(self.header)}"
            return Row(number, line, cells, reason, shown(",".join(cells[:50])))
        spoiled = next((cell for cell in cells if not cell.isascii() and _has_stray_bytes(cell)), None)
        if spoiled is not None:
            return Row(number, line, cells, "is not UTF-8", shown(spoiled))
        return Row(number, line, cells)

    def _read_header(self) -> list[str]:
        try:
            cells = next((row for row in self._reader if row), None)
        except (csv.Error, _LineTooLong) as error:
            raise InvalidInput(f"{self._name}: the header cannot be read: {error}") from None
        if cells is None:
            raise InvalidInput(f"{self._name} is empty; its first line must name the columns")
        if any("\0" in cell or _has_stray_bytes(cell) for cell in cells):
            raise InvalidInput(f"{self._name}: the header is not UTF-8; convert the file first")
        if len(cells) > COLUMNS_MAX:
            raise InvalidInput(f"{self._name} has {len(cells)} columns, the most is {COLUMNS_MAX}")
        header = [cell.strip() or f"column_{place}" for place, cell in enumerate(cells, 1)]
        if twice := sorted(column for column, times in Counter(header).items() if times > 1):
            raise InvalidInput(
                f"{self._name}: the header names {named(twice)} more than once; give each column its own name"
            )
        return header


def _has_stray_bytes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
