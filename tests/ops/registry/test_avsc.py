"""Files of schemas: a new number only for a new schema, the same text each time, the numbers usable as ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, create_model

from ops.registry.avsc import avsc_text, read_avsc, write_avsc
from schemas.avro import avro_schema
from schemas.codec import Codecs
from schemas.errors import SchemaError

SUBJECT = "things-value"


class Thing(BaseModel):
    """Ünïcode is kept."""

    id: str


def test_numbers_grow_only_with_change(tmp_path: Path) -> None:
    assert read_avsc(tmp_path / "missing") == {}
    assert write_avsc({SUBJECT: Thing}, tmp_path) == [tmp_path / SUBJECT / "1.avsc"]
    assert write_avsc({SUBJECT: Thing}, tmp_path) == []
    newer = create_model("Thing", __base__=Thing, note=(str | None, None))
    assert write_avsc({SUBJECT: newer}, tmp_path) == [tmp_path / SUBJECT / "2.avsc"]
    assert write_avsc({SUBJECT: Thing}, tmp_path) == [tmp_path / SUBJECT / "3.avsc"]
    assert read_avsc(tmp_path) == {SUBJECT: {1: avro_schema(Thing), 2: avro_schema(newer), 3: avro_schema(Thing)}}


def test_versions_are_ordered_as_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 2):
        path = tmp_path / SUBJECT / f"{number}.avsc"
        path.parent.mkdir(exist_ok=True)
        path.write_text(avsc_text(avro_schema(Thing)), encoding="utf-8")
    assert list(read_avsc(tmp_path)[SUBJECT]) == [2, 9, 10]


def test_text_is_stable_and_readable(tmp_path: Path) -> None:
    [path] = write_avsc({SUBJECT: Thing}, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert text == avsc_text(avro_schema(Thing))
    assert text.startswith('{\n  "type": "record",\n') and text.endswith("}\n")
    assert '"doc": "Ünïcode is kept."' in text


def test_numbers_serve_as_ids_without_a_registry(tmp_path: Path) -> None:
    write_avsc({SUBJECT: Thing}, tmp_path)
    codec = Codecs.build({SUBJECT: Thing}, read_avsc(tmp_path), 1000).of(SUBJECT)
    assert codec.encode(Thing(id="x")) == b"\0\0\0\0\x01\x02x"


@pytest.mark.parametrize(("name", "text"), [("1.avsc", "{"), ("one.avsc", "{}"), ("1.avsc", "3"), ("0.avsc", "{}")])
def test_a_wrong_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / SUBJECT).mkdir()
    (tmp_path / SUBJECT / name).write_text(text)
    with pytest.raises(SchemaError, match=name):
        read_avsc(tmp_path)
