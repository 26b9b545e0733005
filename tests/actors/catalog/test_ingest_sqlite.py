"""A database as a source: one table or one SELECT, and no way out of the file."""

from __future__ import annotations

import sqlite3
import time
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.api import Context
from actors.catalog.ingest_data import ingest
from actors.catalog.ingest_form import IngestInput
from schemas.errors import InvalidInput, Overloaded
from tests.actors.catalog.ingesting import counts, finish, rejects

SHOP = """
CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, price REAL, at TEXT);
INSERT INTO items VALUES (3, 'pen', 1.5, '2020-01-02'), (1, 'cup', 4, '2020-01-01 10:00'), (9, NULL, NULL, NULL);
CREATE TABLE pairs (a TEXT, b TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
INSERT INTO pairs VALUES ('y', '2'), ('x', '1');
CREATE VIEW cheap AS SELECT name FROM items WHERE price < 2;
"""
FOREVER = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"


@pytest.fixture
def make(ctx: Context) -> Callable[[str], Path]:
    """Makes `shop.db` of a script."""

    def made(script: str) -> Path:
        path = ctx.sources_root / "shop.db"
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as database:
            database.executescript(script)
        return path

    return made


@pytest.fixture
def shop(make: Callable[[str], Path]) -> Path:
    return make(SHOP)


def test_a_table_in_the_order_of_its_rowids(ctx: Context, shop: Path) -> None:
    result, records = finish(ctx, source_url="shop.db", tables=["items"])
    assert records == [
        {"id": 1, "name": "cup", "price": 4.0, "at": "2020-01-01T10:00:00Z"},
        {"id": 3, "name": "pen", "price": 1.5, "at": "2020-01-02T00:00:00Z"},
        {"id": 9, "name": None, "price": None, "at": None},
    ]
    assert (result.source, result.tables[0].name, counts(result), result.notes) == ("sqlite", "items", (3, 3, 0), [])


def test_without_a_name_all_tables_are_taken_and_say_whose_a_row_is(ctx: Context, shop: Path) -> None:
    result, records = finish(ctx, source_url="shop.db")
    assert [(table.name, table.rows_mapped) for table in result.tables] == [("cheap", 1), ("items", 3), ("pairs", 2)]
    assert (records[0], records[-1]) == ({"_table": "cheap", "name": "pen"}, {"_table": "pairs", "a": "y", "b": 2})


@pytest.mark.parametrize(
    ("query", "parameters", "records"),
    [
        ("SELECT name FROM items WHERE price > ? ORDER BY 1", [1.4], [{"name": "cup"}, {"name": "pen"}]),
        ("SELECT name FROM items WHERE name = :n", {"n": "x' OR '1'='1"}, []),
        ("WITH c AS (SELECT price FROM items) SELECT sum(price) AS total FROM c", [], [{"total": 5.5}]),
        ("SELECT ? AS a, ? AS b, ? AS c", [True, None, 2**62], [{"a": 1, "b": None, "c": str(2**62)}]),
        ("VALUES (1, 2)", [], [{"column1": 1, "column2": 2}]),
        ("SELECT 9e999 AS big, 1 AS one", [], [{"big": "inf", "one": 1}]),
        ("SELECT name FROM items WHERE id = 1; -- the only statement", [], [{"name": "cup"}]),
    ],
)
def test_a_select_with_bound_parameters(
    ctx: Context, shop: Path, query: str, parameters: Any, records: list[dict[str, Any]]
) -> None:
    result, found = finish(ctx, source_url="shop.db", query=query, parameters=parameters)
    assert found == records
    assert result.tables[0].name == "query"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"query": "SELECT 1; DROP TABLE items"}, "one statement at a time"),
        ({"query": "DELETE FROM items"}, "may only select"),
        ({"query": "UPDATE items SET name = 'x' RETURNING name"}, "may only select"),
        ({"query": "ATTACH 'other.db' AS o"}, "may only select"),
        ({"query": "PRAGMA user_version"}, "may only select"),
        ({"query": "SELECT * FROM pragma_database_list"}, "may only select"),
        ({"query": "SELECT load_extension('x')"}, "may only select"),
        ({"query": "BEGIN"}, "may only select"),
        ({"query": "-- nothing"}, "is no SELECT"),
        ({"query": "SELEC"}, "syntax error"),
        ({"query": "SELECT * FROM none"}, "no such table: none"),
        ({"query": "SELECT ?", "parameters": []}, "Incorrect number of bindings"),
        ({"query": "SELECT ?", "parameters": [2**64]}, "too large"),
        ({"query": "SELECT :a", "parameters": {"b": 1}}, "cannot be read"),
        ({"query": "SELECT 1 AS a, 2 AS a"}, "the statement names 'a' more than once"),
        ({"query": "SELECT 1 LIMIT '" + "%a" * 10_000 + "'"}, "cannot be read"),
        ({"query": "SELECT 'a' LIKE '" + "%a" * 200 + "'"}, "LIKE or GLOB pattern too complex"),
        ({"query": "SELECT zeroblob(100000000)"}, "too big"),
        ({"query": "SELECT 1", "tables": ["a", "b"]}, "A 'query' makes one table"),
        ({"tables": ["none"]}, "has no table 'none'; it has 'cheap', 'items', 'pairs'"),
        ({"tables": ['items" UNION SELECT 1 --']}, "has no table"),
        ({"tables": ["sqlite_schema"]}, "has no table"),
        ({"tables": ["items"], "parameters": [1]}, "'parameters' belong to a 'query'"),
        ({"cursor": 1}, "'cursor' belongs to one table"),
        ({"tables": ["items"], "key_fields": ["no"]}, "'key_fields' names the column 'no'"),
        ({"query": FOREVER, "time_limit_seconds": 0.2}, "took longer to read than it may"),
    ],
)
def test_what_is_refused(ctx: Context, shop: Path, options: dict[str, Any], text: str) -> None:
    before = shop.read_bytes()
    with pytest.raises(InvalidInput, match=text):
        finish(ctx, source_url="shop.db", **options)
    assert shop.read_bytes() == before
    assert [file.name for file in ctx.sources_root.iterdir()] == ["shop.db"]
    assert list(ctx.data_dir.rglob("*.jsonl")) == []


def test_the_time_of_the_attempt_is_a_limit_too(ctx: Context, shop: Path) -> None:
    soon = replace(ctx, deadline_at=time.time_ns() // 1000 + 200_000)
    began = time.monotonic()
    with pytest.raises(InvalidInput, match="took longer to read"):
        finish(soon, source_url="shop.db", query=FOREVER)
    assert time.monotonic() - began < 20


def test_bad_rows_are_told_with_their_rowid(ctx: Context, make: Callable[[str], Path]) -> None:
    make(
        "CREATE TABLE t (a, b TEXT); INSERT INTO t (rowid, a, b) VALUES "
        "(10, 1, 'x'), (20, x'00ff', 'x'), (30, 3, CAST(x'e8' AS TEXT)), (40, 'four', 'x'), (50, 5, 'x')"
    )
    result, records = finish(ctx, source_url="shop.db", tables=["t"])
    assert records == [{"a": 1, "b": "x"}, {"a": 5, "b": "x"}]
    assert rejects(result) == [
        (2, 20, "a", "is binary data; leave its column out with a 'query'"),
        (3, 30, "b", "is not UTF-8"),
        (4, 40, "a", "is not a whole number of 64 bits"),
    ]
    assert [(each.value, each.line) for each in result.rejects_sample] == [
        ("2 bytes", None),
        ("\\xe8", None),
        ("four", None),
    ]


@pytest.mark.parametrize("columns", ["rowid, x", "_rowid_, rowid, x", "_rowid_, rowid, oid"])
def test_columns_that_hide_the_rowid(ctx: Context, make: Callable[[str], Path], columns: str) -> None:
    names = columns.split(", ")
    make(f"CREATE TABLE t ({columns}); INSERT INTO t VALUES ({', '.join('7' for _ in names)})")
    assert finish(ctx, source_url="shop.db", tables=["t"])[1] == [dict.fromkeys(names, 7)]


def test_pages_and_the_checksum_of_a_table(ctx: Context, shop: Path) -> None:
    first, records = finish(ctx, source_url="shop.db", tables=["items"], limit=1)
    second, more = finish(ctx, source_url="shop.db", tables=["items"], cursor=first.tables[0].cursor)
    assert [record["id"] for record in records + more] == [1, 3, 9]
    assert first.tables[0].checksum == second.tables[0].checksum
    with closing(sqlite3.connect(shop)) as database, database:
        database.execute("UPDATE items SET name = 'mug' WHERE id = 9")
    assert finish(ctx, source_url="shop.db", tables=["items"])[0].tables[0].checksum != first.tables[0].checksum


def test_both_readings_see_the_same_moment(ctx: Context, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(shop)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        told: list[float] = []

        def disturb(share: float, _note: str) -> None:
            told.append(share)
            with writer:
                writer.execute("INSERT INTO many VALUES ('new')")

        with writer:
            writer.execute("CREATE TABLE many (x)")
            writer.executemany("INSERT INTO many VALUES (?)", [(n,) for n in range(6000)])
        result, _ = finish(replace(ctx, send_progress=disturb), source_url="shop.db", tables=["many"])
    assert counts(result) == (6000, 6000, 0)
    assert (len(told), told[-1] > 0.5) == (2, True)


def test_files_that_are_no_database(ctx: Context, shop: Path) -> None:
    (ctx.sources_root / "text.db").write_text("not a database at all, but long enough to be read as one" * 20)
    (ctx.sources_root / "empty.sqlite").write_bytes(b"")
    (ctx.sources_root.parent / "out.db").write_bytes(shop.read_bytes())
    (ctx.sources_root / "link.db").symlink_to(ctx.sources_root.parent / "out.db")
    for name, text in (
        ("text.db", "file is not a database"),
        ("empty.sqlite", "has no table"),
        ("none.db", "is not a file in the sources folder"),
        ("../out.db", "lies outside"),
        ("link.db", "lies outside"),
        (".", "is not a file in the sources folder"),
    ):
        with pytest.raises(InvalidInput, match=text):
            finish(ctx, source_url=name, source_type="sqlite")
    with pytest.raises(InvalidInput, match="Give 'source_url'"):
        finish(ctx, source_type="sqlite")


def test_what_a_crashed_writer_left_is_not_touched(ctx: Context, shop: Path) -> None:
    with closing(sqlite3.connect(shop, isolation_level=None)) as writer:
        for statement in ("PRAGMA cache_size = 1", "BEGIN", "UPDATE items SET name = hex(zeroblob(90000))"):
            writer.execute(statement)
        left = {ctx.sources_root / f"left.db{end}": Path(f"{shop}{end}").read_bytes() for end in ("", "-journal")}
    for path, content in left.items():
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match="cannot be read"):
        finish(ctx, source_url="left.db", tables=["items"])
    assert {path: path.read_bytes() for path in left} == left


def test_a_view_cannot_call_what_a_query_may(ctx: Context, make: Callable[[str], Path]) -> None:
    make("CREATE VIEW v AS SELECT fts5_source_id() AS a")
    with pytest.raises(InvalidInput, match=r"unsafe use of|no such function"):
        finish(ctx, source_url="shop.db", tables=["v"])


def test_a_name_that_is_no_uri(ctx: Context, shop: Path) -> None:
    shop.rename(ctx.sources_root / "a?mode=rwc&b#%20 c.db")
    assert len(finish(ctx, source_url="a?mode=rwc&b#%20 c.db", tables=["pairs"])[1]) == 2


def test_a_database_that_a_writer_holds_is_tried_again(
    ctx: Context, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.catalog.sqlite_rows.BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(shop, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Overloaded, match="is locked by a writer"):
            finish(ctx, source_url="shop.db", tables=["items"])


def test_a_large_table_takes_little_memory(ctx: Context, make: Callable[[str], Path]) -> None:
    path = make("CREATE TABLE t (a INTEGER, b TEXT)")
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany("INSERT INTO t VALUES (?, ?)", ((n, "x" * 300) for n in range(20_000)))
    tracemalloc.start()
    result = ingest(IngestInput(source_url="shop.db"), ctx)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts(result) == (20_000, 20_000, 0)
    assert peak < 3_000_000 < path.stat().st_size
