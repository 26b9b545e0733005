"""A CSV file is whatever somebody's export made of it; this turns its bytes into rows.

Only what makes every row meaningless is an error of the whole file: no header, a header that names a column twice,
another encoding.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import BinaryIO

from actors.catalog.datasets import shown
from actors.catalog.rows import LineTooLong, Row, TextLines, checked, has_stray_bytes
from actors.catalog.table_header import named_columns
from schemas.errors import InvalidInput


class CsvRows:
    """The rows of one CSV source of `size` bytes; `header` is read at once, rows as they are asked for.

    Raises InvalidInput for a source that cannot be read as a table at all; `name` is how messages call it.
    """

    def __init__(self, source: BinaryIO, name: str, size: int = 0, delimiter: str = ",") -> None:
        self._name, self._size = name, size
        self._lines = TextLines(source)
        # strict: an open quote at the end is an error of its row and not a cell that holds the rest of the file.
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)
        self.header = self._read_header()

    def __iter__(self) -> Iterator[Row]:
        number = 0
        while True:
            begins = self._lines.count + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except (csv.Error, LineTooLong) as error:
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
    def share(self) -> float:
        return min(1.0, self._lines.bytes_read / max(1, self._size))

    def checksum(self) -> str:
        return self._lines.checksum()

    def _checked(self, number: int, cells: list[str]) -> Row:
        line = self._lines.count
        if len(cells) != len(self.header):
            reason = f"has {len(cells)} columns, the header has {len(self.header)}"
            return Row(number, line, cells, reason, shown(",".join(cells[:50])))
        return checked(Row(number, line, cells))

    def _read_header(self) -> list[str]:
        try:
            cells = next((row for row in self._reader if row), None)
        except (csv.Error, LineTooLong) as error:
            raise InvalidInput(f"{self._name}: the header cannot be read: {error}") from None
        if cells is None:
            raise InvalidInput(f"{self._name} is empty; its first line must name the columns")
        if any("\0" in cell or has_stray_bytes(cell) for cell in cells):
            raise InvalidInput(f"{self._name}: the header is not UTF-8; convert the file first")
        return named_columns(cells, self._name, "the header")
