"""Asking a rule about one record, so that nothing of it remains if it raises.

The row and the outputs are encoded and size-checked here, inside the record's own step: what does not fit is the record's
failure and not the flush's. A rule that raised ends its row, and the record is kept as a dead letter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import structlog

from schemas.base import Record
from schemas.codec import Codec
from schemas.tasks import TaskError
from streams.deadletters import of_record
from streams.processor import NOTE_ERROR_BYTES, Change, Decided, End, EnsureTopic, Event, Note, Output, Processor, Views
from streams.runtime.wire import Encoded, Unreadable, Wire

log = structlog.get_logger("owner")

POISON = "poison"
"""Note: nobody could read the record."""

RULE_FAILED = "rule_failed"
"""Note: a rule raised on the record."""

LETTER_NUMBER = {POISON: 0, RULE_FAILED: 1000}
"""Number of the dead letter among a record's outputs; beyond those of the row that a failed rule left ended."""

ENDED = 0
"""Time at which a row that ended may leave: with the next flush."""

Outputs = list[Encoded | EnsureTopic]


class Counts:
    """What the owner did, for logs and metrics."""

    __slots__ = ("broken", "copies", "dropped", "poison", "re_emitted", "rehomed", "stepped")

    def __init__(self) -> None:
        self.stepped = self.re_emitted = self.dropped = self.rehomed = self.copies = self.broken = self.poison = 0

    def as_dict(self) -> dict[str, int]:
        """Counts by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Written(NamedTuple):
    """A transition ready for the changelog; `expires` in microseconds, None for an open row."""

    row: Any
    value: bytes
    expires: int | None


class Answer(NamedTuple):
    """What a record came to: at most one transition, at most one note, and what follows from them."""

    written: Written | None
    note: Note | None
    outputs: Outputs


NOTHING = Answer(None, None, [])


class Rule:
    """A processor together with what its decisions must fit into."""

    def __init__(self, processor: Processor[Any], wire: Wire, row_codec: Codec[Any], counts: Counts) -> None:
        self._processor, self._wire, self._row_codec, self._counts = processor, wire, row_codec, counts

    def ask(self, row: Any, event: Event, record: Record | Unreadable, views: Views) -> Answer:
        """The rule's decision on a record that is new."""
        if isinstance(record, Unreadable):
            return self._letter_of(POISON, record.error, event)
        try:
            decision = self._processor.step(row, event, views)
            return NOTHING if decision is None else self._answer(row, decision, event)
        except Exception as error:
            log.warning("rule_failed", processor=self._processor.name, position=event.position, error=repr(error))
            self._counts.broken += 1
            return self._broken(row, event, error)

    def again(self, decided: Decided[Any], event: Event) -> Outputs:
        """What followed from a decision that is in the rows."""
        if isinstance(decided, Note) and decided.kind in LETTER_NUMBER:
            return self._encoded([self._letter(decided, event)], event)
        return self._encoded(self._processor.outputs(decided, event), event)

    def _answer(self, row: Any, decision: Decided[Any], event: Event) -> Answer:
        if isinstance(decision, Note):
            if len(decision.error.encode()) > NOTE_ERROR_BYTES:
                raise ValueError(f"a note's error has at most {NOTE_ERROR_BYTES} bytes, or a re-run would say another")
            return Answer(None, decision, self._encoded(self._processor.outputs(decision, event), event))
        written = self._written(row, decision, event)
        return Answer(written, None, self._encoded(self._processor.outputs(decision, event), event))

    def _written(self, row: Any, decision: Change[Any] | End[Any], event: Event) -> Written:
        after, version = decision.row, row.version + 1 if row is not None else 1
        if after.version != version or after.cause != event.position:
            raise ValueError(
                f"{self._processor.name}: a transition must be version {version} with cause {event.position}, "
                f"not {after.version} with {after.cause}"
            )
        expires = ENDED if isinstance(decision, End) else self._processor.expires(after)
        return Written(after, self._row_codec.encode(after), expires)

    def _broken(self, row: Any, event: Event, error: Exception) -> Answer:
        letter = self._letter_of(RULE_FAILED, f"{type(error).__name__}: {error}", event)
        if row is None or self._processor.expires(row) is not None:
            return letter
        try:
            change = self._processor.broken(row, event, error)
            if change is None:
                return letter
            written = self._written(row, change, event)
            outputs = self._encoded(self._processor.outputs(change, event), event)
            return Answer(written, letter.note, [*outputs, *letter.outputs])
        except Exception as second:
            # A rule that cannot even end its row must not stop all others; the record is kept and the row stays open.
            log.error("broken_failed", processor=self._processor.name, position=event.position, error=repr(second))
            return letter

    def _letter_of(self, kind: str, error: str, event: Event) -> Answer:
        self._counts.poison += 1
        text = error.encode()[:NOTE_ERROR_BYTES].decode(errors="ignore")
        note = Note(kind, text, event.stamp.time, event.stamp.seq)
        return Answer(None, note, self._encoded([self._letter(note, event)], event))

    def _letter(self, note: Note, event: Event) -> Output:
        """The dead letter of a record; a function of note and event, so that it can be made again."""
        code, step = ("invalid_request", "decode") if note.kind == POISON else ("internal_error", self._processor.name)
        error = TaskError(code=code, message=note.error)
        return of_record(event, event.raw_key, error, LETTER_NUMBER[note.kind], step)

    def _encoded(self, outputs: Iterable[Output | EnsureTopic], event: Event) -> Outputs:
        encode = self._wire.encode
        return [
            output if isinstance(output, EnsureTopic) else encode(output, event.key, event.partition)
            for output in outputs
        ]
