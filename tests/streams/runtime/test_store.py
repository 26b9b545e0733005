"""How a changelog is read back: whole batches at their place, strays ignored and remembered, rows indexed by time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import rocksdict

from schemas.changelog import HEADER_KEY, ChangelogHeader, InputOffset
from streams.runtime.expiry import FINISHED_HEADER, expiry_bytes, expiry_of
from streams.runtime.partition import ChangelogRecord
from streams.runtime.replay import OtherLog, Replay
from streams.runtime.store import (
    OFFSET_KEY,
    _flaw,
    discard,
    drop_row,
    finished_row,
    is_damage,
    leaving,
    open_rows,
    put_row,
    stored_row,
    sweep,
)
from tests.streams.runtime.tally import Stand, Sum


def batch(stand: Stand, base: int, rows: dict[str, Sum | None], asked: int, finished: int | None = None) -> None:
    """One batch at the end of the changelog whose writer expected it at `base`."""
    headers = () if finished is None else ((FINISHED_HEADER, expiry_bytes(finished)),)
    records = [ChangelogRecord(key.encode(), row and stand.rows.encode(row), headers) for key, row in rows.items()]
    inputs = [InputOffset(topic="asked", offset=asked)]
    header = ChangelogHeader(base=base, count=len(records), instance="me", seq=1, inputs=inputs)
    stand.append(0, [*records, ChangelogRecord(HEADER_KEY, stand.headers.encode(header))])


def replayed(stand: Stand) -> Any:
    store = stand.store()
    for message in stand.changelog[0]:
        store.apply(message)
    return store


def row(version: int, cause: str = "c") -> Sum:
    return Sum(version=version, cause=cause, key="t")


def read(stand: Stand, key: str = "t") -> Sum | None:
    value, _ = stored_row(stand.database(0), key.encode())
    found: Sum | None = None if value is None else stand.rows.decode(value)
    return found


def test_a_batch_at_its_place_is_taken_whole(stand: Stand) -> None:
    batch(stand, 0, {"t": row(1), "u": row(1)}, asked=4)
    store = replayed(stand)
    assert read(stand) == row(1) and read(stand, "u") == row(1)
    assert stand.headers.decode(stand.database(0)[HEADER_KEY]).inputs[0].offset == 4
    assert stand.database(0)[OFFSET_KEY] == b"2" and not store.replays[0].losers


def test_a_stray_is_ignored_and_its_keys_are_losers(stand: Stand) -> None:
    """The new owner timed the task out (asked 4); then the old one's batch lands, decided on the row before that.

    By version the old one's row would lose but its header would say that asked 5 is done: it would never be stepped.
    """
    batch(stand, 0, {"t": row(2, "in.9")}, asked=4)
    batch(stand, 2, {"t": row(3, "wake.2")}, asked=4)
    batch(stand, 2, {"t": row(3, "asked.5")}, asked=5)
    store = replayed(stand)
    assert read(stand) == row(3, "wake.2")
    assert stand.headers.decode(stand.database(0)[HEADER_KEY]).inputs[0].offset == 4
    assert store.replays[0].losers == {b"t", HEADER_KEY} and store.replays[0].strays == 1
    assert stand.database(0)[OFFSET_KEY] == b"3", "before the first stray, until the winner is appended again"


def test_a_winner_that_was_appended_again_is_no_loser(stand: Stand) -> None:
    batch(stand, 0, {"t": row(1)}, asked=1)
    batch(stand, 0, {"t": row(2, "stray")}, asked=2)
    batch(stand, 4, {"t": row(1)}, asked=1)
    store = replayed(stand)
    assert read(stand) == row(1) and b"t" not in store.replays[0].losers
    assert stand.database(0)[OFFSET_KEY] == b"1", "held until this process claims"


def test_a_strays_tombstone_takes_nothing_away(stand: Stand) -> None:
    batch(stand, 0, {"t": row(1)}, asked=1)
    batch(stand, 0, {"t": None}, asked=2)
    store = replayed(stand)
    assert read(stand) == row(1) and b"t" in store.replays[0].losers


def test_nothing_reaches_the_rows_before_its_header(stand: Stand) -> None:
    batch(stand, 0, {"t": row(1)}, asked=1)
    half = stand.changelog[0].pop()
    store = replayed(stand)
    assert read(stand) is None and len(store.replays[0].history.pending) == 1
    store.apply(half)
    assert read(stand) == row(1)


def test_rows_whose_header_was_compacted_away_are_taken(stand: Stand) -> None:
    batch(stand, 0, {"t": row(1)}, asked=1)
    batch(stand, 2, {"u": row(1)}, asked=2)
    del stand.changelog[0][1]  # compaction keeps the last record of a key: the newest header only
    replayed(stand)
    assert read(stand) == row(1) and read(stand, "u") == row(1)


def by_hand(stand: Stand, rows: dict[str, Sum | None], header: bytes | None = b"") -> None:
    """Records that something else wrote: without a header row, or (None, garbage) with one that is none."""
    records = [ChangelogRecord(key.encode(), row and stand.rows.encode(row)) for key, row in rows.items()]
    stand.append(0, records if header == b"" else [*records, ChangelogRecord(HEADER_KEY, header)])


@pytest.mark.parametrize("header", [b"", None, b"garbage"])
def test_rows_written_by_hand_do_not_count(stand: Stand, header: bytes | None) -> None:
    batch(stand, 0, {"t": row(1)}, asked=1)
    by_hand(stand, {"t": row(7), "u": row(1)}, header)
    store = replayed(stand)
    replay = store.replay(0)
    replay.lose(replay.history.rest())
    assert read(stand) == row(1) and read(stand, "u") is None
    assert replay.losers - {HEADER_KEY} == {b"t", b"u"} and replay.hold == 1
    assert stand.headers.decode(stand.database(0)[HEADER_KEY]).inputs[0].offset == 1


def test_the_claim_after_rows_written_by_hand_restores_their_keys(stand: Stand) -> None:
    batch(stand, 0, {"t": row(1)}, asked=1)
    by_hand(stand, {"t": row(7), "u": row(1)})
    batch(stand, 4, {"t": row(1), "u": None}, asked=1)  # what a claim writes
    store = replayed(stand)
    assert read(stand) == row(1) and read(stand, "u") is None
    assert not store.replays[0].losers and store.replays[0].hold == 1


def test_rows_written_by_hand_before_a_stray_do_not_count(stand: Stand) -> None:
    """The owner's batch lands behind them and is a stray by that; before it they would look like a compacted batch."""
    batch(stand, 0, {"t": row(1)}, asked=1)
    by_hand(stand, {"v": row(4)})
    batch(stand, 2, {"t": row(2)}, asked=2)
    store = replayed(stand)
    assert read(stand) == row(1) and read(stand, "v") is None
    assert store.replays[0].losers == {b"v", b"t", HEADER_KEY} and store.replays[0].hold == 1


@pytest.mark.parametrize(("young", "met", "counts"), [(True, True, False), (False, True, True), (True, False, True)])
def test_a_transactions_marker_is_no_compacted_header(stand: Stand, young: bool, met: bool, counts: bool) -> None:
    """Both leave a gap behind the rows; only where it cannot have been compaction it was somebody's marker."""
    if met:
        batch(stand, 0, {"t": row(1)}, asked=1)
    by_hand(stand, {"v": row(4), "marker": row(1)})
    marker = stand.changelog[0].pop()
    stand.changelog[0].append(None)  # its offset is taken
    batch(stand, 0, {"t": row(2)}, asked=2)
    store = stand.store()
    store.replays[0] = Replay(stand.headers.decode, lambda message: young)
    for message in filter(None, stand.changelog[0]):
        store.apply(message)
    assert (read(stand, "v") == row(4)) is counts
    assert (b"v" in store.replays[0].losers) is not counts
    assert store.replays[0].hold == (marker.offset - 2 if not counts else marker.offset)


def test_a_forged_count_takes_no_compacted_rows_with_it(stand: Stand) -> None:
    batch(stand, 0, {"t": row(1)}, asked=1)
    batch(stand, 2, {"u": row(1)}, asked=2)
    del stand.changelog[0][1]
    forged = ChangelogHeader(base=99, count=1000, instance="x", seq=1)
    stand.append(0, [ChangelogRecord(HEADER_KEY, stand.headers.encode(forged))])
    store = replayed(stand)
    assert read(stand) == row(1) and read(stand, "u") == row(1)
    assert store.replays[0].losers == {HEADER_KEY}


def test_finished_rows_are_indexed_by_their_time(stand: Stand) -> None:
    batch(stand, 0, {"late": row(1)}, asked=1, finished=900)
    batch(stand, 2, {"early": row(1)}, asked=2, finished=300)
    batch(stand, 4, {"open": row(1)}, asked=3)
    replayed(stand)
    database = stand.database(0)
    assert [key for key, _ in open_rows(database)] == [b"open"]
    assert [key for _, key in leaving(database, 1000, 10)] == [b"early", b"late"]
    assert [key for _, key in leaving(database, 1000, 1)] == [b"early"]
    assert [key for _, key in leaving(database, 899, 10)] == [b"early"]
    assert leaving(database, 299, 10) == []


def test_a_dropped_row_is_gone_with_its_index(stand: Stand) -> None:
    database, write = stand.database(0), rocksdict.WriteBatch(raw_mode=True)
    put_row(write, b"t", b"v", 5)
    database.write(write)
    assert finished_row(database, b"t") == (b"v", 5) and stored_row(database, b"t") == (b"v", 5)
    ((index_key, key),) = leaving(database, 5, 10)
    write = rocksdict.WriteBatch(raw_mode=True)
    drop_row(write, key, index_key)
    database.write(write)
    assert finished_row(database, b"t") is None and leaving(database, 99, 10) == []
    assert not [key for key, _ in database.items() if b"t" in key[1:]]


def test_a_row_that_finishes_is_open_no_more(stand: Stand) -> None:
    database = stand.database(0)
    for expires in (None, 7):
        write = rocksdict.WriteBatch(raw_mode=True)
        put_row(write, b"t", b"v", expires)
        database.write(write)
    assert not list(open_rows(database)) and stored_row(database, b"t") == (b"v", 7)


@pytest.mark.parametrize("headers", [{FINISHED_HEADER: expiry_bytes(7)}, ((FINISHED_HEADER, expiry_bytes(7)),)])
def test_the_time_is_read_from_either_form_of_headers(headers: Any) -> None:
    assert expiry_of(headers) == 7


def test_a_time_before_the_epoch_is_the_epoch() -> None:
    assert expiry_of({FINISHED_HEADER: expiry_bytes(-5)}) == 0 and expiry_of(None) is None


def test_a_copy_that_knows_another_record_is_not_of_this_log(stand: Stand) -> None:
    batch(stand, 0, {"t": row(1)}, asked=1)
    batch(stand, 2, {"u": row(1)}, asked=2)
    known = stand.changelog[0][3].value
    replay = Replay(stand.headers.decode)
    replay.expect(known)
    for message in stand.changelog[0]:
        replay.compare(message)
    replay.ended(4)  # it was met at its place
    other = Replay(stand.headers.decode)
    other.expect(known)
    stand.changelog[0][3].value = stand.changelog[0][1].value
    with pytest.raises(OtherLog, match="offset 3 of the changelog is another record"):
        other.compare(stand.changelog[0][3])
    short = Replay(stand.headers.decode)
    short.expect(known)
    with pytest.raises(OtherLog, match="ends at offset 3, the local store has read up to 3"):
        short.ended(3)
    compacted = Replay(stand.headers.decode)
    compacted.expect(known)
    compacted.ended(9)  # its header row is gone, as a later one took its place


@pytest.mark.parametrize(
    ("text", "damaged"),
    [
        ("Corruption: block checksum mismatch: stored = 1, computed = 2 in 000009.sst", True),
        ("IO error: No such file or directory: While open a file for random read: 000009.sst", True),
        ("IO error: No space left on device: While appending to file", False),
        ("a rule that speaks of Corruption", False),
    ],
)
def test_what_counts_as_damage(text: str, damaged: bool) -> None:
    assert is_damage(Exception(text)) is damaged


def database_with_tables(path: Path, count: int) -> None:
    database = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    for n in range(count):
        database[b"k%d" % n] = b"v"
        database.flush()
    database[b"late"] = b"in the log of the database"
    database.close()


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_a_list_of_files_that_lost_its_end_is_found_out(tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.db"
    database_with_tables(path, 3)
    assert _flaw(path) is None
    (manifest,) = path.glob("MANIFEST-*")
    manifest.write_bytes(manifest.read_bytes()[: int(manifest.stat().st_size * share)])
    assert "it has lost track of 0000" in (_flaw(path) or "")


def test_tables_are_known_by_their_number(tmp_path: Path) -> None:
    """After a million of them names are wider, and the youngest is not the last in the alphabet."""
    path = tmp_path / "x.db"
    database_with_tables(path, 3)
    table = min(path.glob("*.sst")).read_bytes()
    (path / "1000001.sst").write_bytes(table)
    assert _flaw(path) == "it has lost track of 1000001.sst"
    (path / "1000001.sst").unlink()
    (path / "copy of 000009.sst").write_bytes(table)
    assert _flaw(path) is None, "somebody else's file"


def test_a_store_that_is_removed_is_gone_before_its_parts_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in between, it must not be read on: with the newest tables the proof of its flaw may be gone."""
    path = tmp_path / "x.db"
    database_with_tables(path, 3)
    remove = shutil.rmtree

    def killed(aside: Path, **given: bool) -> None:
        for table in sorted(aside.glob("*.sst"))[-1:]:
            table.unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        discard(path)
    assert not path.exists()
    monkeypatch.setattr(shutil, "rmtree", remove)
    assert len(list(tmp_path.iterdir())) == 1
    sweep(path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_crash_leaves_behind_is_no_flaw(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    database_with_tables(path, 3)
    tables = sorted(path.glob("*.sst"))
    (path / "999999.sst").write_bytes(tables[0].read_bytes()[:-9])  # was being written
    (path / "000001.sst").write_bytes(tables[0].read_bytes())  # was merged into a younger one
    assert _flaw(path) is None
    (path / "999999.sst").write_bytes(b"")
    assert _flaw(path) is None
