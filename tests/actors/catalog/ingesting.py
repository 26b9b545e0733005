"""Ingest something and look at what became of it."""

from __future__ import annotations

import json
from typing import Any

from actors.api import Context
from actors.catalog.ingest_data import ingest
from actors.catalog.ingest_form import IngestInput, IngestResult

Records = list[dict[str, Any]]


def finish(ctx: Context, **options: Any) -> tuple[IngestResult, Records]:
    """The result and the records, which must be as many as the result says."""
    result = ingest(IngestInput.model_validate(options), ctx)
    lines = (ctx.data_dir / result.data_ref.path).read_bytes().splitlines()
    assert result.data_ref.rows == len(lines) == sum(table.rows_mapped for table in result.tables)
    return result, [json.loads(line) for line in lines]


def of_file(ctx: Context, name: str, text: str | bytes, **options: Any) -> tuple[IngestResult, Records]:
    """The same for a file of that name and content."""
    (ctx.sources_root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return finish(ctx, source_url=name, **options)


def counts(result: IngestResult) -> tuple[int, int, int]:
    """Rows read, mapped and rejected of the first table."""
    table = result.tables[0]
    return table.rows_read, table.rows_mapped, table.rows_rejected


def rejects(result: IngestResult) -> list[tuple[int, int | None, str | None, str]]:
    """Row, line (or rowid), field and reason of each reject that is shown."""
    return [
        (each.row, each.rowid if each.line is None else each.line, each.field, each.reason)
        for each in result.rejects_sample
    ]
