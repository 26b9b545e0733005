"""Records that the runtime writes for itself: the header row that ends each changelog batch, and wakes."""

from __future__ import annotations

from schemas.base import Int, Micros, Record

HEADER_KEY = b"\x00header"
"""Reserved key of the header row; no id begins with a zero byte."""


class InputOffset(Record):
    """The highest offset of one input topic whose effects are in the rows."""

    topic: str
    offset: int


class Origin(Record):
    """The highest offset of a source partition whose re-produced copy was taken."""

    topic: str
    partition: Int
    offset: int


class NoteRecord(Record):
    """A record that was decided without a transition; at most 256 bytes of `error`."""

    topic: str
    offset: int
    position: str
    kind: str
    error: str = ""
    at: Micros = 0
    seq: int = 0


class ChangelogHeader(Record):
    """Ends the batch of one flush: `count` records before it belong to it, the first is expected at offset `base`.

    `finished` counts the partition's rows that are finished and still kept.
    """

    base: int
    count: int
    instance: str
    seq: int
    inputs: list[InputOffset] = []
    origins: list[Origin] = []
    notes: list[NoteRecord] = []
    finished: int = 0


class WakeRecord(Record):
    """Asks the row of `key` whether something is due; void if its version moved on.

    due: its timer has passed by the partition's time. A row that is only asked whether it could move must leave its timers
    alone: what would stop them may lie unread in the log.
    """

    key: str
    version: int
    due: bool = True
