"""Code made for one Avro schema: the bytes that fastavro writes and reads, in a fifth and in half of its time.

fastavro walks the schema at every record, and to write `X | None` it validates the value against each branch; with rows
of fifty fields that was a quarter of all that a task cost the coordinator. So the walk is done once, here, and leaves a
plain function behind, as dataclasses do for `__init__`. Only the schemas that our models give are understood: records,
enums, arrays, maps, primitives, and unions of null and one other. Records of other versions, which need resolution,
stay with fastavro.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from schemas.errors import SchemaError

Write = Callable[[bytearray, Mapping[str, Any]], None]
"""Appends a record's body to the bytes, taking fields from a model's dictionary, nested models as they are."""

Read = Callable[[bytes, int], dict[str, Any]]
"""The fields of the record that begins at an offset and ends with the bytes."""

MISFITS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, struct.error)
"""What a `Write` raises for a value that does not fit."""

DAMAGES = (ValueError, LookupError, struct.error)
"""What a `Read` raises for bytes that are no such record."""

_SMALL_INTS = 4096
_ONE_BYTE_SYMBOLS = 64


def compile_writer(schema: Any) -> Write:
    """Make the function that writes records of this schema. Raises SchemaError for a type that is not ours."""
    source = _Writer()
    source.put(0, "def made(out, d):")
    source.fields(schema, "d", 1)
    write: Write = _made(
        source, {"SMALL": _SMALL, "int_bytes": _int_bytes, "long_bytes": _long_bytes, "BOOLEANS": _BOOLEANS}
    )
    return write


def compile_reader(schema: Any) -> Read:
    """Make the function that reads records of this schema. Raises SchemaError for a type that is not ours."""
    source = _Reader()
    source.put(0, "def made(data, p):")
    source.put(1, "size = len(data)")
    source.record(schema, "whole", 1)
    source.put(1, "if p != size:")
    source.put(2, "raise ValueError(f'{size - p} bytes are left over after the record')")
    source.put(1, "return whole")
    read: Read = _made(source, {"read_long": _read_long})
    return read


def _made(source: _Source, names: dict[str, Any]) -> Any:
    space = {"DOUBLE": struct.Struct("<d"), "FLOAT": struct.Struct("<f"), **names, **source.constants}
    exec(compile("\n".join(source.lines), "<avro schema>", "exec"), space)
    return space["made"]


# --- integers: zigzag, then seven bits a byte


def _zigzag(bits: int, value: int) -> bytes:
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise OverflowError(f"{value} has more than {bits} bits")
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_SMALL = tuple(_zigzag(32, value) for value in range(_SMALL_INTS))
_BOOLEANS = {False: b"\0", True: b"\1"}
# An append time or a deadline comes back in many records of a batch. Typed, or 5.0 would pass where 5 is known.
_int_bytes = lru_cache(1024, typed=True)(partial(_zigzag, 32))
_long_bytes = lru_cache(4096, typed=True)(partial(_zigzag, 64))


def _read_long(data: bytes, p: int) -> tuple[int, int]:
    """The number at an offset and the offset behind it."""
    value = shift = 0
    while True:
        byte = data[p]
        p += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    # Not asked in the loop: a long row of bytes above 0x7F costs its length and ends here.
    if value >> 64:
        raise ValueError("a number has more than 64 bits")
    return value >> 1 ^ -(value & 1), p


# --- source text


class _Source:
    """Lines of Python, the constants that they use, and the named types met so far."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self._named: dict[str, Any] = {}
        self._count = 0

    def put(self, depth: int, *lines: str) -> None:
        """Add lines at a depth of indentation."""
        self.lines += ["    " * depth + line for line in lines]

    def fresh(self, word: str) -> str:
        """A variable's name that no other has."""
        self._count += 1
        return f"{word}{self._count}"

    def kind(self, schema: Any) -> tuple[str, Any]:
        """What a schema is, and its definition if it has one; a type that is named again is looked up."""
        if isinstance(schema, list):
            if len(schema) != 2 or schema[0] != "null":
                raise SchemaError(f"the only union is null and one other, not {schema}")
            return "union", schema[1]
        if isinstance(schema, str):
            known = self._named.get(schema)
            return (schema, None) if known is None else (known["type"], known)
        if schema["type"] in ("record", "enum"):
            name, space = schema["name"], schema.get("namespace")
            self._named[name if "." in name or not space else f"{space}.{name}"] = schema
        return (schema["type"], schema) if isinstance(schema["type"], str) else self.kind(schema["type"])

    def symbols(self, schema: Any, codes: Callable[[int], Any], turned: bool) -> str:
        """The name of a constant that maps symbols to codes, or `turned` codes to symbols."""
        if len(schema["symbols"]) > _ONE_BYTE_SYMBOLS:
            raise SchemaError(f"{schema['name']} has more than {_ONE_BYTE_SYMBOLS} symbols")
        name = self.fresh("ENUM")
        pairs = [(symbol, codes(number)) for number, symbol in enumerate(schema["symbols"])]
        self.constants[name] = {code: symbol for symbol, code in pairs} if turned else dict(pairs)
        return name


class _Writer(_Source):
    """Statements that append `v` to `out`."""

    def fields(self, schema: Any, of: str, depth: int) -> None:
        """All fields of the record in variable `of`, a mapping."""
        _, record = self.kind(schema)
        for field in record["fields"]:
            self.put(depth, f"v = {of}[{field['name']!r}]")
            self.value(field["type"], depth)

    def value(self, schema: Any, depth: int) -> None:
        """Whatever is in `v`."""
        kind, definition = self.kind(schema)
        match kind:
            case "union":
                self.put(depth, "if v is None:", "    out.append(0)", "else:", "    out.append(2)")
                self.value(definition, depth + 1)
            case "record":
                inner = self.fresh("d")
                self.put(depth, f"{inner} = v if type(v) is dict else v.__dict__")
                self.fields(definition, inner, depth)
            case "enum":
                self.put(depth, f"out += {self.symbols(definition, partial(_zigzag, 32), turned=False)}[v]")
            case "array":
                self._many(depth)
                self.put(depth + 1, "for v in v:")
                self.value(definition["items"], depth + 2)
                self.put(depth, "out.append(0)")
            case "map":
                self._many(depth)
                inner = self.fresh("w")
                self.put(depth + 1, f"for v, {inner} in v.items():")
                self._primitive("string", depth + 2)
                self.put(depth + 2, f"v = {inner}")
                self.value(definition["values"], depth + 2)
                self.put(depth, "out.append(0)")
            case _:
                self._primitive(kind, depth)

    def _many(self, depth: int) -> None:
        """The head of the one block in which all items go; an empty array or map has none."""
        self.put(depth, "n = len(v)", "if n:", f"    {_LENGTH}")

    def _primitive(self, kind: str, depth: int) -> None:
        try:
            self.put(depth, *_WRITES[kind])
        except KeyError:
            raise SchemaError(f"Avro type {kind!r} is not used here") from None


_LENGTH = f"out += SMALL[n] if n < {_SMALL_INTS} else long_bytes(n)"
_WRITES = {
    "string": ("b = v.encode()", "n = len(b)", _LENGTH, "out += b"),
    "bytes": ("n = len(v)", _LENGTH, "out += v"),
    "int": (f"out += SMALL[v] if 0 <= v < {_SMALL_INTS} else int_bytes(v)",),
    "long": (f"out += SMALL[v] if 0 <= v < {_SMALL_INTS} else long_bytes(v)",),
    "boolean": ("out += BOOLEANS[v]",),
    "double": ("out += DOUBLE.pack(v)",),
    "float": ("out += FLOAT.pack(v)",),
}


class _Reader(_Source):
    """Statements that read from `data` at `p` into a target and move `p`. A slice may end short: `p` then passes the
    end, and the next look or the last comparison fails."""

    def record(self, schema: Any, target: str, depth: int) -> None:
        """A dictionary of all fields, copied from one in which what may be null is."""
        _, record = self.kind(schema)
        blank = self.fresh("BLANK")
        self.constants[blank] = dict.fromkeys(field["name"] for field in record["fields"])
        self.put(depth, f"{target} = {blank}.copy()")
        for field in record["fields"]:
            self.value(field["type"], f"{target}[{field['name']!r}]", depth)

    def value(self, schema: Any, target: str, depth: int) -> None:
        """Whatever the schema says."""
        kind, definition = self.kind(schema)
        match kind:
            case "union":
                self.put(depth, "n = data[p]", "p += 1", "if n:")
                self.put(depth + 1, "if n != 2:", "    raise ValueError(f'there is no branch {n >> 1}')")
                self.value(definition, target, depth + 1)
                if "[" not in target:
                    self.put(depth, "else:", f"    {target} = None")
            case "record":
                inner = self.fresh("r")
                self.record(definition, inner, depth)
                self.put(depth, f"{target} = {inner}")
            case "enum":
                codes = self.symbols(definition, lambda number: number << 1, turned=True)
                self.put(depth, f"{target} = {codes}[data[p]]", "p += 1")
            case "array" | "map":
                self._many(kind, definition, target, depth)
            case _:
                self._primitive(kind, target, depth)

    def _many(self, kind: str, definition: Any, target: str, depth: int) -> None:
        """Blocks of items until an empty one; a block with a negative count has its size in bytes behind the count."""
        found, count, item = self.fresh("many"), self.fresh("count"), self.fresh("item")
        self.put(depth, f"{found} = {'[]' if kind == 'array' else '{}'}", "while data[p]:")
        self.put(depth + 1, f"{count}, p = read_long(data, p)", f"if {count} < 0:")
        self.put(depth + 2, f"{count} = -{count}", "n, p = read_long(data, p)")
        self.put(depth + 1, f"if {count} > size - p:", "    raise ValueError('more items than bytes')")
        self.put(depth + 1, f"for _ in range({count}):")
        if kind == "array":
            self.value(definition["items"], item, depth + 2)
            self.put(depth + 2, f"{found}.append({item})")
        else:
            key = self.fresh("key")
            self._primitive("string", key, depth + 2)
            self.value(definition["values"], item, depth + 2)
            self.put(depth + 2, f"{found}[{key}] = {item}")
        self.put(depth, "p += 1", f"{target} = {found}")

    def _primitive(self, kind: str, target: str, depth: int) -> None:
        try:
            self.put(depth, *(line.replace("TARGET", target) for line in _READS[kind]))
        except KeyError:
            raise SchemaError(f"Avro type {kind!r} is not used here") from None


_SPAN = (
    "n = data[p]",
    "if n < 0x80:",
    "    p += 1",
    "    n = n >> 1 ^ -(n & 1)",
    "else:",
    "    n, p = read_long(data, p)",
    "if n < 0:",
    "    raise ValueError('a length is negative')",
    "q = p + n",
)
_NUMBER = (
    "n = data[p]",
    "if n < 0x80:",
    "    TARGET = n >> 1 ^ -(n & 1)",
    "    p += 1",
    "else:",
    "    TARGET, p = read_long(data, p)",
)
_READS = {
    "string": (*_SPAN, "TARGET = data[p:q].decode()", "p = q"),
    "bytes": (*_SPAN, "TARGET = data[p:q]", "p = q"),
    "int": _NUMBER,
    "long": _NUMBER,
    "boolean": ("n = data[p]", "if n > 1:", "    raise ValueError('no boolean')", "TARGET = n == 1", "p += 1"),
    "double": ("TARGET = DOUBLE.unpack_from(data, p)[0]", "p += 8"),
    "float": ("TARGET = FLOAT.unpack_from(data, p)[0]", "p += 4"),
}
