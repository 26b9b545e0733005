"""Data that is too large for a task's result stays on disk, and the result says where: the `data_ref`.

One agent writes a data set, others read it by its reference, perhaps days later and perhaps after somebody touched
the file. So a reference carries the SHA-256 of what was written and the reader compares; a data set appears under its
name whole or not at all; and a second run of the same task puts the same bytes in the same place. The form is JSON
lines, which any tool can read a line at a time. References are paths below `<data_dir>/datasets` and nothing else:
what a task names is a stranger's text.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import InvalidInput
from schemas.robust import LARGEST

FOLDER = "datasets"
LINE_BYTES_MAX = 1 << 20
POINTS_MAX = 1_000_000
"""Points read from one data set: 16 bytes each, so at most 16 MB."""

_TASK_ID = re.compile(r"[A-Za-z0-9._~-]{1,255}")
_NAME_CHARS_MAX = 200  # file systems allow 255 bytes for a name, and a temporary one is longer than the task id
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(
    r"[0-9]{4}([-/])[0-9]{2}\1[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?)?"
    r" ?(Z|[+-][0-9]{2}:?[0-9]{2})?"
)


class DataRef(BaseModel):
    """Where a data set is: `path` below data_dir, number of `rows`, `sha256` (hex) of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(min_length=1, max_length=1024)
    format: Literal["jsonl"] = "jsonl"
    rows: int | None = Field(default=None, ge=0)
    sha256: str | None = Field(default=None, pattern="^[0-9a-fA-F]{64}$")


def micros(instant: str | int) -> int:
    """Microseconds since 1970 of an ISO 8601 text (year first, `-` or `/`; without an offset it is UTC) or of
    themselves.

    Raises ValueError for anything else and outside of the years 1 to 9999.
    """
    if isinstance(instant, int):
        iso(instant)
        return instant
    if not _TIME.fullmatch(instant):
        raise ValueError(f"'{shown(instant)}' is not an ISO 8601 time")
    try:
        moment = datetime.fromisoformat(instant.replace("/", "-").replace(" Z", "Z"))
    except ValueError as error:
        raise ValueError(f"'{shown(instant)}' is not an ISO 8601 time: {error}") from None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def iso(instant_us: int) -> str:
    """The instant as ISO 8601 text in UTC, ending in Z. Raises ValueError outside of the years 1 to 9999."""
    try:
        moment = _EPOCH + timedelta(microseconds=instant_us)
    except OverflowError:
        raise ValueError(f"{instant_us} microseconds lie outside of the years 1 to 9999") from None
    return moment.replace(tzinfo=None).isoformat() + "Z"


def shown(value: object, limit: int = 80) -> str:
    """A value as short text for a message, with bytes that are no UTF-8 written as escapes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text[: limit + 1]
    try:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a pair of surrogates, as JSON can write it
        text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else text[:limit] + "…"


class RecordTooLong(ValueError):
    """A record is over the limit that readers of a data set have."""


class DatasetWriter:
    """Writes the data set of one task: `add` records, then `commit`; a `with` block that ends before it leaves
    nothing.

    The bytes depend on the records only. A run that starts takes the drafts of earlier runs of its task away: those
    that were killed leave no rubbish, and one that is still alive, whose report would come too late anyway, cannot
    commit.
    """

    def __init__(self, data_dir: Path, task_id: str) -> None:
        """Raises InvalidInput for a task id that cannot be part of a file name."""
        if not _TASK_ID.fullmatch(task_id):
            raise InvalidInput(f"Task id '{shown(task_id)}' cannot name a data set")
        drafts, stem = data_dir / FOLDER / ".drafts", _file_stem(task_id)
        drafts.mkdir(parents=True, exist_ok=True)
        for earlier in drafts.glob(f"{stem}.{'?' * 8}"):  # a fixed length, so that task `a` leaves those of `a.b` alone
            earlier.unlink(missing_ok=True)
        self._final = drafts.parent / f"{stem}.jsonl"
        self._draft = drafts / f"{stem}.{secrets.token_hex(4)}"
        self._file = self._draft.open("xb")
        self._digest = hashlib.sha256()
        self._rows = 0

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._draft.unlink(missing_ok=True)

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one record. Raises RecordTooLong, and then it is not in the data set."""
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        if len(line) > LINE_BYTES_MAX:
            raise RecordTooLong(f"is longer than {LINE_BYTES_MAX} bytes as a record")
        self._digest.update(line)
        self._file.write(line)
        self._rows += 1

    def commit(self) -> DataRef:
        """Put the data set in its place, durably. Raises RuntimeError when a later run of the task has started."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        try:
            self._draft.replace(self._final)
        except FileNotFoundError:
            raise RuntimeError(f"A later run of this task writes '{self._final.name}'") from None
        folder = os.open(self._final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        path = f"{FOLDER}/{self._final.name}"
        return DataRef(path=path, rows=self._rows, sha256=self._digest.hexdigest())


@dataclass(slots=True)
class Column:
    """The numbers of one field: `rows` says from which row (from 0) each came, `times` (microseconds) is empty when
    no time field was asked for, `missing` counts the rows without a value.
    """

    values: array[float] = field(default_factory=lambda: array("d"))
    rows: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    missing: int = 0


def read_column(data_dir: Path, ref: DataRef, value_field: str, time_field: str | None = None) -> Column:
    """The numbers of `value_field`, in the order of the file.

    Raises InvalidInput when the file is not there or not the one that `ref` describes, when no row has the field, and
    for values that are no numbers.
    """
    path = locate(data_dir, ref)
    column = Column()
    known: list[str] = []
    for row, record in _records(path, ref):
        if not known:
            known = list(record)
        value = record.get(value_field)
        if value is None:
            column.missing += 1
            continue
        if len(column.values) == POINTS_MAX:
            raise InvalidInput(f"Data set '{ref.path}' has more than {POINTS_MAX} points; ingest it with a 'limit'")
        column.values.append(_number(value, value_field, row))
        column.rows.append(row)
        if time_field is not None:
            column.times.append(_instant(record.get(time_field), time_field, row, known))
    if known and not column.values:
        raise InvalidInput(
            f"No row of '{ref.path}' has the field '{shown(value_field)}'; its fields are {named(known)}"
        )
    return column


def read_records(data_dir: Path, ref: DataRef) -> Iterator[dict[str, Any]]:
    """The rows of a data set in order; raises InvalidInput like `read_column`, at the end if it is not the one meant."""
    for _, record in _records(locate(data_dir, ref), ref):
        yield record


def locate(data_dir: Path, ref: DataRef) -> Path:
    """The file that a reference means. Raises InvalidInput when it lies outside of the data sets or does not exist."""
    root = (data_dir / FOLDER).resolve()
    try:
        path = (data_dir / ref.path).resolve()
        inside, present = path.is_relative_to(root), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a NUL, a name too long
        raise InvalidInput(f"data_ref path '{shown(ref.path)}' cannot be read: {shown(str(error))}") from None
    if not inside:
        raise InvalidInput(f"data_ref path '{shown(ref.path)}' lies outside of '{FOLDER}'")
    if not present:
        raise InvalidInput(f"Data set '{shown(ref.path)}' does not exist here; ingest it first")
    return path


def named(names: list[str], limit: int = 12) -> str:
    """A list of names as short text."""
    text = ", ".join(f"'{shown(name, 40)}'" for name in names[:limit])
    return text + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _file_stem(task_id: str) -> str:
    if len(task_id) <= _NAME_CHARS_MAX:
        return task_id
    return f"{task_id[: _NAME_CHARS_MAX - 33]}~{hashlib.sha256(task_id.encode()).hexdigest()[:32]}"


def _records(path: Path, ref: DataRef) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file with their numbers from 0; what the reference says of the whole is compared at the end."""
    digest, rows = hashlib.sha256(), 0
    with path.open("rb") as file:
        for row, line in enumerate(_lines(file, ref)):
            digest.update(line)
            rows += 1
            yield row, _record(line, row, ref)
    if ref.sha256 is not None and digest.hexdigest() != ref.sha256.lower():
        raise InvalidInput(
            f"Data set '{ref.path}' has changed: sha256 is {digest.hexdigest()}, not {ref.sha256.lower()}"
        )
    if ref.rows is not None and rows != ref.rows:
        raise InvalidInput(f"Data set '{ref.path}' has {rows} rows, not {ref.rows}")


def _lines(file: BinaryIO, ref: DataRef) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX):
        if len(line) == LINE_BYTES_MAX and not line.endswith(b"\n"):
            raise InvalidInput(f"Data set '{ref.path}' has a row of more than {LINE_BYTES_MAX} bytes")
        yield line


def _record(line: bytes, row: int, ref: DataRef) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"Row {row} of '{ref.path}' is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise InvalidInput(f"Row {row} of '{ref.path}' is not a JSON object")
    return record


def _number(value: object, name: str, row: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"Row {row}: field '{shown(name)}' is {shown(value)}, not a number")
    if not -LARGEST <= value <= LARGEST:
        raise InvalidInput(f"Row {row}: field '{shown(name)}' is {shown(value)}, not within ±{LARGEST:g}")
    return float(value)


def _instant(value: object, name: str, row: int, known: list[str]) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidInput(f"Row {row} has no time in the field '{shown(name)}'; its fields are {named(known)}")
    try:
        return micros(value)
    except ValueError as error:
        raise InvalidInput(f"Row {row}: field '{shown(name)}': {error}") from None
