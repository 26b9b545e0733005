"""The local copy of a table's partition: rows, an index of what is finished, and how a changelog is read back.

What counts in a changelog is said in `history.py`, what is to be done about the rest in `replay.py`. The copy is never
needed, it only spares reading: one that cannot be read, that is not of this changelog, or that is so old that tombstones
may be gone from the log by now, is thrown away and made anew.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import rocksdict
import structlog
from faust.stores.rocksdb import Store as RocksStore

from schemas.changelog import HEADER_KEY
from streams.runtime.exits import EXIT_BUG
from streams.runtime.expiry import TIME as _TIME
from streams.runtime.expiry import expiry_bytes, expiry_of
from streams.runtime.history import YOUNG_SECONDS, Closed, DecodeHeader
from streams.runtime.replay import OtherLog, Replay

log = structlog.get_logger("coordinator")

OFFSET_KEY: bytes = RocksStore.offset_key
WRITTEN_KEY = b"\x00written"
"""When the copy was last written, 8 bytes of microseconds."""

FRESH_SECONDS = 12 * 3600.0
"""Age above which a copy is not read on: a broker may forget tombstones a day after they were written."""

_TABLE_END = bytes.fromhex("f7cff485b741e288")
"""The last bytes of every table file of the database."""

REBUILT = "it is rebuilt from the changelog; nothing is lost"
_NOT_ITS_FAULT = ("no space left", "permission denied", "read-only file system", "too many open files", "/lock:", "\\lock:")

# Open and finished rows lie under prefixes of their own, so that a takeover scans the open ones only; beside the
# finished ones lies an index by time, so that the oldest can leave without a scan.
_OPEN, _DONE, _BY_TIME = b"o", b"f", b"t"


def put_row(write: Any, key: bytes, value: bytes, expires: int | None) -> None:
    """Put a row into a write batch; `expires` in microseconds for a finished one, None for an open one."""
    if expires is None:
        write.put(_OPEN + key, value)
        return
    write.delete(_OPEN + key)
    write.put(_DONE + key, expiry_bytes(expires) + value)
    write.put(_BY_TIME + expiry_bytes(expires) + key, b"")


def drop_row(write: Any, key: bytes, index_key: bytes | None = None) -> None:
    """Take a row out, and its place in the index by time where that is known."""
    write.delete(_OPEN + key)
    write.delete(_DONE + key)
    if index_key is not None:
        write.delete(index_key)


def finished_row(database: Any, key: bytes) -> tuple[bytes, int] | None:
    """The value of a finished row, and when it may leave, microseconds."""
    value: bytes | None = database.get(_DONE + key)
    return None if value is None else (value[_TIME.size :], _TIME.unpack(value[: _TIME.size])[0])


def stored_row(database: Any, key: bytes) -> tuple[bytes | None, int | None]:
    """The value of a row, and when it may leave: None for an open one."""
    value: bytes | None = database.get(_OPEN + key)
    if value is not None:
        return value, None
    return finished_row(database, key) or (None, None)


def open_rows(database: Any) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each open row."""
    for key, value in _between(database, _OPEN, b"p"):
        yield key[1:], value


def leaving(database: Any, until: int, limit: int) -> list[tuple[bytes, bytes]]:
    """(index key, row key) of finished rows that may leave at `until` microseconds, oldest first, at most `limit`.

    An entry may be out of date: its row was opened again, finished again later, or left before the store was rebuilt.
    Such an entry is deleted here, and its row stays.
    """
    current: list[tuple[bytes, bytes]] = []
    stale = rocksdict.WriteBatch(raw_mode=True)
    for index_key, _ in islice(_between(database, _BY_TIME, _BY_TIME + _TIME.pack(until + 1)), limit):
        key = index_key[1 + _TIME.size :]
        finished = database.get(_DONE + key)
        if finished is None or finished[: _TIME.size] != index_key[1 : 1 + _TIME.size] or _OPEN + key in database:
            stale.delete(index_key)
        else:
            current.append((index_key, key))
    if not stale.is_empty():
        commit(database, stale)
    return current


def _between(database: Any, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
    options = rocksdict.ReadOptions()
    options.set_iterate_upper_bound(end)
    yield from database.items(from_key=first, read_opt=options)


def seal(write: Any, header: bytes | None, offset: int) -> None:
    """End a write batch: the header row, if it is a new one, and the changelog offset from which to read on."""
    if header is not None:
        write.put(HEADER_KEY, header)
    write.put(OFFSET_KEY, str(offset).encode())
    write.put(WRITTEN_KEY, _TIME.pack(time.time_ns() // 1000))


def commit(database: Any, write: Any) -> None:
    """Write a sealed batch, without the database's own log: a copy needs none (5 % of a task's cost).

    What a killed process had in memory is gone then, rows and the offset that goes with them alike, and is read from the
    changelog again. So that they stay together nothing else may be written to a store with that log.
    """
    unlogged = rocksdict.WriteOptions()
    unlogged.disable_wal = True
    database.write(write, write_opt=unlogged)


def is_damage(error: BaseException) -> bool:
    """Whether an error of the database says that its files are not what it wrote."""
    text = str(error)
    return text.startswith("Corruption") or (text.startswith("IO error") and "No such file" in text)


def discard(path: Path) -> None:
    """Remove a directory. Raises OSError if it cannot lose its name.

    That goes first: of a store that was half removed the part that told of its flaw may be gone, and the rest would be read
    on as if nothing was missing.
    """
    sweep(path)
    path.rename(_aside(path))
    sweep(path)


def sweep(path: Path) -> None:
    """Remove what is left of an earlier directory of this name that was discarded."""
    shutil.rmtree(_aside(path), ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}~discarded")


def _is_young(message: Any) -> bool:
    """Whether Faust's message was appended so lately that nothing behind it can have been compacted."""
    return message.timestamp is not None and time.time() - message.timestamp < YOUNG_SECONDS


def _flaw(path: Path) -> str | None:
    """Why the files of a database are not what it wrote, None if nothing speaks against them. Nothing is changed.

    A list of files that lost its end opens well, with older tables and the newest offset. What gives it away are whole
    tables that are younger than any that it names; a crash leaves such files without their end, or older ones.
    """
    tables = {file.name: file for file in path.glob("*.sst")}
    try:
        database = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True), access_type=rocksdict.AccessType.read_only())
    except Exception as error:  # the database knows no other kind
        its_fault = not any(words in str(error).lower() for words in _NOT_ITS_FAULT)
        return f"it cannot be opened: {error}" if its_fault else None
    listed = {Path(file["name"]).name for file in database.live_files()}
    database.close()
    youngest = max(map(_number, listed), default=-1)
    lost = sorted(name for name, file in tables.items() if _number(name) > youngest and _is_whole(file))
    return f"it has lost track of {', '.join(lost)}" if lost else None


def _number(table: str) -> int:
    """Of a file that the database wrote, the younger the higher; six digits wide, or more. -1 for a file of others."""
    digits = table.removesuffix(".sst")
    return int(digits) if digits.isdecimal() else -1


def _is_whole(table: Path) -> bool:
    with table.open("rb") as file:
        file.seek(-min(len(_TABLE_END), table.stat().st_size), os.SEEK_END)
        return file.read() == _TABLE_END


class ChangelogStore(RocksStore):  # type: ignore[misc]
    """Faust's rocksdb store with recovery in whole batches."""

    def __init__(self, *args: Any, decode_header: DecodeHeader, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._decode_header = decode_header
        self.replays: dict[int, Replay] = {}

    def persisted_offset(self, tp: Any) -> int:
        """The offset before the last record that is known, -1 for none; asked when an assignment begins.

        Recovery restarts there, so what was half read is forgotten, and the first record that it reads is one that this
        copy knows: it shows whether the copy is of this changelog.
        """
        self.replays.pop(tp.partition, None)
        database = self._db_for_partition(tp.partition)
        offset, header, written = (database.get(key) for key in (OFFSET_KEY, HEADER_KEY, WRITTEN_KEY))
        if offset is None:
            return -1
        age = math.inf if written is None else time.time() - _TIME.unpack(written)[0] / 1e6
        if age > FRESH_SECONDS:
            del database
            self._dbs.pop(tp.partition).close()
            self._discard(tp.partition, f"it was last written {age / 3600:.1f} h ago")
            return -1
        if header is not None:
            self.replay(tp.partition).expect(header)
        return max(-1, int(offset) - 1)

    def _open_for_partition(self, partition: int) -> Any:
        path = self.partition_path(partition)
        sweep(path)
        if path.exists() and (flaw := _flaw(path)):
            self._discard(partition, flaw)
        return super()._open_for_partition(partition)

    def _discard(self, partition: int, why: str) -> None:
        path = self.partition_path(partition)
        discard(path)
        log.warning("local_store_discarded", store=str(path), why=why, meaning=REBUILT)

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        """Called by Faust's recovery with consecutive changelog records."""
        try:
            for event in batch:
                self.apply(event.message)
        except OtherLog as error:
            self.app.hooks.store_broken(f"{self.table_name}: {error}")
        except Exception as error:
            if is_damage(error):
                self.app.hooks.store_broken(f"{self.table_name}: {error}")
            # Faust would log it and go on with a table that lacks rows.
            print(f"recovery of {self.table_name} failed: {error!r}", file=sys.stderr, flush=True)
            os._exit(EXIT_BUG)

    def replay(self, partition: int) -> Replay:
        """What the changelog of a partition told so far."""
        found = self.replays.get(partition)
        if found is None:
            found = self.replays[partition] = Replay(self._decode_header, _is_young)
        return found

    def apply(self, message: Any) -> None:
        """Take one changelog record; nothing reaches the rows before its header row is read."""
        replay = self.replay(message.partition)
        replay.compare(message)
        closed = replay.history.take(message)
        if closed is not None:
            self._close(replay, closed)

    def _close(self, replay: Replay, closed: Closed) -> None:
        last, offset = closed.last, replay.close(closed)
        database, write = self._db_for_partition(last.partition), rocksdict.WriteBatch(raw_mode=True)
        for message in closed.rows:
            if message.value is None:
                drop_row(write, message.key)
            else:
                put_row(write, message.key, message.value, expiry_of(message.headers))
        seal(write, None if closed.header is None else last.value, offset)
        commit(database, write)
