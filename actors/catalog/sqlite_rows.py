"""An SQLite database as a source: a table or one SELECT of a stranger, who gets to read this file and nothing else.

The database is opened read-only and an authorizer lets a statement do no more than select: no ATTACH of another file,
no PRAGMA, no write. Both readings happen in one transaction, so what is typed is what is loaded. What a statement may
cost is bounded by a time limit that SQLite asks for while it works, and by its own limit on the length of a value.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from actors.catalog.datasets import named, shown
from actors.catalog.rows import Cell, Row, checked
from actors.catalog.table_header import named_columns
from schemas.errors import InvalidInput, Overloaded

Parameters = Sequence[Any] | Mapping[str, Any]

VALUE_BYTES_MAX = 16 << 20
LIKE_CHARS_MAX = 200
BUSY_SECONDS = 5.0
_STEPS_PER_LOOK = 20_000  # of SQLite's machine, between two looks at the clock; some milliseconds

_ENCODER = json.JSONEncoder(default=bytes.hex)
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_NO_FUNCTIONS = {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"}


@dataclass(frozen=True, slots=True)
class Selection:
    """What to read: SQL of one SELECT with its parameters, whether its first column is the rowid, and how messages
    call it.
    """

    sql: str
    name: str
    parameters: Parameters = ()
    has_rowid: bool = False


class Database:
    """An open database; make it with `opened`."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection, self._name = connection, name

    def tables(self) -> list[str]:
        """Its tables and views by name."""
        sql = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
        with _told(self._name):
            return sorted(name for (name,) in self._connection.execute(sql))

    def table(self, table: str) -> Selection:
        """A table or view, in the order of its rowids if it has them. Raises InvalidInput if it is not there."""
        if table not in (known := self.tables()):
            raise InvalidInput(f"{self._name} has no table '{shown(table)}'; it has {named(known) or 'none'}")
        quoted = '"' + table.replace('"', '""') + '"'
        own = {column.lower() for column in self._columns(f"SELECT * FROM {quoted}")}
        for word in ("_rowid_", "rowid", "oid"):
            if word not in own and self._has(f"SELECT {word} FROM {quoted}"):
                return Selection(f"SELECT {word}, * FROM {quoted} ORDER BY {word}", f"'{shown(table)}'", has_rowid=True)
        return Selection(f"SELECT * FROM {quoted}", f"'{shown(table)}'")

    def rows(self, selection: Selection, total: int | None = None) -> SqliteRows:
        """Its rows; `total` is how many there are, if that is known. Raises InvalidInput for what is no SELECT."""
        with _told(selection.name):
            cursor = self._connection.execute(selection.sql, selection.parameters)
            if cursor.description is None:
                raise InvalidInput(f"{selection.name} is no SELECT")
        return SqliteRows(cursor, selection, total)

    def _columns(self, sql: str) -> list[str]:
        with _told(self._name):
            return [column[0] for column in self._connection.execute(f"{sql} LIMIT 0").description]

    def _has(self, sql: str) -> bool:
        try:
            self._connection.execute(f"{sql} LIMIT 0")
        except sqlite3.OperationalError:  # no such column: a view, or a table without rowids
            return False
        return True


class SqliteRows:
    """The rows of one statement. A column that is binary or no UTF-8 spoils its row."""

    def __init__(self, cursor: sqlite3.Cursor, selection: Selection, total: int | None) -> None:
        self._cursor, self._selection, self._total = cursor, selection, total
        self._digest = hashlib.sha256()
        self._number = 0
        columns = [column[0] for column in cursor.description][1 if selection.has_rowid else 0 :]
        self.header = named_columns(columns, selection.name, "the statement")

    def __iter__(self) -> Iterator[Row]:
        with _told(self._selection.name):
            for values in self._cursor:
                self._number += 1
                rowid = None
                if self._selection.has_rowid:
                    rowid, *values = values
                self._digest.update(_ENCODER.encode(values).encode() + b"\n")
                yield self._row(values, rowid)

    @property
    def share(self) -> float:
        return min(1.0, self._number / self._total) if self._total else 0.0

    @property
    def count(self) -> int:
        """Rows read."""
        return self._number

    def checksum(self) -> str:
        for _ in self:
            pass
        return self._digest.hexdigest()

    def _row(self, values: Sequence[Any], rowid: int | None) -> Row:
        for place, value in enumerate(values):
            if isinstance(value, bytes):
                reason = "is binary data; leave its column out with a 'query'"
                return Row(self._number, None, [], reason, f"{len(value)} bytes", place, rowid)
        return checked(Row(self._number, None, [_cell(value) for value in values], rowid=rowid))


@contextmanager
def opened(path: Path, name: str, seconds: float) -> Iterator[Database]:
    """The database of a file for reading, all of it as it is now, for at most so many seconds.

    Raises InvalidInput for a file that is none, Overloaded if a writer keeps it locked.
    """
    with _told(name):
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
    try:
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LIKE_CHARS_MAX)
        ends = time.monotonic() + seconds
        connection.set_progress_handler(lambda: time.monotonic() > ends, _STEPS_PER_LOOK)
        with _told(name):
            for before in ("PRAGMA trusted_schema = OFF", "BEGIN"):
                connection.execute(before)
            connection.execute("SELECT count(*) FROM sqlite_schema")  # fails here if the file is no database
        connection.set_authorizer(_may)
        yield Database(connection, name)
    finally:
        connection.close()


def _may(action: int, _first: str | None, function: str | None, _database: str | None, _inner: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and (function or "").lower() in _NO_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


def _cell(value: Any) -> Cell:
    return value if value is None or isinstance(value, str) else repr(value)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """SQLite's errors in the product's words."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        word = getattr(error, "sqlite_errorname", "")
        if word.startswith("SQLITE_INTERRUPT"):
            text = "took longer to read than it may; ask for less, or for more time with 'time_limit_seconds'"
            raise InvalidInput(f"{name} {text}") from None
        if word.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise Overloaded(f"{name} is locked by a writer") from None
        if word.startswith("SQLITE_AUTH") or "not authorized" in str(error) or "prohibited" in str(error):
            raise InvalidInput(f"{name} may only select from its own tables: {shown(str(error), 200)}") from None
        raise InvalidInput(f"{name} cannot be read: {shown(str(error), 200)}") from None
