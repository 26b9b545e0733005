"""The local copy of a table's partition: rows, an index of what is finished, and how a changelog is read back.

What counts in a changelog is said in `history.py`, what is to be done about the rest in `replay.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import rocksdict
from faust.stores.rocksdb import Store as RocksStore

from schemas.changelog import HEADER_KEY
from streams.runtime.exits import EXIT_BUG
from streams.runtime.expiry import TIME as _TIME
from streams.runtime.expiry import expiry_bytes, expiry_of
from streams.runtime.history import Closed, DecodeHeader
from streams.runtime.replay import Replay

OFFSET_KEY: bytes = RocksStore.offset_key
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
        database.write(stale)
    return current


def _between(database: Any, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
    options = rocksdict.ReadOptions()
    options.set_iterate_upper_bound(end)
    yield from database.items(from_key=first, read_opt=options)


class ChangelogStore(RocksStore):  # type: ignore[misc]
    """Faust's rocksdb store with recovery in whole batches."""

    def __init__(self, *args: Any, decode_header: DecodeHeader, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._decode_header = decode_header
        self.replays: dict[int, Replay] = {}

    def persisted_offset(self, tp: Any) -> int | None:
        """Asked when an assignment begins; recovery restarts there, so what was half read is forgotten."""
        self.replays.pop(tp.partition, None)
        offset: int | None = super().persisted_offset(tp)
        return offset

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        """Called by Faust's recovery with consecutive changelog records."""
        try:
            for event in batch:
                self.apply(event.message)
        except Exception as error:
            # Faust would log it and go on with a table that lacks rows.
            print(f"recovery of {self.table_name} failed: {error!r}", file=sys.stderr, flush=True)
            os._exit(EXIT_BUG)

    def replay(self, partition: int) -> Replay:
        """What the changelog of a partition told so far."""
        found = self.replays.get(partition)
        if found is None:
            found = self.replays[partition] = Replay(self._decode_header)
        return found

    def apply(self, message: Any) -> None:
        """Take one changelog record; nothing reaches the rows before its header row is read."""
        replay = self.replay(message.partition)
        closed = replay.history.take(message)
        if closed is not None:
            self._close(replay, closed)

    def _close(self, replay: Replay, closed: Closed) -> None:
        last, offset = closed.last, replay.close(closed)
        database, write = self._db_for_partition(last.partition), rocksdict.WriteBatch(raw_mode=True)
        if closed.header is not None:
            write.put(HEADER_KEY, last.value)
        for message in closed.rows:
            if message.value is None:
                drop_row(write, message.key)
            else:
                put_row(write, message.key, message.value, expiry_of(message.headers))
        write.put(OFFSET_KEY, str(offset).encode())
        database.write(write)
