"""The ingestion agent: somebody's file in, typed records and an honest account of the rest out.

A load that stops at the first bad row is useless, and one that drops bad rows in silence is worse. So every row ends
as a record of the data set or as a counted error with its row, field, value and reason. The source is read twice, a row
at a time: types that are not given can only be known when every value was seen. If it changed in between, the task
fails and is retried. `rename` comes first: `types` and `key_fields` use the new names. The handler runs in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from actors.api import Actor, Context
from actors.catalog.datasets import DatasetWriter, RecordTooLong, named, shown
from actors.catalog.ingest_form import CSV, IngestInput, IngestResult, Reject, TableResult, check
from actors.catalog.rows import Row, Rows
from actors.catalog.sources import Source, sources_of, type_of
from actors.catalog.typed_columns import Columns, Guesses
from schemas.errors import InvalidInput

REJECTS_SHOWN = 20
_ROWS_PER_REPORT = 5_000


class _Progress:
    """Says now and then how much of all sources, which are read twice, is behind us."""

    def __init__(self, ctx: Context, sources: list[Source]) -> None:
        self._ctx = ctx
        self._total = max(1, 2 * sum(source.size for source in sources))
        self._done = 0

    def rows(self, rows: Rows, source: Source, request: IngestInput) -> Iterator[Row]:
        """The rows that were asked for."""
        last = None if request.limit is None else request.cursor + request.limit
        for row in rows:
            if row.number > request.cursor:
                yield row
            if row.number % _ROWS_PER_REPORT == 0:
                self._ctx.report_now((self._done + rows.share * source.size) / self._total, f"row {row.number}")
            if row.number == last:
                return

    def finished(self, source: Source) -> None:
        self._done += source.size


def ingest(request: IngestInput, ctx: Context) -> IngestResult:
    """Turn a source into a data set. Raises InvalidInput for what the caller must change."""
    kind = type_of(request)
    check(request, kind)
    tables: list[TableResult] = []
    rejects: list[Reject] = []
    notes = [f"A {kind} source needs no credentials; they were not used"] if request.credentials else []
    with ExitStack() as held:
        sources = sources_of(request, ctx, held)
        progress = _Progress(ctx, sources)
        dataset = held.enter_context(DatasetWriter(ctx.data_dir, ctx.task_id))
        for source in sources:
            columns, header, checksum = _columns(source, request, progress)
            loading = _Loading(source, columns, dataset, rejects, tag=len(sources) > 1)
            table = loading.run(header, request, progress)
            if table.checksum != checksum:
                raise RuntimeError(f"{source.name} changed while it was read")
            tables.append(table)
            notes += _notes(table, columns, kind)
        data_ref = dataset.commit()
    rejected = sum(table.rows_rejected for table in tables)
    if rejected > len(rejects):
        notes.append(f"{rejected} rows were rejected; the first {len(rejects)} are shown")
    return IngestResult(source=kind, tables=tables, rejects_sample=rejects, data_ref=data_ref, notes=notes)


def agent() -> Actor:
    """The ingestion agent of the catalogue."""
    return Actor(
        "data_ingestion_agent", ingest, agent_type="data_ingestion", capabilities=["ingest_data", "data_ingestion"]
    )


def _columns(source: Source, request: IngestInput, progress: _Progress) -> tuple[Columns, list[str], str]:
    """The first reading: names and types of the columns, the header of the source, and its checksum."""
    nulls = frozenset(request.null_values)
    with source.open() as rows:
        if rows.header:
            _renamed(rows.header, request)  # a wrong name is found before the work
        declared = {name for name in request.types if name not in request.rename.values()}
        declared |= {name for name, new in request.rename.items() if new in request.types}
        guesses = Guesses(rows.header, declared, nulls)
        for row in progress.rows(rows, source, request):
            if not row.reason:
                guesses.see(row.cells)
        checksum = rows.checksum()
        header = list(rows.header)
    progress.finished(source)
    names = _renamed(header, request) if header else []
    kinds = [request.types[name] if name in request.types else guesses.kind(place) for place, name in enumerate(names)]
    guessed = [name not in request.types for name in names]
    return Columns(names, kinds, guessed, frozenset(request.key_fields), nulls), header, checksum


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


class _Loading:
    """The second reading of one source: records into the data set (with their table, if `tag`), errors into `rejects`
    while there is room.
    """

    def __init__(
        self, source: Source, columns: Columns, dataset: DatasetWriter, rejects: list[Reject], *, tag: bool
    ) -> None:
        self._source, self._columns, self._dataset, self._rejects = source, columns, dataset, rejects
        self._more = {"_table": source.name} if tag else {}

    def run(self, header: list[str], request: IngestInput, progress: _Progress) -> TableResult:
        read = mapped = 0
        cursor = request.cursor
        with self._source.open(header) as rows:
            for row in progress.rows(rows, self._source, request):
                read, cursor = read + 1, row.number
                mapped += self._load(row)
            checksum = rows.checksum()
        progress.finished(self._source)
        return TableResult(
            name=self._source.name,
            rows_read=read,
            rows_mapped=mapped,
            rows_rejected=read - mapped,
            checksum=checksum,
            cursor=cursor,
        )

    def _load(self, row: Row) -> bool:
        """Whether the row became a record."""
        wrong: tuple[str | None, str | None, str]
        if row.reason:
            wrong = (None if row.place is None else self._columns.names[row.place], row.value, row.reason)
        else:
            outcome = self._columns.record(row.cells)
            try:
                if isinstance(outcome, dict):
                    self._dataset.add(self._more | outcome)
                    return True
                wrong = outcome
            except RecordTooLong as error:
                wrong = (None, None, str(error))
        if len(self._rejects) < REJECTS_SHOWN:
            name, value, reason = wrong
            self._rejects.append(
                Reject(
                    table=self._source.name,
                    row=row.number,
                    line=row.line,
                    rowid=row.rowid,
                    field=name,
                    value=value,
                    reason=reason,
                )
            )
        return False


def _notes(table: TableResult, columns: Columns, kind: str) -> Iterator[str]:
    yield from columns.doubts()
    name = f"'{shown(table.name)}'"
    if not table.rows_read:
        after = f" after row {table.cursor}" if table.cursor else " after its header" if kind == CSV else ""
        yield f"{name} has no rows{after}"
    if kind == CSV and len(columns.names) == 1 and any(mark in columns.names[0] for mark in ";\t|"):
        yield f"{name} has one column, '{shown(columns.names[0])}'; should 'delimiter' be another one?"
