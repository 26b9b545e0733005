"""Every row ends as a typed record or as a counted error; files as people really export them."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.api import Context
from actors.catalog import sources
from actors.catalog.csv_rows import CsvRows
from actors.catalog.ingest_form import IngestInput, IngestResult
from schemas.errors import InvalidInput
from tests.actors.catalog.ingesting import Records, counts, finish, of_file


def run(ctx: Context, text: str | bytes, **options: Any) -> tuple[IngestResult, Records]:
    """Ingest a CSV file of that content; the result and the records."""
    return of_file(ctx, "file.csv", text, **options)


def test_types_come_from_the_data_and_a_bad_row_is_an_error(ctx: Context) -> None:
    text = (
        "id,price,on,at,code,name\n"
        "1,2.5,true,2020-01-01,007,a\n2,3,FALSE,2020/01/02 03:04,008,\n3,much,true,2020-01-03,9,c\n"
    )
    result, records = run(ctx, text)
    assert counts(result) == (3, 2, 1)
    assert records == [
        {"id": 1, "price": 2.5, "on": True, "at": "2020-01-01T00:00:00Z", "code": "007", "name": "a"},
        {"id": 2, "price": 3.0, "on": False, "at": "2020-01-02T03:04:00Z", "code": "008", "name": None},
    ]
    (reject,) = result.rejects_sample
    assert reject.model_dump() == {
        "table": "file", "row": 3, "line": 4, "rowid": None,
        "field": "price", "value": "much", "reason": "is not a finite number",
    }  # fmt: skip
    assert "'price' was read as float" in result.notes[0]


def test_given_types_hold(ctx: Context) -> None:
    options = {"types": {"a": "str", "b": "bool", "c": "int"}}
    result, records = run(ctx, "a,b,c\n1,yes,5\n2,0,5.5\n3,maybe,6\n4,n,99999999999999999999\n", **options)
    assert records == [{"a": "1", "b": True, "c": 5}]
    assert [(reject.row, reject.field, reject.reason) for reject in result.rejects_sample] == [
        (2, "c", "is not a whole number of 64 bits"),
        (3, "b", "is neither true nor false"),
        (4, "c", "is not a whole number of 64 bits"),
    ]
    assert result.notes == []


@pytest.mark.parametrize("cell", ["inf", "nan", "1e999", "1_000", "٣", "0x10", "1,5"])
def test_numbers_that_are_none(ctx: Context, cell: str) -> None:
    result, _ = run(ctx, f'x\n1.5\n"{cell}"\n', types={"x": "float"})
    assert counts(result) == (2, 1, 1)


def test_a_number_that_json_readers_would_change_keeps_its_column_text(ctx: Context) -> None:
    assert run(ctx, "x\n1\n12345678901234567890\n")[1] == [{"x": "1"}, {"x": "12345678901234567890"}]


def test_names_are_renamed_first(ctx: Context) -> None:
    options = {"rename": {"a": "id"}, "types": {"id": "str"}, "key_fields": ["id"]}
    result, records = run(ctx, "a,b\n1,2\n,3\n", **options)
    assert records == [{"id": "1", "b": 2}]
    assert result.rejects_sample[0].reason == "is a key field and has no value"


def test_words_for_nothing(ctx: Context) -> None:
    assert run(ctx, "x,y\nNA,1\n2,\n", null_values=["", "NA"])[1] == [{"x": None, "y": 1}, {"x": 2, "y": None}]


def test_too_many_and_too_few_columns(ctx: Context) -> None:
    result, records = run(ctx, "a,b\n1,2\n1\n1,2,3\n\n3,4\n")
    assert records == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert [(reject.row, reject.line, reject.value, reject.reason) for reject in result.rejects_sample] == [
        (2, 3, "1", "has 1 columns, the header has 2"),
        (3, 4, "1,2,3", "has 3 columns, the header has 2"),
    ]


def test_mark_of_spreadsheets_line_ends_and_quoted_newlines(ctx: Context) -> None:
    _, records = run(ctx, '\ufeffa,b\r\n"x\r\ny",1\r\n"say ""hi""",2'.encode())
    assert records == [{"a": "x\r\ny", "b": 1}, {"a": 'say "hi"', "b": 2}]


def test_bytes_that_are_no_utf8_spoil_their_row_only(ctx: Context) -> None:
    result, records = run(ctx, b"name,n\nZ\xc3\xbcrich,1\nGen\xe8ve,2\n")
    assert records == [{"name": "Zürich", "n": 1}]
    assert (result.rejects_sample[0].reason, result.rejects_sample[0].value) == ("is not UTF-8", "Gen\\xe8ve")


def test_an_open_quote_is_an_error_that_says_how_far_it_went(ctx: Context) -> None:
    result, records = run(ctx, 'a,b\n1,2\n3,"4\n5,6\n7,8\n')
    assert records == [{"a": 1, "b": 2}]
    assert (result.rejects_sample[0].row, result.rejects_sample[0].line) == (2, 5)
    assert result.rejects_sample[0].reason == "unexpected end of data (lines 3 to 5)"


def test_cells_and_lines_over_the_limit(ctx: Context) -> None:
    cell, line = "x" * 200_000, "y" * (5 << 20)
    result, records = run(ctx, f"a\n1\n{cell}\n2\n{line}\n3\n")
    assert records == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [(reject.row, reject.line) for reject in result.rejects_sample] == [(2, 3), (4, 5)]
    assert [reject.reason for reject in result.rejects_sample] == [
        "field larger than field limit (131072)",
        "line is longer than 1048576 characters",
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "'file' is empty; its first line must name the columns"),
        (b"\n\n", "is empty"),
        (b"a,b,a\n1,2,3\n", "names 'a' more than once"),
        ("a,b\n1,2\n".encode("utf-16"), "the header is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "the header is not UTF-8"),
        (b'"a\n1', "the header cannot be read"),
        (b",".join(b"c%d" % place for place in range(2001)), "has 2001 columns, the most is 2000"),
    ],
)
def test_files_that_are_no_table(ctx: Context, content: bytes, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        run(ctx, content)
    assert list(ctx.data_dir.rglob("*.jsonl")) == []


def test_columns_without_a_name_get_one(ctx: Context) -> None:
    assert run(ctx, ",b,\n1,2,3\n")[1] == [{"column_1": 1, "b": 2, "column_3": 3}]


def test_only_a_header(ctx: Context) -> None:
    result, records = run(ctx, "a,b\n")
    assert (records, counts(result), result.notes) == ([], (0, 0, 0), ["'file' has no rows after its header"])


def test_another_delimiter_is_asked_for(ctx: Context) -> None:
    assert "should 'delimiter' be another one?" in run(ctx, "a;b\n1;2\n")[0].notes[0]
    assert run(ctx, "a;b\n1;2\n", delimiter=";")[1] == [{"a": 1, "b": 2}]


def test_errors_are_all_counted_and_some_are_shown(ctx: Context) -> None:
    result, _ = run(ctx, "a,b\n1,2\n" + "1\n" * 500)
    assert counts(result) == (501, 1, 500)
    assert len(result.rejects_sample) == 20
    assert result.notes[-1] == "500 rows were rejected; the first 20 are shown"


def test_limit_and_cursor_go_on_where_the_last_call_ended(ctx: Context) -> None:
    text = "a\n1\n2\n3\n4\n5\n"
    first, records = run(ctx, text, limit=2)
    assert (records, first.tables[0].cursor) == ([{"a": 1}, {"a": 2}], 2)
    second, records = run(ctx, text, cursor=first.tables[0].cursor, limit=10)
    assert (records, second.tables[0].cursor) == ([{"a": 3}, {"a": 4}, {"a": 5}], 5)
    assert first.tables[0].checksum == second.tables[0].checksum
    assert run(ctx, text, cursor=5)[0].notes == ["'file' has no rows after row 5"]


def test_a_folder_is_a_source_of_many_tables(ctx: Context) -> None:
    (ctx.sources_root / "shop").mkdir()
    (ctx.sources_root / "shop" / "orders.csv").write_text("n\n1\n")
    (ctx.sources_root / "shop" / "items.csv").write_text("n\nx\n")
    result, records = finish(ctx, source_url="shop")
    assert [table.name for table in result.tables] == ["items", "orders"]
    assert records == [{"_table": "items", "n": "x"}, {"_table": "orders", "n": 1}]
    assert finish(ctx, source_url="shop", tables=["orders"])[1] == [{"n": 1}]
    for options in ({"tables": ["none"]}, {"tables": ["../../x"]}, {"cursor": 1}):
        with pytest.raises(InvalidInput, match=r"has no file|outside|one table"):
            finish(ctx, source_url="shop", **options)


def test_the_text_itself_and_the_form_of_a_start(ctx: Context) -> None:
    assert finish(ctx, csv="a\n1\n")[0].tables[0].name == "inline"
    config = {"csv": "a\n1\n", "tables": ["t"], "credentials": {"username": "u", "password": "p"}}
    result, records = finish(ctx, operation="RunIngestion", source="csv", config=config)
    assert (records, result.source, result.tables[0].name, result.entities_added) == ([{"a": 1}], "csv", "t", 0)
    assert result.notes == ["A csv source needs no credentials; they were not used"]


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (
            {"source_type": "murex", "csv": "a\n"},
            "unsupported",
            "Source type 'murex' is not supported; supported: csv, json, sqlite",
        ),
        ({"operation": "Fly", "csv": "a\n"}, "unsupported", "'Fly' is not one of Ingest, RunIngestion"),
        ({"source_url": "http://x/y.csv"}, "unsupported", "a path below the sources folder"),
        ({}, "invalid_input", "Give either 'source_url'"),
        ({"csv": "a\n", "source_url": "x"}, "invalid_input", "Give either 'source_url'"),
        ({"csv": "a\n", "delimiter": '"'}, "invalid_input", "cannot be a quote"),
        ({"csv": "a\n", "tables": ["x", "y"]}, "invalid_input", "one table"),
        (
            {"csv": "a,b\n", "types": {"c": "int"}},
            "invalid_input",
            "'types' names the column 'c'; the columns are 'a', 'b'",
        ),
        ({"csv": "a,b\n", "rename": {"c": "d"}}, "invalid_input", "'rename' names the column 'c'"),
        ({"csv": "a,b\n", "rename": {"a": "b"}}, "invalid_input", "columns 'b' occur more than once"),
        ({"csv": "a,b\n", "key_fields": ["c"]}, "invalid_input", "'key_fields' names the column 'c'"),
        ({"source_url": "none.csv"}, "invalid_input", "is not a file in the sources folder"),
        ({"source_url": "../secret.csv"}, "invalid_input", "lies outside of the sources folder"),
        ({"source_url": "/etc/hostname"}, "invalid_input", "lies outside of the sources folder"),
        ({"source_url": "link.csv"}, "invalid_input", "lies outside of the sources folder"),
        ({"source_url": "pipe.csv"}, "invalid_input", "is not a file or folder"),
        ({"source_url": "a\0b"}, "invalid_input", "cannot be read"),
        ({"source_url": "empty"}, "invalid_input", "has no .csv file"),
    ],
)
def test_what_the_caller_must_change(ctx: Context, options: dict[str, Any], code: str, text: str) -> None:
    (ctx.sources_root.parent / "secret.csv").write_text("a\n1\n")
    (ctx.sources_root / "link.csv").symlink_to(ctx.sources_root.parent / "secret.csv")
    (ctx.sources_root / "empty").mkdir()
    os.mkfifo(ctx.sources_root / "pipe.csv")
    with pytest.raises(InvalidInput, match=text) as caught:
        finish(ctx, **options)
    assert caught.value.code == code


@pytest.mark.parametrize("given", ["none.csv", "none.db", "../secret.csv"])
def test_a_file_that_is_not_among_the_sources_is_told_where_they_are(ctx: Context, given: str) -> None:
    with pytest.raises(InvalidInput, match="setting 'sources_root'") as caught:
        finish(ctx, source_url=given)
    assert f"the sources folder {ctx.sources_root.resolve()}" in str(caught.value)


def test_a_word_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        IngestInput.model_validate({"csv": "a\n", "tabels": ["x"]})


def test_a_file_that_changes_while_it_is_read_is_tried_again(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ctx.sources_root / "file.csv"
    path.write_text("a\n1\n")
    opened = 0

    class Growing(CsvRows):
        def __init__(self, *arguments: Any) -> None:
            nonlocal opened
            opened += 1
            if opened == 2:
                path.write_text("a\n1\n2\n")
            super().__init__(*arguments)

    monkeypatch.setattr(sources, "CsvRows", Growing)
    with pytest.raises(RuntimeError, match="changed while it was read"):
        finish(ctx, source_url="file.csv")
    assert list(ctx.data_dir.rglob("*.jsonl")) == []


def test_a_second_run_gives_the_same_bytes_and_another_task_its_own(ctx: Context) -> None:
    first, _ = run(ctx, "a,b\n1,x\n2,y\n")
    second, _ = run(ctx, "a,b\n1,x\n2,y\n")
    other, _ = run(replace(ctx, task_id="task-2"), "a,b\n1,x\n2,y\n")
    assert first == second
    assert (other.data_ref.sha256, other.data_ref.path) == (first.data_ref.sha256, "datasets/task-2.jsonl")


def test_long_files_report_how_far_they_are(ctx: Context, progress: list[tuple[float, str]]) -> None:
    run(ctx, "a\n" + "1\n" * 12_000)
    shares = [share for share, _ in progress]
    assert shares == sorted(shares)
    assert 0 < shares[0] <= 0.5 < shares[-1] <= 1
    assert progress[-1][1] == "row 10000"


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=2, max_size=2), max_size=9
    )
)
def test_what_a_csv_writer_writes_is_what_is_read(cells: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *cells])
    rows = list(CsvRows(io.BytesIO(text.getvalue().encode()), "x"))
    assert [row.cells for row in rows] == cells
    assert not any(row.reason for row in rows)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(content: bytes) -> None:
    try:
        rows = CsvRows(io.BytesIO(b"a,b\n" + content), "x")
    except InvalidInput:
        return
    for row in rows:
        assert row.reason or len(row.cells) == 2


def test_the_shipped_example_is_whole(ctx: Context) -> None:
    example = Path(__file__).parents[3] / "ops" / "examples" / "data" / "us-employment.csv"
    result, records = run(ctx, example.read_bytes())
    assert counts(result) == (120, 120, 0)
    assert (records[0]["month"], records[0]["nonfarm"], records[-1]["month"]) == (
        "2006-01-01T00:00:00Z", 135450, "2015-12-01T00:00:00Z",
    )  # fmt: skip
