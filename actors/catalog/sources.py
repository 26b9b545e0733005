"""Which files a request means, and that they lie in the sources folder: what a task names is a stranger's text.

A source is opened twice, once to learn the types of its columns and once to load it. Files are opened anew each time; a
database stays open, so that both readings see the same moment of it.
"""

from __future__ import annotations

import io
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from actors.api import Context
from actors.catalog.csv_rows import CsvRows
from actors.catalog.datasets import shown
from actors.catalog.ingest_form import CSV, JSON, SQLITE, IngestInput
from actors.catalog.json_rows import JsonRows
from actors.catalog.rows import Rows
from actors.catalog.sqlite_rows import Database, Selection, SqliteRows, opened
from schemas.errors import InvalidInput

ENDINGS = {CSV: (".csv",), JSON: (".jsonl", ".ndjson", ".json"), SQLITE: (".sqlite", ".sqlite3", ".db")}

MakeRows = Callable[[BinaryIO, str, int, Sequence[str]], Rows]


class Source(Protocol):
    """One table; `size` is its weight among the others in the progress."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @contextmanager
    def open(self, header: Sequence[str] = ()) -> Iterator[Rows]:
        """Its rows from the first on; `header` as an earlier reading found it."""


class TextSource:
    """A table in a file, or in the request itself."""

    def __init__(self, name: str, content: Path | bytes, make: MakeRows) -> None:
        self.name = name
        self._content, self._make = content, make

    @property
    def size(self) -> int:
        return self._content.stat().st_size if isinstance(self._content, Path) else len(self._content)

    @contextmanager
    def open(self, header: Sequence[str] = ()) -> Iterator[Rows]:
        content = self._content
        with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
            yield self._make(file, f"'{shown(self.name)}'", self.size, header)


class SqliteSource:
    """A table or a statement of a database."""

    def __init__(self, name: str, database: Database, selection: Selection) -> None:
        self.name, self.size = name, 1
        self._database, self._selection = database, selection
        self._read: SqliteRows | None = None

    @contextmanager
    def open(self, header: Sequence[str] = ()) -> Iterator[Rows]:
        self._read = self._database.rows(self._selection, self._read.count if self._read else None)
        yield self._read


def type_of(request: IngestInput) -> str:
    """The kind of source: as given, else by the field that holds the text, else by the file's name."""
    if request.source_type is not None:
        return request.source_type
    if request.jsonl is not None:
        return JSON
    ending = Path(request.source_url or "").suffix.lower()
    return next((kind for kind, endings in ENDINGS.items() if ending in endings), CSV)


def sources_of(request: IngestInput, ctx: Context, held: ExitStack) -> list[Source]:
    """The tables of a request; what must be closed in the end goes into `held`. Raises InvalidInput."""
    kind = type_of(request)
    if kind == SQLITE:
        return _tables_of_database(request, ctx, held)
    make: MakeRows = JsonRows if kind == JSON else _csv_with(request.delimiter)
    text = request.jsonl if kind == JSON else request.csv
    if text is None:
        return _files(request, ctx.sources_root, kind, make)
    if len(request.tables) > 1:
        raise InvalidInput("The text of a request is one table; name at most one in 'tables'")
    name = request.tables[0] if request.tables else "inline"
    return [TextSource(name, text.encode("utf-8", "surrogatepass"), make)]


def _csv_with(delimiter: str) -> MakeRows:
    return lambda file, name, size, _header: CsvRows(file, name, size, delimiter)


def _tables_of_database(request: IngestInput, ctx: Context, held: ExitStack) -> list[Source]:
    given = request.source_url or ""
    path = _below(ctx.sources_root, given)
    if not path.is_file():
        raise _absent(given, ctx.sources_root)
    left = ctx.deadline_at / 1e6 - time.time()
    seconds = left if request.time_limit_seconds is None else min(left, request.time_limit_seconds)
    database = held.enter_context(opened(path, f"'{shown(path.name)}'", seconds))
    if request.query is not None:
        if len(request.tables) > 1:
            raise InvalidInput("A 'query' makes one table; name at most one in 'tables'")
        name = request.tables[0] if request.tables else "query"
        return [SqliteSource(name, database, Selection(request.query, "The query", request.parameters))]
    names = request.tables or database.tables()
    if not names:
        raise InvalidInput(f"'{shown(given)}' has no table")
    if request.cursor and len(names) > 1:
        raise InvalidInput("'cursor' belongs to one table; name it in 'tables'")
    return [SqliteSource(name, database, database.table(name)) for name in names]


def _files(request: IngestInput, sources_root: Path, kind: str, make: MakeRows) -> list[Source]:
    given = request.source_url or ""
    path = _below(sources_root, given)
    if path.is_file() and request.tables not in ([], [path.stem]):
        raise InvalidInput(f"'{shown(given)}' holds the table '{path.stem}' and no other")
    if path.is_file():
        return [TextSource(path.stem, path, make)]
    if not path.is_dir():
        raise _absent(given, sources_root)
    ending = next((each for each in ENDINGS[kind] if any(path.glob(f"*{each}"))), ENDINGS[kind][0])
    names = request.tables or sorted(file.stem for file in path.glob(f"*{ending}"))
    if not names:
        raise InvalidInput(f"The folder '{shown(given)}' has no {ending} file")
    if request.cursor and len(names) > 1:
        raise InvalidInput("'cursor' belongs to one table; name it in 'tables'")
    return [TextSource(name, _table_file(sources_root, given, name, ending), make) for name in names]


def _table_file(sources_root: Path, folder: str, table: str, ending: str) -> Path:
    path = _below(sources_root, f"{folder}/{table}{ending}")
    if not path.is_file():
        raise InvalidInput(f"Table '{shown(table)}' has no file '{shown(table)}{ending}' in the folder")
    return path


def _absent(given: str, sources_root: Path) -> InvalidInput:
    root = sources_root.resolve()
    text = f"'{shown(given)}' is not a file in the sources folder {root}; put it there, or change the setting 'sources_root'"
    return InvalidInput(text)


def _below(sources_root: Path, given: str) -> Path:
    """The path that is meant, links followed. Raises InvalidInput if it is not in the sources folder."""
    if "://" in given:
        raise InvalidInput(f"'{shown(given)}': a source is a path below the sources folder", code="unsupported")
    root = sources_root.resolve()
    try:
        path = (root / given).resolve()
        inside = path.is_relative_to(root)
        special = path.exists() and not (stat.S_ISREG(path.stat().st_mode) or path.is_dir())
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a NUL, a name too long
        raise InvalidInput(f"'{shown(given)}' cannot be read: {shown(str(error))}") from None
    if not inside:
        raise InvalidInput(f"'{shown(given)}' lies outside of the sources folder {root} (setting 'sources_root')")
    if special:
        raise InvalidInput(f"'{shown(given)}' is not a file or folder")
    return path
