"""What a reference promises: the very bytes that were written, whole, and nothing outside of the data sets."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.catalog.datasets import DataRef, DatasetWriter, RecordTooLong, iso, micros, read_column, shown
from schemas.errors import InvalidInput

RECORDS = [{"at": "2020-01-01", "x": 1}, {"at": "2020-01-02", "x": None}, {"at": "2020-01-03", "x": 2.5, "ü": "ß"}]


def write(data_dir: Path, records: list[dict[str, object]], task_id: str = "t") -> DataRef:
    with DatasetWriter(data_dir, task_id) as dataset:
        for record in records:
            dataset.add(record)
        return dataset.commit()


def test_what_was_written_is_what_the_reference_says(tmp_path: Path) -> None:
    ref = write(tmp_path, RECORDS)
    content = (tmp_path / "datasets" / "t.jsonl").read_bytes()
    assert ref == DataRef(path="datasets/t.jsonl", rows=3, sha256=hashlib.sha256(content).hexdigest())
    assert [json.loads(line) for line in content.splitlines()] == RECORDS


def test_a_second_run_writes_the_same_bytes_in_the_same_place(tmp_path: Path) -> None:
    assert write(tmp_path, RECORDS) == write(tmp_path, RECORDS)
    assert [file.name for file in (tmp_path / "datasets").iterdir() if file.is_file()] == ["t.jsonl"]


def test_without_commit_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), DatasetWriter(tmp_path, "t") as dataset:
        dataset.add({"x": 1 / 0})
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_record_that_no_reader_takes_is_not_written(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, "t") as dataset:
        with pytest.raises(RecordTooLong, match="longer than 1048576 bytes"):
            dataset.add({"x": "ü" * (1 << 19)})
        dataset.add({"x": 1})
        ref = dataset.commit()
    assert (ref.rows, read_column(tmp_path, ref, "x").values.tolist()) == (1, [1.0])


def test_a_later_run_fences_off_an_earlier_one_and_removes_its_draft(tmp_path: Path) -> None:
    killed = DatasetWriter(tmp_path, "t")
    neighbour = DatasetWriter(tmp_path, "t.b")
    ref = write(tmp_path, RECORDS)
    with pytest.raises(RuntimeError, match="later run"), killed:
        killed.commit()
    with neighbour:
        assert neighbour.commit().rows == 0
    assert read_column(tmp_path, ref, "x").missing == 1
    assert list((tmp_path / "datasets" / ".drafts").iterdir()) == []


@pytest.mark.parametrize("task_id", ["a/b", "../x", "", "a" * 256, "a\0"])
def test_a_task_id_that_is_no_file_name_is_refused(tmp_path: Path, task_id: str) -> None:
    with pytest.raises(InvalidInput, match="cannot name a data set"):
        DatasetWriter(tmp_path, task_id)


def test_the_longest_task_ids_have_files_of_their_own(tmp_path: Path) -> None:
    first, second = (write(tmp_path, RECORDS, "i" * 254 + last) for last in "ab")
    assert first.path != second.path
    assert read_column(tmp_path, second, "x").values.tolist() == [1.0, 2.5]


def test_a_column_with_its_rows_and_times(tmp_path: Path) -> None:
    column = read_column(tmp_path, write(tmp_path, RECORDS), "x", "at")
    assert (column.values.tolist(), column.rows.tolist(), column.missing) == ([1.0, 2.5], [0, 2], 1)
    assert [iso(time) for time in column.times] == ["2020-01-01T00:00:00Z", "2020-01-03T00:00:00Z"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sha256": "0" * 64}, "has changed: sha256 is"),
        ({"rows": 4}, "has 3 rows, not 4"),
        ({"path": "datasets/none.jsonl"}, "does not exist here; ingest it first"),
        ({"path": "secret.jsonl"}, "lies outside of 'datasets'"),
        ({"path": "datasets/../secret.jsonl"}, "lies outside"),
        ({"path": "/etc/hostname"}, "lies outside"),
        ({"path": "datasets/link.jsonl"}, "lies outside"),
        ({"path": "datasets/loop"}, "cannot be read|does not exist"),
        ({"path": "datasets/" + "x" * 300}, "cannot be read|does not exist"),
        ({"path": "datasets/a\0b"}, "cannot be read"),
        ({"path": "datasets"}, "does not exist here"),
    ],
)
def test_a_reference_that_does_not_hold(tmp_path: Path, change: dict[str, object], text: str) -> None:
    ref = write(tmp_path, RECORDS)
    (tmp_path / "secret.jsonl").write_text('{"x": 1}\n')
    (tmp_path / "datasets" / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (tmp_path / "datasets" / "loop").symlink_to(tmp_path / "datasets" / "loop")
    with pytest.raises(InvalidInput, match=text):
        read_column(tmp_path, ref.model_copy(update=change), "x")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{", "Row 1 of .* is not JSON"),
        ("[1]", "Row 1 of .* is not a JSON object"),
        ('{"x": "1"}', "Row 1: field 'x' is 1, not a number"),
        ('{"x": true}', "Row 1: field 'x' is true, not a number"),
        ('{"x": NaN}', "not within"),
        ('{"x": 1e999}', "not within"),
        ('{"x": 1e151}', "not within"),
        ('{"x": 1}', "Row 1 has no time in the field 'at'; its fields are 'at', 'x'"),
        ('{"x": 1, "at": "soon"}', "Row 1: field 'at': 'soon' is not an ISO 8601 time"),
        ('{"x": "' + "x" * (1 << 20) + '"}', "more than 1048576 bytes"),
    ],
)
def test_rows_that_cannot_be_judged(tmp_path: Path, line: str, text: str) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "t.jsonl").write_text('{"at": 0, "x": 1}\n' + line + "\n")
    with pytest.raises(InvalidInput, match=text):
        read_column(tmp_path, DataRef(path="datasets/t.jsonl"), "x", "at")


def test_a_field_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"No row of .* has the field 'y'; its fields are 'at', 'x'"):
        read_column(tmp_path, write(tmp_path, RECORDS), "y")


@given(st.datetimes(timezones=st.timezones()))
def test_an_instant_survives_its_text(moment: datetime) -> None:
    since = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    try:
        text = iso(since)
    except ValueError:  # an offset can push the first and last hours of the calendar out of it
        return
    assert micros(text) == since == micros(since)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2012-03-04", datetime(2012, 3, 4, tzinfo=UTC)),
        ("2012/03/04", datetime(2012, 3, 4, tzinfo=UTC)),
        ("2012-03-04 05:06", datetime(2012, 3, 4, 5, 6, tzinfo=UTC)),
        ("2012-03-04T05:06:07.5Z", datetime(2012, 3, 4, 5, 6, 7, 500_000, tzinfo=UTC)),
        ("2012-03-04T05:06:07.123456789+02:00", datetime(2012, 3, 4, 3, 6, 7, 123_456, tzinfo=UTC)),
        ("2012-03-04 05:06:07-0330", datetime(2012, 3, 4, 5, 6, 7, tzinfo=timezone(timedelta(hours=-3.5)))),
    ],
)
def test_times_people_write(text: str, moment: datetime) -> None:
    assert micros(text) == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.mark.parametrize("text", ["", "20120304", "2012-3-4", "03/04/2012", "2012-13-01", "2012-02-30", "now", "12:00"])
def test_times_that_could_mean_anything(text: str) -> None:
    with pytest.raises(ValueError, match="is not an ISO 8601 time"):
        micros(text)


def test_instants_beyond_the_calendar() -> None:
    for instant in (10**18, -(10**18)):
        with pytest.raises(ValueError, match="outside of the years"):
            micros(instant)


def test_text_for_messages_is_short_and_printable() -> None:
    assert shown("x" * 100) == "x" * 80 + "…"
    assert shown(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf\\xe9"
    assert shown("half \ud800") == "half \\ud800"
    assert shown({"a": 1}) == '{"a": 1}'
