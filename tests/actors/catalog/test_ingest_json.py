"""JSON lines as services log and export them: names that come and go, objects in objects, lines that are none."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.api import Context
from actors.catalog.ingest_data import ingest
from actors.catalog.ingest_form import IngestInput
from actors.catalog.json_rows import JsonRows
from schemas.errors import InvalidInput
from tests.actors.catalog.ingesting import Records, counts, finish, of_file, rejects


def records(ctx: Context, text: str | bytes, **options: Any) -> Records:
    return of_file(ctx, "file.jsonl", text, **options)[1]


def test_columns_are_the_names_of_all_lines_in_the_order_of_their_first(ctx: Context) -> None:
    text = '{"b": 1}\n\n{"a": "x", "b": null}\r\n{"c": true, "b": 2.5}'
    result, found = of_file(ctx, "file.jsonl", text)
    assert found == [
        {"b": 1.0, "a": None, "c": None},
        {"b": None, "a": "x", "c": None},
        {"b": 2.5, "a": None, "c": True},
    ]
    assert (list(found[0]), counts(result), result.source) == (["b", "a", "c"], (3, 3, 0), "json")


@pytest.mark.parametrize(
    ("line", "record"),
    [
        ('{"a": {"b": {"c": 1}, "d": "x"}}', {"a.b.c": 1, "a.d": "x"}),
        ('{"a": {}}', {"a": None}),
        ('{"a": [1, 2.50, "x\\"", null, {"b": [true]}]}', {"a": '[1,2.50,"x\\"",null,{"b":[true]}]'}),
        ('{"n": 12345678901234567890123}', {"n": "12345678901234567890123"}),
        ('{"n": 9007199254740993}', {"n": 9007199254740993}),
        ('{"n": 1E2}', {"n": 100.0}),
        ('{"t": "2020-01-02T03:04:05+01:00"}', {"t": "2020-01-02T02:04:05Z"}),
        ('{"z": "01234"}', {"z": "01234"}),
        ('{"s": "Z\\u00fcrich \\ud83d\\ude00"}', {"s": "Zürich 😀"}),
        ('\ufeff{"s": "mark of an editor"}', {"s": "mark of an editor"}),
        ('{"s": "a\\nb\\u0000"}', {"s": "a\nb\0"}),
        ("{}", {}),
    ],
)
def test_values_as_they_are_meant(ctx: Context, line: str, record: dict[str, Any]) -> None:
    assert records(ctx, line) == [record]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": 1', "is not JSON: Expecting ',' delimiter at column 8"),
        ("null", "is not a JSON object"),
        ('"text"', "is not a JSON object"),
        ('{"a": NaN}', "has NaN, which is no JSON number"),
        ('{"a": -Infinity}', "has -Infinity, which is no JSON number"),
        ('{"a": 1, "a": 2}', "names 'a' twice in one object"),
        ('{"a": {"b": 1}, "a.b": 2}', "names 'a.b' twice: as a field, and as a field within an object"),
        ('{"": 1}', "has a name that is empty, no UTF-8 or of more than 500 characters"),
        ('{"\\ud800": 1}', "has a name that is empty, no UTF-8 or of more than 500 characters"),
        ('{"a": "\\ud800"}', "is not UTF-8"),
        ('{"a": "Gen\udce8ve"}', "is not UTF-8"),
        ('{"' + "x" * 501 + '": 1}', "has a name that is empty, no UTF-8 or of more than 500 characters"),
        ('{"' + "x" * 501 + '": {"a": 1}}', "has a name of more than 500 characters"),
        ('{"a": "' + "x" * 131_073 + '"}', "is longer than 131072 characters"),
        ('{"a": "' + "x" * (1 << 20) + '"}', "line is longer than 1048576 characters"),
        (json.dumps({f"c{n}": n for n in range(2001)}), "has more than 2000 fields"),
        ('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", "is nested too deeply"),
    ],
)
def test_a_line_that_is_none_is_an_error_of_its_own(ctx: Context, line: str, reason: str) -> None:
    text = f'{{"a": 1}}\n{line}\n{{"a": 2}}\n'.encode("utf-8", "surrogateescape")
    result, found = of_file(ctx, "file.jsonl", text)
    assert found == [{"a": 1}, {"a": 2}]
    assert [(row, at, why) for row, at, _, why in rejects(result)] == [(2, 2, reason)]


def test_a_value_that_cannot_be_kept_names_its_field(ctx: Context) -> None:
    result, _ = of_file(ctx, "file.jsonl", '{"a": 1, "b": "\\udfff"}', rename={"b": "city"})
    assert rejects(result) == [(1, 1, "city", "is not UTF-8")]
    assert result.rejects_sample[0].value == "\\udfff"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'[{"a": 1}, {"a": 2}]', "one JSON document and not JSON lines; .* `jq -c"),
        (b'{\n  "a": 1\n}\n', "one JSON document and not JSON lines"),
        ('{"a": 1}\n'.encode("utf-16"), "is not UTF-8 text"),
        (gzip.compress(b'{"a": 1}\n', mtime=0), "is not UTF-8 text; convert or unpack"),
        ("".join(f'{{"c{n}": 1}}\n' for n in range(2001)).encode(), "name more than 2000 fields; are there ids"),
        (b'{"a": 1}\n', "'types' names the column 'b'; the columns are 'a'"),
    ],
)
def test_files_that_are_no_json_lines(ctx: Context, content: bytes, text: str) -> None:
    options = {"types": {"b": "int"}} if "types" in text else {}
    with pytest.raises(InvalidInput, match=text):
        records(ctx, content, **options)
    assert list(ctx.data_dir.rglob("*.jsonl")) == []


def test_types_names_and_keys_as_in_csv(ctx: Context) -> None:
    text = '{"id": 7, "at": {"x": "5"}}\n{"at": {"x": "6"}}\n{"id": 8, "at": {"x": "six"}}\n'
    options = {"types": {"key": "str", "x": "int"}, "rename": {"id": "key", "at.x": "x"}, "key_fields": ["key"]}
    result, found = of_file(ctx, "file.jsonl", text, **options)
    assert found == [{"key": "7", "x": 5}]
    assert rejects(result) == [
        (2, 2, "key", "is a key field and has no value"),
        (3, 3, "x", "is not a whole number of 64 bits"),
    ]


def test_a_page_has_the_columns_of_the_whole_file(ctx: Context) -> None:
    text = '{"a": 1}\n{"a": 2}\n{"b": 3}\n'
    first, found = of_file(ctx, "file.jsonl", text, limit=1)
    assert found == [{"a": 1, "b": None}]
    second, found = of_file(ctx, "file.jsonl", text, cursor=first.tables[0].cursor)
    assert found == [{"a": 2, "b": None}, {"a": None, "b": 3}]
    assert first.tables[0].checksum == second.tables[0].checksum


def test_empty_text_folders_and_the_text_itself(ctx: Context) -> None:
    assert of_file(ctx, "empty.jsonl", "")[0].notes == ["'empty' has no rows"]
    assert finish(ctx, jsonl='{"a": 1}\n')[1] == [{"a": 1}]
    (ctx.sources_root / "shop").mkdir()
    for name, n in (("items", 1), ("orders", 2)):
        (ctx.sources_root / "shop" / f"{name}.ndjson").write_text(f'{{"n": {n}}}')
    found = finish(ctx, source_url="shop", source_type="json")[1]
    assert found == [{"_table": "items", "n": 1}, {"_table": "orders", "n": 2}]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"csv": "a\n", "source_type": "json"}, "given as csv, and the source is said to be json"),
        ({"jsonl": "{}", "csv": "a\n"}, "given as csv, and the source is said to be json"),
        ({"jsonl": "{}", "source_url": "x.jsonl"}, "either 'source_url' .* or 'jsonl'"),
        ({"jsonl": "{}", "query": "SELECT 1"}, "belong to an sqlite source"),
    ],
)
def test_what_the_caller_must_change(ctx: Context, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        finish(ctx, **options)


def test_a_large_file_takes_little_memory(ctx: Context) -> None:
    with (ctx.sources_root / "file.jsonl").open("w") as file:
        for number in range(20_000):
            file.write(json.dumps({"id": number, "text": "x" * 300, "in": {"side": number / 7}}) + "\n")
    tracemalloc.start()
    result = ingest(IngestInput(source_url="file.jsonl"), ctx)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts(result) == (20_000, 20_000, 0)
    assert peak < 3_000_000 < (ctx.sources_root / "file.jsonl").stat().st_size


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(content: bytes) -> None:
    rows = JsonRows(io.BytesIO(b'{"a": 1}\n' + content), "x")
    for row in rows:
        assert row.reason or len(row.cells) <= len(rows.header)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abc"),
            st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
        ),
        max_size=8,
    )
)
def test_what_json_writes_is_what_is_read(lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    rows = JsonRows(io.BytesIO(text.encode()), "x")
    for line, row in zip(lines, rows, strict=True):
        given = {name: value for name, value in line.items() if value is not None}
        found = {name: cell for name, cell in zip(rows.header, row.cells, strict=False) if cell is not None}
        assert found == {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
        assert not row.reason


def test_a_record_can_be_too_long_though_its_line_is_not(ctx: Context) -> None:
    names = [f"{number:04}" + "ü" * 496 for number in range(1_900)]
    lines = [json.dumps(dict.fromkeys(half, 1), ensure_ascii=False) for half in (names[:950], names[950:])]
    result, found = of_file(ctx, "file.jsonl", "\n".join(lines))
    assert (found, rejects(result)[1]) == ([], (2, 2, None, "is longer than 1048576 bytes as a record"))
