"""What the ingestion agent is asked and what it answers: its form, apart from its work."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from actors.catalog.datasets import DataRef, shown
from actors.catalog.typed_columns import Kind
from schemas.errors import InvalidInput

CSV, JSON, SQLITE = "csv", "json", "sqlite"
SUPPORTED = (CSV, JSON, SQLITE)
OPERATIONS = ("Ingest", "RunIngestion")

Parameter = StrictBool | StrictInt | StrictFloat | StrictStr | None


class IngestInput(BaseModel):
    """What to read: `source_url`, a path below the sources folder (a file, a folder of one file per table, or an SQLite
    database), or the text itself in `csv` or `jsonl`.

    source_type: csv, json (JSON lines) or sqlite; unset: by the file's ending. tables: of a folder or a database; none:
    all. query, parameters: one SELECT with its bound values instead of tables. Settings may also come inside `config`,
    and `source_type` be called `source`.
    """

    model_config = ConfigDict(extra="forbid")

    operation: str = OPERATIONS[0]
    source_type: str | None = None
    source_url: str | None = Field(default=None, min_length=1, max_length=4096)
    csv: str | None = None
    jsonl: str | None = None
    credentials: dict[str, Any] | None = None
    tables: list[str] = Field(default=[], max_length=100)
    query: str | None = Field(default=None, min_length=1, max_length=100_000)
    parameters: list[Parameter] | dict[str, Parameter] = []
    time_limit_seconds: float | None = Field(
        default=None, gt=0, description="longest reading of a database; unset, and at most: the attempt's own time"
    )
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
    """A row that became no record; `row` counts data rows from 1, `line` is the line of the file where it ends, `rowid`
    the row of an SQLite table.
    """

    table: str
    row: int
    line: int | None
    rowid: int | None = None
    field: str | None
    value: str | None
    reason: str


class TableResult(BaseModel):
    """What became of one table; `checksum` is the SHA-256 (hex) of the file, of a database of all rows of the table;
    `cursor` the last row that was read.
    """

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


def check(request: IngestInput, kind: str) -> None:
    """Raises InvalidInput for fields that do not fit together; `kind` is the kind of source."""
    if request.operation not in OPERATIONS:
        text = f"Operation '{shown(request.operation)}' is not one of {', '.join(OPERATIONS)}"
        raise InvalidInput(text, code="unsupported")
    if kind not in SUPPORTED:
        text = f"Source type '{shown(kind)}' is not supported; supported: {', '.join(SUPPORTED)}"
        raise InvalidInput(text, code="unsupported")
    texts = {CSV: request.csv, JSON: request.jsonl}
    for other, text_given in texts.items():
        if text_given is not None and other != kind:
            raise InvalidInput(f"The text is given as {other}, and the source is said to be {kind}")
    if kind == SQLITE and request.source_url is None:
        raise InvalidInput("Give 'source_url', the path of the database below the sources folder")
    if kind != SQLITE and (request.source_url is None) == (texts[kind] is None):
        field = "csv" if kind == CSV else "jsonl"
        raise InvalidInput(f"Give either 'source_url' (a path below the sources folder) or '{field}' (the text itself)")
    if kind != SQLITE and (request.query is not None or request.parameters):
        raise InvalidInput("'query' and 'parameters' belong to an sqlite source")
    if request.parameters and request.query is None:
        raise InvalidInput("'parameters' belong to a 'query'")
    if request.delimiter in '"\r\n':
        raise InvalidInput("'delimiter' cannot be a quote or a line end")
