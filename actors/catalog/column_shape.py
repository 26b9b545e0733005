"""Lists of columns, as a table or a data set has them: translated to a shape, judged column by column.

The kinds are those of ingestion, and the columns of a data set can be learnt from its rows: kind, whether a value may
be missing, and the span of what was seen. That is what the data are today, not what they must be, and the result says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from actors.catalog.datasets import DataRef, micros, read_records, shown
from actors.catalog.shapes import Choice, Either, Null, Number, Record, Shape, Text, Truth, word_of
from actors.catalog.shapes import Field as ShapeField
from actors.catalog.typed_columns import Kind
from schemas.errors import InvalidInput

COLUMNS_MAX = 2_000
_INT64 = (-(2**63), 2**63 - 1)


class Column(BaseModel):
    """One column: `min` and `max` of a number (microseconds of a timestamp), lengths of text in characters, `values` if
    only these are allowed.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    type: Kind = "str"
    nullable: bool = False
    min: int | FiniteFloat | None = None
    max: int | FiniteFloat | None = None
    min_length: int = Field(default=0, ge=0, le=100_000)
    max_length: int | None = Field(default=None, ge=0)
    values: list[str | int | float | bool] | None = Field(default=None, min_length=1)


_LIST: TypeAdapter[list[Column]] = TypeAdapter(list[Column])


class ColumnSchema:
    """A list of columns, or their names and kinds. A row has all of them and no others. Raises InvalidInput."""

    def __init__(self, given: Any) -> None:
        if isinstance(given, dict):
            given = [{"name": name, "type": kind} for name, kind in given.items()]
        try:
            self._columns = {column.name: column for column in _LIST.validate_python(given)}
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise InvalidInput(f"The list of columns is wrong at {place}: {first['msg']}") from None
        if len(self._columns) < len(given) or not given or len(given) > COLUMNS_MAX:
            raise InvalidInput(f"A list of columns has 1 to {COLUMNS_MAX} columns, each name once")

    def shape(self) -> Shape:
        """What the columns allow."""
        fields = [ShapeField(column.name, _shape(column)) for column in self._columns.values()]
        return Record(tuple(fields), closed=True)

    def violation(self, row: Any) -> str | None:
        """What the columns do not allow in a row; None if it fits."""
        if not isinstance(row, dict):
            return f"the row is {shown(row, 40)}, not an object"
        for name in (*self._columns, *row):
            if name not in row:
                return f"{name} is missing"
            if name not in self._columns:
                return f"{name} is not a column"
            if (wrong := _wrong(self._columns[name], row[name])) is not None:
                return f"{name} is {shown(row[name], 40)}, {wrong}"
        return None


def _shape(column: Column) -> Shape:
    shape: Shape
    if column.values is not None:
        shape = Choice(tuple(column.values))
    elif column.type in ("int", "float"):
        whole = column.type == "int"
        low, high = column.min, column.max
        if whole:  # whole bounds stay whole numbers: a float has not enough digits for 64 bits
            low = _INT64[0] if low is None else max(_INT64[0], math.ceil(low))
            high = _INT64[1] if high is None else min(_INT64[1], math.floor(high))
        shape = Number(whole, low, high)
    elif column.type == "bool":
        shape = Truth()
    elif column.type == "timestamp":
        bounded = column.min is not None and column.max is not None
        span = (int(column.min or 0), int(column.max or 0)) if bounded else (None, None)
        shape = Text(format="date-time", earliest=span[0], latest=span[1])
    else:
        shape = Text(column.min_length, column.max_length)
    return Either((shape, Null())) if column.nullable else shape


def _wrong(column: Column, value: Any) -> str | None:
    if value is None:
        return None if column.nullable else "and a value is due"
    if column.values is not None:
        same = any(word_of(each) == word_of(value) and each == value for each in column.values)
        return None if same else "none of the values"
    word = {"int": "number", "float": "number", "bool": "boolean"}.get(column.type, "string")
    if word_of(value) != word:
        return f"no {column.type}"
    if column.type == "int" and not (isinstance(value, int) and _INT64[0] <= value <= _INT64[1]):
        return "not a whole number of 64 bits"
    size: float | None = None
    if column.type == "timestamp":
        try:
            size = micros(value)
        except ValueError:
            return "not an ISO 8601 time"
    elif word == "number":
        size = value
    if size is not None and not (-math.inf if column.min is None else column.min) <= size:
        return f"below {column.min}"
    if size is not None and not size <= (math.inf if column.max is None else column.max):
        return f"above {column.max}"
    if column.type == "str" and not column.min_length <= len(value) <= (
        len(value) if column.max_length is None else column.max_length
    ):
        return "of another length"
    return None


@dataclass(slots=True)
class _Seen:
    """What the values of one column have in common."""

    kinds: set[str]
    rows: int = 0
    low: float = math.inf
    high: float = -math.inf
    shortest: int | None = None
    longest: int = 0

    def see(self, value: Any) -> None:
        self.rows += value is not None
        if isinstance(value, bool):
            self.kinds.add("bool")
        elif isinstance(value, int | float):
            self.kinds.add("int" if isinstance(value, int) else "float")
            self.low, self.high = min(self.low, value), max(self.high, value)
        elif isinstance(value, str):
            self.shortest = len(value) if self.shortest is None else min(self.shortest, len(value))
            self.longest = max(self.longest, len(value))
            try:
                instant = micros(value)
                self.kinds.add("timestamp")
                self.low, self.high = min(self.low, instant), max(self.high, instant)
            except ValueError:
                self.kinds.add("str")

    def column(self, name: str, rows: int) -> dict[str, Any]:
        """The column that holds what was seen. Raises InvalidInput for values of several kinds."""
        kinds = self.kinds - ({"int"} if "float" in self.kinds else {"timestamp"} if "str" in self.kinds else set())
        if len(kinds) > 1:
            raise InvalidInput(f"Column '{shown(name)}' holds {' and '.join(sorted(kinds))}; give a 'schema' instead")
        kind = next(iter(kinds), "str")
        found: dict[str, Any] = {"name": name, "type": kind, "nullable": self.rows < rows}
        if kind in ("int", "float", "timestamp"):
            found |= {"min": self.low, "max": self.high}
        elif kind == "str" and self.shortest is not None:
            found |= {"min_length": self.shortest, "max_length": self.longest}
        return found


def learnt_columns(data_dir: Path, ref: DataRef) -> tuple[Sequence[dict[str, Any]], int]:
    """The columns of a data set by its rows, and how many rows there were. Raises InvalidInput if there are none."""
    seen: dict[str, _Seen] = {}
    rows = 0
    for record in read_records(data_dir, ref):
        rows += 1
        for name, value in record.items():
            if name not in seen:
                if len(seen) == COLUMNS_MAX:
                    raise InvalidInput(f"Data set '{ref.path}' has more than {COLUMNS_MAX} columns")
                seen[name] = _Seen(set())
            if isinstance(value, list | dict):
                raise InvalidInput(
                    f"Column '{shown(name)}' of '{ref.path}' holds lists or objects; give a 'schema' instead"
                )
            seen[name].see(value)
    if not seen:
        raise InvalidInput(f"Data set '{ref.path}' has no rows to learn columns from")
    return [each.column(name, rows) for name, each in seen.items()], rows
