"""The ingestion agent: somebody's file in, typed records and an honest account of the rest out.

A load that stops at the first bad row is useless, and one that drops bad rows in silence is worse. So every row ends
as a record of the data set or as a counted error with its row, field, value and reason. The file is read twice, a row
at a time: types that are not given can only be known when every cell was seen. If it changed in between, the task
fails and is retried. `rename` comes first: `types` and `key_fields` use the new names. The handler runs in a thread.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, model_validator

from actors.api import Actor, Context
from actors.catalog.csv_rows import CsvRows, Row
from actors.catalog.datasets import DataRef, DatasetWriter, named, shown
from actors.catalog.typed_columns import Columns, Guess, Kind
from schemas.errors import InvalidInput

SUPPORTED = ("csv",)
OPERATIONS = ("Ingest", "RunIngestion")
REJECTS_SHOWN = 20
_ROWS_PER_REPORT = 5_000


class IngestInput(BaseModel):
    """What to read: `source_url` (a path below the sources folder: a file, or a folder of `<table>.csv`) or the text
    itself in `csv`. Settings may also come inside `config`, and `source_type` be called `source`.
    """

    model_config = ConfigDict(extra="forbid")

    operation: str = OPERATIONS[0]
    source_type: str = "csv"
    source_url: str | None = Field(default=None, min_length=1, max_length=4096)
    csv: str | None = None
    credentials: dict[str, Any] | None = None
    tables: list[str] = Field(default=[], max_length=100)
    types: dict[str, Kind] = {}
    rename: dict[str, str] = {}
    key_fields: list[str] = []
    null_values: list[str] = [""]
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    cursor: int = Field(default=0, ge=0, description="rows to skip, as a result's cursor says")
    limit: int | None = Field(default=None, ge=1, description="most rows to read of each table")

    @model_validator(mode="before")
    @classmethod
    def _one_level(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        flat = {key: value for key, value in given.items() if key != "config"}
        if "source" in flat:
            flat.setdefault("source_type", flat.pop("source"))
        config = given.get("config")
        return flat | config if isinstance(config, dict) else flat if config is None else given


class Reject(BaseModel):
    """A row that became no record; `row` counts data rows from 1, `line` is the line of the file where it ends."""

    table: str
    row: int
    line: int
    field: str | None
    value: str | None
    reason: str


class TableResult(BaseModel):
    """What became of one table; `checksum` is the SHA-256 (hex) of the source, `cursor` the last row that was read."""

    name: str
    rows_read: int
    rows_mapped: int
    rows_rejected: int
    checksum: str
    cursor: int


class IngestResult(BaseModel):
    """The account of an ingestion; the records themselves are in the file of `data_ref`."""

    source: str
    tables: list[TableResult]
    entities_added: int = 0
    rejects_sample: list[Reject]
    data_ref: DataRef
    degraded: bool = False
    notes: list[str]


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    content: Path | bytes

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        with self.content.open("rb") if isinstance(self.content, Path) else io.BytesIO(self.content) as file:
            yield file

    @property
    def size(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)


class _Progress:
    """Says now and then how many of all bytes, which are read twice, are behind us."""

    def __init__(self, ctx: Context, sources: list[_Source]) -> None:
        self._ctx = ctx
        self._total = max(1, 2 * sum(source.size for source in sources))
        self._done = 0

    def rows(self, rows: CsvRows, request: IngestInput) -> Iterator[Row]:
        """The rows that were asked for."""
        last = None if request.limit is None else request.cursor + request.limit
        for row in rows:
            if row.number > request.cursor:
                yield row
            if row.number % _ROWS_PER_REPORT == 0:
                self._ctx.report_now((self._done + rows.bytes_read) / self._total, f"row {row.number}")
            if row.number == last:
                return

    def finished(self, source: _Source) -> None:
        self._done += source.size


def ingest(request: IngestInput, ctx: Context) -> IngestResult:
    """Turn a source into a data set. Raises InvalidInput for what the caller must change."""
    _check(request)
    sources = _sources(request, ctx.sources_root)
    progress = _Progress(ctx, sources)
    tables: list[TableResult] = []
    rejects: list[Reject] = []
    notes: list[str] = []
    if request.credentials:
        notes.append("A csv source needs no credentials; they were not used")
    with DatasetWriter(ctx.data_dir, ctx.task_id) as dataset:
        for source in sources:
            columns, checksum = _columns(source, request, progress)
            table = _load(source, columns, request, progress, dataset, rejects, tag=len(sources) > 1)
            if table.checksum != checksum:
                raise RuntimeError(f"{source.name} changed while it was read")
            tables.append(table)
            notes += _notes(table, columns)
        data_ref = dataset.commit()
    rejected = sum(table.rows_rejected for table in tables)
    if rejected > len(rejects):
        notes.append(f"{rejected} rows were rejected; the first {len(rejects)} are shown")
    return IngestResult(
        source=request.source_type, tables=tables, rejects_sample=rejects, data_ref=data_ref, notes=notes
    )


def agent() -> Actor:
    """The ingestion agent of the catalogue."""
    return Actor(
        "data_ingestion_agent", ingest, agent_type="data_ingestion", capabilities=["ingest_data", "data_ingestion"]
    )


def _check(request: IngestInput) -> None:
    if request.operation not in OPERATIONS:
        text = f"Operation '{shown(request.operation)}' is not one of {', '.join(OPERATIONS)}"
        raise InvalidInput(text, code="unsupported")
    if request.source_type not in SUPPORTED:
        text = f"Source type '{shown(request.source_type)}' is not supported; supported: {', '.join(SUPPORTED)}"
        raise InvalidInput(text, code="unsupported")
    if (request.source_url is None) == (request.csv is None):
        raise InvalidInput("Give either 'source_url' (a path below the sources folder) or 'csv' (the text itself)")
    if request.delimiter in '"\r\n':
        raise InvalidInput("'delimiter' cannot be a quote or a line end")


def _sources(request: IngestInput, sources_root: Path) -> list[_Source]:
    if request.csv is not None:
        name = request.tables[0] if request.tables else "inline"
        if len(request.tables) > 1:
            raise InvalidInput("The text in 'csv' is one table; name at most one in 'tables'")
        return [_Source(name, request.csv.encode("utf-8", "surrogatepass"))]
    assert request.source_url is not None  # _check
    path = _below(sources_root, request.source_url)
    if path.is_file() and request.tables not in ([], [path.stem]):
        raise InvalidInput(f"'{shown(request.source_url)}' holds the table '{path.stem}' and no other")
    if path.is_file():
        return [_Source(path.stem, path)]
    if not path.is_dir():
        text = f"'{shown(request.source_url)}' is not a file in the sources folder; put it there, or see 'sources_root'"
        raise InvalidInput(text)
    names = request.tables or sorted(file.stem for file in path.glob("*.csv"))
    if not names:
        raise InvalidInput(f"The folder '{shown(request.source_url)}' has no .csv file")
    if request.cursor and len(names) > 1:
        raise InvalidInput("'cursor' belongs to one table; name it in 'tables'")
    files = [_Source(name, _below(sources_root, f"{request.source_url}/{name}.csv")) for name in names]
    for file in files:
        if not (isinstance(file.content, Path) and file.content.is_file()):
            raise InvalidInput(f"Table '{shown(file.name)}' has no file '{shown(file.name)}.csv' in the folder")
    return files


def _below(sources_root: Path, given: str) -> Path:
    """The path that is meant, links followed. Raises InvalidInput if it is not in the sources folder."""
    if "://" in given:
        raise InvalidInput(f"'{shown(given)}': a csv source is a path below the sources folder", code="unsupported")
    root = sources_root.resolve()
    try:
        path = (root / given).resolve()
        inside = path.is_relative_to(root)
        special = path.exists() and not (stat.S_ISREG(path.stat().st_mode) or path.is_dir())
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a NUL, a name too long
        raise InvalidInput(f"'{shown(given)}' cannot be read: {shown(str(error))}") from None
    if not inside:
        raise InvalidInput(f"'{shown(given)}' lies outside of the sources folder")
    if special:
        raise InvalidInput(f"'{shown(given)}' is not a file or folder")
    return path


def _columns(source: _Source, request: IngestInput, progress: _Progress) -> tuple[Columns, str]:
    """The first pass: names and types of the columns, and the checksum of the source."""
    with source.open() as file:
        rows = CsvRows(file, f"'{shown(source.name)}'", request.delimiter)
        names = _renamed(rows.header, request)
        guesses = {place: Guess() for place, name in enumerate(names) if name not in request.types}
        nulls = frozenset(request.null_values)
        for row in progress.rows(rows, request):
            if not row.reason:
                for place, guess in guesses.items():
                    if row.cells[place] not in nulls:
                        guess.see(row.cells[place])
        checksum = rows.checksum()
    progress.finished(source)
    kinds = [guesses[place].kind if place in guesses else request.types[name] for place, name in enumerate(names)]
    guessed = [place in guesses for place in range(len(names))]
    return Columns(names, kinds, guessed, frozenset(request.key_fields), nulls), checksum


def _renamed(header: list[str], request: IngestInput) -> list[str]:
    names = [request.rename.get(name, name) for name in header]
    wrong = [("rename", name, header) for name in request.rename if name not in header]
    wrong += [("types", name, names) for name in request.types if name not in names]
    wrong += [("key_fields", name, names) for name in request.key_fields if name not in names]
    for option, name, known in wrong:
        raise InvalidInput(f"'{option}' names the column '{shown(name)}'; the columns are {named(known)}")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InvalidInput(f"After 'rename' the columns {named(twice)} occur more than once")
    return names


def _load(
    source: _Source,
    columns: Columns,
    request: IngestInput,
    progress: _Progress,
    dataset: DatasetWriter,
    rejects: list[Reject],
    *,
    tag: bool,
) -> TableResult:
    """The second pass: records into the data set (with their table, if `tag`), errors into `rejects` while there is
    room.
    """
    read = mapped = 0
    cursor = request.cursor
    with source.open() as file:
        rows = CsvRows(file, f"'{shown(source.name)}'", request.delimiter)
        for row in progress.rows(rows, request):
            read, cursor = read + 1, row.number
            outcome = (None, row.value, row.reason) if row.reason else columns.record(row)
            if isinstance(outcome, dict):
                mapped += 1
                dataset.add({"_table": source.name} | outcome if tag else outcome)
            elif len(rejects) < REJECTS_SHOWN:
                name, value, reason = outcome
                rejects.append(
                    Reject(table=source.name, row=row.number, line=row.line, field=name, value=value, reason=reason)
                )
        checksum = rows.checksum()
    progress.finished(source)
    return TableResult(
        name=source.name,
        rows_read=read,
        rows_mapped=mapped,
        rows_rejected=read - mapped,
        checksum=checksum,
        cursor=cursor,
    )


def _notes(table: TableResult, columns: Columns) -> Iterator[str]:
    yield from columns.doubts()
    name = f"'{shown(table.name)}'"
    if not table.rows_read:
        yield f"{name} has no rows after " + (f"row {table.cursor}" if table.cursor else "its header")
    if len(columns.names) == 1 and any(mark in columns.names[0] for mark in ";\t|"):
        yield f"{name} has one column, '{shown(columns.names[0])}'; should 'delimiter' be another one?"
