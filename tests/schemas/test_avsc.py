"""The checked-in schema files: the newest is the record as it is, and whoever holds an older one can read on."""

from __future__ import annotations

import pytest

from ops.registry.__main__ import DIRECTORY
from ops.registry.avsc import read_avsc
from schemas.avro import avro_schema
from schemas.registry import SchemaView
from topology import troupe

FILES = read_avsc(DIRECTORY)
MODELS = troupe().models()


def test_every_record_has_files_and_every_file_a_record() -> None:
    assert set(FILES) == set(MODELS)


@pytest.mark.parametrize("subject", sorted(MODELS))
def test_the_newest_file_is_the_record(subject: str) -> None:
    versions = FILES[subject]
    assert list(versions) == list(range(1, len(versions) + 1))
    assert versions[len(versions)] == avro_schema(MODELS[subject]), "write the next file: python -m ops.registry"


@pytest.mark.parametrize("subject", sorted(FILES))
def test_each_file_is_safe_and_may_follow_all_before_it(subject: str) -> None:
    view = SchemaView()
    for schema in FILES[subject].values():
        assert view.problems(subject, schema) == []
        key, value, _ = view.next_entry(subject, schema)
        view.apply(key, value)
