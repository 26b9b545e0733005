"""Pydantic models are the source of truth for the wire, so their Avro schemas are derived and never written by hand.

The mapper is small because it refuses what it cannot say exactly: a union of records (readers would have to guess the
branch), an enum that cannot grow, a default that differs from run to run, a record that contains itself. What it
accepts maps to one schema text, the same in every process.

The second half guards schemas that we did not derive. The writer's schema drives the decoder, and a hostile one can
turn five bytes into gigabytes; each is therefore checked once, when it is admitted, and records pay nothing for it.
"""

from __future__ import annotations

import inspect
import types
from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from fastavro import parse_schema
from fastavro.schema import SchemaParseException, UnknownType
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from schemas.errors import SchemaError

NAMESPACE = "troupe.v1"

Schema = Any
"""An Avro schema as plain JSON: a name, a list of branches, or an object."""


@dataclass(frozen=True)
class Avro:
    """Refines the Avro type of a field: `Annotated[int, Avro(logicalType="timestamp-micros")]`."""

    type: str | None = None
    logicalType: str | None = None  # spelt as in the Avro specification


Micros = Annotated[int, Avro(logicalType="timestamp-micros")]
"""An instant: microseconds since the UTC epoch."""

Int = Annotated[int, Field(gt=-(2**31) - 1, lt=2**31), Avro(type="int")]
"""An integer of 32 bits; the bound is the model's, so that a client hears of it and not a writer.

Said with `gt` and `lt`, so that a field may have its own `ge` and `le`: of two bounds of one kind the alias's would win.
"""

_PRIMITIVES: dict[Any, str] = {str: "string", int: "long", float: "double", bool: "boolean", bytes: "bytes"}
_LEAST_BYTES = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "string": 1, "bytes": 1}
_MAX_DEPTH = 64  # levels of nesting; ours have fewer than ten


# --- model -> schema


def avro_schema(model: type[BaseModel], namespace: str = NAMESPACE) -> dict[str, Any]:
    """Return the record schema of a model, fields in declaration order.

    Raises SchemaError naming the field where a type or default has no exact place in Avro.
    """
    schema = _Mapping(namespace, {}, (), model.__name__).of_record(model)
    check_safe(schema)
    return dict(schema)


@dataclass(frozen=True)
class _Mapping:
    """One walk over a model: the types defined so far (Avro defines each once), the records still open, the place."""

    namespace: str
    defined: dict[str, type]
    open: tuple[type, ...]
    where: str

    def of_record(self, model: type[BaseModel]) -> Schema:
        if model in self.open:
            raise SchemaError(f"{self.where}: {model.__name__} contains itself; recursive records are not sent")
        if self.seen(model):
            return f"{self.namespace}.{model.__name__}"
        inside = replace(self, open=(*self.open, model))
        fields = [
            replace(inside, where=f"{model.__name__}.{name}").of_field(name, field)
            for name, field in model.model_fields.items()
        ]
        return self.named("record", model) | {"fields": fields}

    def of_field(self, name: str, field: FieldInfo) -> dict[str, Any]:
        if field.alias or field.validation_alias or field.serialization_alias:
            raise SchemaError(f"{self.where}: no pydantic alias on the wire; json_schema_extra={{'aliases': [...]}}")
        hint = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        out: dict[str, Any] = {"name": name, "type": self.of_type(hint)}
        if field.description:
            out["doc"] = field.description
        if isinstance(field.json_schema_extra, dict) and "aliases" in field.json_schema_extra:
            out["aliases"] = field.json_schema_extra["aliases"]
        if field.default_factory in (list, tuple, dict):
            out["default"] = {} if field.default_factory is dict else []
        elif field.default_factory is None and not field.is_required():
            out["default"] = self.default(field.default, out["type"])
        # Any other factory makes ids or reads a clock: that is the producer's business, the wire requires the value.
        if isinstance(out["type"], list) and out.get("default", ...) is not None:
            raise SchemaError(f"{self.where}: `X | None` must default to None (Avro: the first branch)")
        return out

    def of_type(self, hint: Any) -> Schema:
        origin, args = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self.refined(self.of_type(args[0]), [mark for mark in args[1:] if isinstance(mark, Avro)])
        if hint in _PRIMITIVES:
            return _PRIMITIVES[hint]
        if origin in (Union, types.UnionType):
            rest = [branch for branch in args if branch is not types.NoneType]
            if len(rest) != 1:
                raise SchemaError(f"{self.where}: the only union is `X | None`, not {hint}")
            return ["null", self.of_type(rest[0])]
        if origin is Literal and all(isinstance(value, str) for value in args):
            return "string"
        if origin is list or (origin is tuple and args[1:] == (...,)):
            return {"type": "array", "items": self.of_type(args[0])}
        if origin is dict and args[0] is str:
            return {"type": "map", "values": self.of_type(args[1])}
        if inspect.isclass(hint) and issubclass(hint, str) and issubclass(hint, Enum):
            return self.of_enum(hint)
        if inspect.isclass(hint) and issubclass(hint, BaseModel):
            return self.of_record(hint)
        raise SchemaError(f"{self.where}: {hint!r} has no Avro type here")

    def refined(self, base: Schema, marks: list[Avro]) -> Schema:
        for mark in marks:
            if isinstance(base, list):
                raise SchemaError(f"{self.where}: refine inside the union: `Annotated[X, Avro(...)] | None`")
            kind = mark.type or base
            base = {"type": kind, "logicalType": mark.logicalType} if mark.logicalType else kind
        return base

    def of_enum(self, enum: type[Enum]) -> Schema:
        if self.seen(enum):
            return f"{self.namespace}.{enum.__name__}"
        symbols = [member.value for member in enum]
        if "unknown" not in symbols:
            raise SchemaError(f"{self.where}: {enum.__name__} needs a member 'unknown', or it can never grow")
        return self.named("enum", enum) | {"symbols": symbols, "default": "unknown"}

    def default(self, value: Any, of: Schema) -> Any:
        match value:
            case Enum():
                return value.value
            case int() if of == "double" and not isinstance(value, bool):
                return float(value)
            case None | bool() | int() | float() | str():
                return value
            case bytes():
                return value.decode("latin-1")  # Avro writes bytes as the code points 0..255
            case list() | tuple() | dict() if not value:
                return {} if isinstance(value, dict) else []
        raise SchemaError(f"{self.where}: default {value!r} has no place in a schema; make it None or required")

    def seen(self, cls: type) -> bool:
        """Whether this type has its definition already; if not, it gets it now."""
        known = self.defined.get(cls.__name__)
        if known not in (None, cls):
            raise SchemaError(f"{self.where}: two types are called {cls.__name__}")
        self.defined[cls.__name__] = cls
        return known is cls

    def named(self, kind: str, cls: type) -> dict[str, Any]:
        own = cls.__dict__.get("__doc__")
        doc = {"doc": " ".join(inspect.cleandoc(own).split("\n\n")[0].split())} if own else {}
        return {"type": kind, "name": cls.__name__, "namespace": self.namespace} | doc


# --- guards on any schema


def check_safe(schema: Schema) -> None:
    """Refuse a schema that lets a few bytes become gigabytes (items of no size) or crash the decoder (recursion).

    Raises SchemaError with the reason. Costs about 0.1 ms; call it once per schema, never per record.
    """
    try:
        parsed = parse_schema(schema)
    except (SchemaParseException, UnknownType, ValueError, LookupError, TypeError, AttributeError) as wrong:
        raise SchemaError(f"not an Avro schema: {type(wrong).__name__}: {wrong}") from wrong
    except RecursionError as wrong:
        raise SchemaError("the schema is nested too deep") from wrong
    _least_bytes(parsed, {}, 0)


def _least_bytes(schema: Schema, named: dict[str, int | None], depth: int) -> int:
    """The size in bytes of the smallest value; `named` holds None for a record whose fields are being summed."""
    if depth > _MAX_DEPTH:
        raise SchemaError(f"the schema is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(schema, list):
        return 1 + min((_least_bytes(branch, named, depth + 1) for branch in schema), default=0)
    if isinstance(schema, str):
        size = _LEAST_BYTES[schema] if schema in _LEAST_BYTES else named[schema]
        if size is None:
            raise SchemaError(f"record {schema} contains itself")
        return size
    match schema["type"]:
        case "record" | "error":
            named[schema["name"]] = None
            size = sum(_least_bytes(field["type"], named, depth + 1) for field in schema["fields"])
            if size == 0:
                raise SchemaError(f"record {schema['name']} takes no bytes")
            named[schema["name"]] = size
            return size
        case "enum":
            named[schema["name"]] = 1
            return 1
        case "fixed":
            named[schema["name"]] = size = int(schema["size"])
            if size <= 0:
                raise SchemaError(f"fixed {schema['name']} has {size} bytes")
            return size
        case "array":
            if _least_bytes(schema["items"], named, depth + 1) <= 0:
                raise SchemaError("the items of an array take no bytes")
            return 1
        case "map":
            _least_bytes(schema["values"], named, depth + 1)  # a key takes a byte, so only recursion matters
            return 1
        case inner:
            return _least_bytes(inner, named, depth + 1)


def runtime_schema(schema: Schema) -> Schema:
    """Return the schema without logical types: equal bytes, but instants stay int, which halves the cost."""
    if isinstance(schema, list):
        return [runtime_schema(branch) for branch in schema]
    if isinstance(schema, dict):
        return {
            key: value if key == "default" else runtime_schema(value)
            for key, value in schema.items()
            if key != "logicalType"
        }
    return schema
