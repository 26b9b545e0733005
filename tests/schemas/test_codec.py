"""Whatever a model can hold comes back; whatever is damaged is refused with the two errors that callers know."""

from __future__ import annotations

import contextlib
import copy
import random
import struct
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.avro import Int, Micros, avro_schema
from schemas.codec import Codec, Codecs
from schemas.errors import DecodeError, PayloadTooLarge, SchemaError, UnknownSchemaId

SUBJECT, LIMIT = "things-value", 64_000


class Kind(StrEnum):
    ONE = "one"
    TWO = "two"
    UNKNOWN = "unknown"


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Leaf(Frozen):
    code: str
    at: Micros | None = None


class Branch(Frozen):
    leaf: Leaf
    more: tuple[Leaf, ...] = ()


class Thing(Frozen):
    id: str
    kind: Kind = Kind.UNKNOWN
    at: Micros
    short: Int = 0
    share: float = 0.0
    yes: bool = False
    raw: bytes = b""
    note: str | None = None
    tags: tuple[str, ...] = ()
    maybe_tags: tuple[str, ...] | None = None
    counts: dict[str, int] = Field(default_factory=dict)
    branch: Branch | None = None
    leaves: tuple[Leaf, ...] = ()
    by_name: dict[str, Leaf] = Field(default_factory=dict)


longs = st.integers(-(2**63), 2**63 - 1)
leaves = st.builds(Leaf, code=st.text(), at=st.none() | longs)
many = st.lists(leaves, max_size=3).map(tuple)
things = st.builds(
    Thing,
    at=longs,
    short=st.integers(-(2**31), 2**31 - 1),
    share=st.floats(allow_nan=False),
    tags=st.lists(st.text(), max_size=3).map(tuple),
    maybe_tags=st.none() | st.lists(st.text(), max_size=3).map(tuple),
    counts=st.dictionaries(st.text(), longs, max_size=3),
    branch=st.none() | st.builds(Branch, leaf=leaves, more=many),
    leaves=many,
    by_name=st.dictionaries(st.text(), leaves, max_size=3),
)
FULL = Thing(
    id="t-1", kind=Kind.TWO, at=1_700_000_000_000_000, note="n", tags=("a", "b"), maybe_tags=("string", "c"),
    counts={"x": 1}, branch=Branch(leaf=Leaf(code="c", at=5), more=(Leaf(code="d"),)), by_name={"k": Leaf(code="e")},
)  # fmt: skip


def thing_codec(limit: int = LIMIT) -> Codec[Thing]:
    return Codec(Thing, avro_schema(Thing), 7, SUBJECT, limit)


def newer_schema() -> dict[str, Any]:
    """The schema of a later release: a field more, an enum symbol more."""
    schema = copy.deepcopy(avro_schema(Thing))
    schema["fields"][1]["type"]["symbols"].append("three")
    schema["fields"].append({"name": "region", "type": ["null", "string"], "default": None})
    return schema


class NewerKind(StrEnum):
    ONE = "one"
    TWO = "two"
    UNKNOWN = "unknown"
    THREE = "three"


class NewerThing(Thing):
    __doc__ = None
    kind: NewerKind = NewerKind.UNKNOWN  # type: ignore[assignment]
    region: str | None = None


@given(things)
def test_round_trip(thing: Thing) -> None:
    codec = thing_codec()
    assert codec.decode(codec.encode(thing)) == thing


def test_frame_is_confluents() -> None:
    assert thing_codec().encode(FULL)[:5] == struct.pack(">bI", 0, 7)


def test_a_newer_writers_record_is_read_as_ours() -> None:
    reader, writer = thing_codec(), Codec(NewerThing, newer_schema(), 8, SUBJECT, LIMIT)
    record = NewerThing(**FULL.__dict__ | {"kind": NewerKind.THREE, "region": "eu"})
    data = writer.encode(record)
    with pytest.raises(UnknownSchemaId) as unknown:
        reader.decode(data)
    assert unknown.value.schema_id == 8
    reader.admit(8, newer_schema())
    assert reader.decode(data) == FULL.model_copy(update={"kind": Kind.UNKNOWN})


def test_an_older_writers_record_gets_our_defaults() -> None:
    older = avro_schema(Thing)
    older["fields"] = [field for field in older["fields"] if field["name"] in ("id", "at")]
    codec = thing_codec()
    codec.admit(3, older)
    assert codec.decode(struct.pack(">bI", 0, 3) + b"\x02x\x0a") == Thing(id="x", at=5)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no schema frame"),
        (b"\0\0\0", "no schema frame"),
        (b'{"id": "x"}', "no schema frame"),
        (b"\0\0\0\0\x07", "damaged"),
        (thing_codec().encode(FULL)[:-1], "damaged"),
        (thing_codec().encode(FULL) + b"\0", "1 bytes are left over"),
        (bytes(LIMIT + 1), "exceed"),
    ],
)
def test_what_is_no_record_is_a_decode_error(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        thing_codec().decode(data)


class Ranged(Frozen):
    priority: int = Field(ge=1, le=5)


def test_a_record_that_the_model_refuses_names_the_field() -> None:
    codec = Codec(Ranged, avro_schema(Ranged), 1, "ranged-value", LIMIT)
    with pytest.raises(DecodeError, match="priority: Input should be less than or equal to 5"):
        codec.decode(b"\0\0\0\0\x01\x0e")


def test_size_is_checked_before_sending() -> None:
    with pytest.raises(PayloadTooLarge, match="exceeds 50 bytes"):
        thing_codec(limit=50).encode(FULL)


@pytest.mark.parametrize("field", [{"at": "soon"}, {"at": 2**70}, {"id": "\ud800"}, {"leaves": (3,)}])
def test_an_unvalidated_copy_does_not_reach_the_wire(field: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="Thing does not fit its schema"):
        thing_codec().encode(FULL.model_copy(update=field))


def test_more_than_32_bits_do_not_pass_as_int() -> None:
    with pytest.raises(ValidationError):
        Thing(id="x", at=1, short=2**31)


def test_hostile_versions_are_not_admitted() -> None:
    bomb = {"type": "record", "name": "Thing", "fields": [{"name": "x", "type": {"type": "array", "items": "null"}}]}
    with pytest.raises(SchemaError):
        thing_codec().admit(9, bomb)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A few changes after the frame: flipped bits, cuts, insertions, huge counts."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(5, len(out))
        match chance.randrange(4):
            case 0 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 1:
                del out[at:]
            case 2:
                out[at:at] = chance.randbytes(chance.randint(1, 8))
            case _:
                out[at:at] = b"\xfe" * chance.randint(1, 12) + b"\x01"
    return bytes(out)


@pytest.mark.parametrize("schema_id", [7, 8])
def test_damage_never_raises_anything_else(schema_id: int) -> None:
    codec = thing_codec()
    codec.admit(8, newer_schema())
    writer = codec if schema_id == 7 else Codec(NewerThing, newer_schema(), 8, SUBJECT, LIMIT)
    record = FULL if schema_id == 7 else NewerThing(**FULL.__dict__ | {"kind": NewerKind.ONE})
    data, chance = writer.encode(record), random.Random(20_000 + schema_id)
    refused = 0
    for _ in range(20_000):
        try:
            assert isinstance(codec.decode(damaged(data, chance)), Thing)
        except DecodeError:
            refused += 1
    assert refused > 10_000


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    for framed in (data, b"\0\0\0\0\x07" + data):
        with contextlib.suppress(DecodeError, UnknownSchemaId):
            thing_codec().decode(framed)


def test_codecs_take_ids_from_the_registry_and_admit_the_other_versions() -> None:
    models: dict[str, type[BaseModel]] = {SUBJECT: Thing, "ranged-value": Ranged}
    ids = {SUBJECT: {7: avro_schema(Thing), 8: newer_schema()}, "ranged-value": {9: avro_schema(Ranged)}}
    codecs = Codecs.build(models, ids, LIMIT, larger={"ranged-value": 2 * LIMIT})
    assert codecs.subjects() == (SUBJECT, "ranged-value")
    assert codecs.of("ranged-value").max_record_bytes == 2 * LIMIT
    assert codecs.of(SUBJECT).encode(FULL)[:5] == b"\0\0\0\0\x07"
    newer = Codec(NewerThing, newer_schema(), 8, SUBJECT, LIMIT)
    assert codecs.of(SUBJECT).decode(newer.encode(NewerThing(id="x", at=1))) == Thing(id="x", at=1)
    with pytest.raises(UnknownSchemaId):
        codecs.of(SUBJECT).decode(codecs.of("ranged-value").encode(Ranged(priority=1)))
    with pytest.raises(SchemaError, match="no codec"):
        codecs.of("other-value")


def test_a_model_without_an_id_names_the_next_command() -> None:
    with pytest.raises(SchemaError, match="not registered") as missing:
        Codecs.build({SUBJECT: Thing}, {SUBJECT: {8: newer_schema()}}, LIMIT)
    assert "topology apply" in missing.value.hint
