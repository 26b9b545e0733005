"""JSON lines: one object a line, each as its writer saw fit. There is no header, objects lie in objects, and a name may
be missing from one line and occur twice in the next.

So the columns are the names of all lines in the order in which they first occur; an object within an object becomes
columns with dotted names; a list stays one value, its JSON text; and what has no single meaning is an error of its line.
Numbers are kept as they were written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from actors.catalog.datasets import shown
from actors.catalog.rows import COLUMNS_MAX, Cell, LineTooLong, Row, TextLines, checked, has_stray_bytes
from schemas.errors import InvalidInput

NAME_CHARS_MAX = 500
"""A dotted name repeats the names above it: without a limit a line of 1 MB could name gigabytes."""

_GZIP = "\x1f\udc8b"  # its first two bytes as the decoder leaves them


class _Number(str):
    """A number as it stands in the line; no rounding and no limit of digits."""

    __slots__ = ()


class JsonRows:
    """The rows of one source of JSON lines of `size` bytes; `header` as an earlier reading found it, or nothing.

    Raises InvalidInput, while it is read, for a source that holds something else than JSON lines.
    """

    def __init__(self, source: BinaryIO, name: str, size: int = 0, header: Sequence[str] = ()) -> None:
        self._name, self._size = name, size
        self._lines = TextLines(source)
        self._number = 0
        self.header = list(header)
        self._places = {column: place for place, column in enumerate(self.header)}
        self._decoder = json.JSONDecoder(
            object_pairs_hook=_object, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant
        )

    def __iter__(self) -> Iterator[Row]:
        while True:
            try:
                line = next(self._lines).strip()
            except StopIteration:
                return
            except LineTooLong as error:
                self._number += 1
                yield Row(self._number, self._lines.count, [], str(error))
                continue
            if not line:
                continue
            self._number += 1
            if self._number == 1:
                self._is_lines(line)
            yield self._row(line)

    @property
    def share(self) -> float:
        return min(1.0, self._lines.bytes_read / max(1, self._size))

    def checksum(self) -> str:
        for _ in self:  # a page of a file has the columns of the whole file
            pass
        return self._lines.checksum()

    def _is_lines(self, first: str) -> None:
        if "\0" in first or first.startswith(_GZIP):
            raise InvalidInput(f"{self._name} is not UTF-8 text; convert or unpack the file first")
        if first[0] == "[" or first == "{":
            text = "is one JSON document and not JSON lines; write one object a line, for example with `jq -c '.[]'`"
            raise InvalidInput(f"{self._name} {text}")

    def _row(self, line: str) -> Row:
        number, at = self._number, self._lines.count
        if has_stray_bytes(line):
            return Row(number, at, [], "is not UTF-8", shown(line))
        try:
            found = self._decoder.decode(line)
            if not isinstance(found, dict):
                raise ValueError("is not a JSON object")
            fields: dict[str, Cell] = {}
            _flatten(found, "", fields)
        except json.JSONDecodeError as error:
            return Row(number, at, [], f"is not JSON: {error.msg} at column {error.colno}", shown(line))
        except ValueError as error:
            return Row(number, at, [], str(error), shown(line))
        except RecursionError:
            return Row(number, at, [], "is nested too deeply", shown(line))
        return checked(Row(number, at, self._in_place(fields)))

    def _in_place(self, fields: dict[str, Cell]) -> list[Cell]:
        for name in fields:
            if name not in self._places:
                if len(self.header) == COLUMNS_MAX:
                    text = (
                        f"{self._name}: its lines name more than {COLUMNS_MAX} fields; are there ids among the names?"
                    )
                    raise InvalidInput(text)
                self._places[name] = len(self.header)
                self.header.append(name)
        return [fields.get(name) for name in self.header]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"names '{shown(twice, 40)}' twice in one object")
    return found


def _no_constant(word: str) -> None:
    raise ValueError(f"has {word}, which is no JSON number")


def _flatten(found: dict[str, Any], above: str, fields: dict[str, Cell]) -> None:
    for key, value in found.items():
        name = f"{above}.{key}" if above else key
        if isinstance(value, dict) and value:
            if len(name) > NAME_CHARS_MAX:
                raise ValueError(f"has a name of more than {NAME_CHARS_MAX} characters")
            _flatten(value, name, fields)
            continue
        if not name or len(name) > NAME_CHARS_MAX or has_stray_bytes(name):
            raise ValueError(f"has a name that is empty, no UTF-8 or of more than {NAME_CHARS_MAX} characters")
        if name in fields:
            raise ValueError(f"names '{shown(name, 40)}' twice: as a field, and as a field within an object")
        if len(fields) == COLUMNS_MAX:
            raise ValueError(f"has more than {COLUMNS_MAX} fields")
        fields[name] = None if value is None or value == {} else value if isinstance(value, str) else _text(value)


def _text(value: Any) -> str:
    """JSON text of a value, numbers as they were written."""
    if isinstance(value, _Number):
        return value
    if isinstance(value, list):
        return f"[{','.join(_text(each) for each in value)}]"
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{_text(each)}" for name, each in value.items())
            + "}"
        )
    return json.dumps(value, ensure_ascii=False)
