"""A header whose name is no UTF-8 must not keep any record from being read.

Kafka takes such a name, and aiokafka's parser raises on it, at every start again. What it raises on is read once more here,
with the name made readable (`\\xff` for a byte that is no text), so that every record of the fetch is delivered. Which ones
those are (offsets, aborted transactions, control batches, checksums) stays aiokafka's own code.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

import structlog
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy

log = structlog.get_logger("faust")


def read_any_header_name(fetcher: Any) -> None:
    """From now on this fetcher of aiokafka reads records with any header name; call it before the first fetch.

    aiokafka makes its parsers under their global names, so the one method that does is given names of its own.
    """
    method = type(fetcher)._proc_fetch_request
    names = {**method.__globals__, "MemoryRecords": _Kept, "PartitionRecords": _Records}
    fetcher._proc_fetch_request = MethodType(FunctionType(method.__code__, names), fetcher)


class _Kept(MemoryRecords):  # type: ignore[misc]
    """The compiled parser, with the bytes that it reads; it holds them anyhow."""

    def __init__(self, fetched: bytes) -> None:
        super().__init__(fetched)
        self.fetched = fetched


class _Records(PartitionRecords):  # type: ignore[misc]
    """The records of a fetch. From the batch on that cannot be read it goes on in plain Python, to the end of the fetch."""

    _records: Any

    def _unpack_records(self) -> Iterator[Any]:
        try:
            yield from super()._unpack_records()
        except (UnicodeDecodeError, CorruptRecordException) as error:  # the second where nothing is compiled
            if UnicodeDecodeError not in (type(error), type(error.__cause__)):
                raise
            why = str(error)
        else:
            return
        log.warning("header_name_not_utf8", partition=str(self._tp), offset=self.next_fetch_offset, why=why)
        self._records = _Rest(self._records.fetched, self.next_fetch_offset)
        yield from super()._unpack_records()


class _Rest(_MemoryRecordsPy):  # type: ignore[misc]
    """The batches of a fetch from the one on that holds or follows this offset.

    Those before it must not be met again: the state of transactions has moved on since.
    """

    def __init__(self, fetched: bytes, offset: int) -> None:
        super().__init__(fetched)
        self._offset = offset

    def next_batch(self) -> Any:
        while (piece := self._next_slice) is not None:
            batch = super().next_batch()
            if batch.next_offset > self._offset:
                return _Batch(piece) if isinstance(batch, DefaultRecordBatch) else batch
        return None


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A batch that decodes header names leniently from the first on that needs it."""

    _buffer: bytearray

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            self._buffer = _Lenient(self._buffer)
            return super()._read_msg()


class _Lenient(bytearray):
    """Bytes any part of which can be decoded."""

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return _Lenient(found) if isinstance(found, bytearray) else found

    def decode(self, *_: Any) -> str:
        return super().decode("utf-8", "backslashreplace")
