"""The law of the three sources: the same rows give the same data set, byte for byte, whatever file they come in."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.api import Context
from tests.actors.catalog.ingesting import finish, rejects

NAMES = ["a", "b", "c"]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.sampled_from(
        ["", "007", "1", "-2.5", "1e3", "true", "No", "2020-01-02", "2020/01/02 03:04", "9" * 20, "NA", "[1]"]
    ),
)
NATIVE = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.none(), TEXTS)
MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows_of(cells: st.SearchStrategy[Any]) -> st.SearchStrategy[list[list[Any]]]:
    return st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=8)


def ingested(ctx: Context, rows: list[list[Any]], **options: Any) -> list[Any]:
    """Per kind of source: the checksum of the data set, the rejects without their place in the file, the notes."""
    with tempfile.TemporaryDirectory() as folder:
        own = replace(ctx, data_dir=Path(folder, "data"), sources_root=Path(folder))
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_ALL).writerows(
            [NAMES, *[["" if c is None else _text(c) for c in row] for row in rows]]
        )
        Path(folder, "t.csv").write_text(text.getvalue(), newline="")
        Path(folder, "t.jsonl").write_text(
            "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in rows)
        )
        with closing(sqlite3.connect(Path(folder, "t.db"))) as database, database:
            database.execute("CREATE TABLE t (a, b, c)")
            database.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        found = []
        for name in ("t.csv", "t.jsonl", "t.db"):
            result, records = finish(own, source_url=name, **options)
            found.append(
                (
                    result.data_ref.sha256,
                    [(row, field, why) for row, _, field, why in rejects(result)],
                    result.notes,
                    len(records),
                )
            )
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


@MANY
@given(rows=rows_of(TEXTS))
def test_text_is_guessed_alike(ctx: Context, rows: list[list[str]]) -> None:
    of_csv, of_json, of_sqlite = ingested(ctx, rows)
    assert of_csv == of_json == of_sqlite


@MANY
@given(
    rows=rows_of(NATIVE),
    kinds=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["int", "float", "str", "bool"])),
)
def test_values_with_a_type_of_their_own_are_read_alike(
    ctx: Context, rows: list[list[Any]], kinds: dict[str, str]
) -> None:
    of_csv, of_json, of_sqlite = ingested(ctx, rows, types=kinds)
    assert of_csv == of_json == of_sqlite


@pytest.mark.parametrize(
    ("options", "records"), [({}, 2), ({"limit": 1}, 1), ({"cursor": 1}, 1), ({"null_values": ["", "1"]}, 2)]
)
def test_options_mean_the_same(ctx: Context, options: dict[str, Any], records: int) -> None:
    found = ingested(ctx, [[1, "x", None], [2, "y", 0.5]], rename={"a": "id"}, key_fields=["b"], **options)
    assert found[0] == found[1] == found[2]
    assert found[0][-1] == records
