"""Asking a rule about records, so that nothing remains of one on which it raises.

What is decided one by one is made into rows and outputs for a group at a time, stage by stage: the code and the tables of
one stage stay in the processor's caches, which makes a task a fifth cheaper than taking each record all the way at once.
Everything is encoded and size-checked here: what does not fit is the record's failure and not the flush's. A rule that
raised ends its row, and the record is kept as a dead letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import structlog

from schemas.codec import Codec
from schemas.tasks import TaskError
from streams.deadletters import of_record
from streams.processor import (
    NOTE_ERROR_BYTES,
    Change,
    Decided,
    End,
    EnsureTopic,
    Event,
    Note,
    Output,
    Processor,
    Views,
    filled,
)
from streams.runtime.partition import Answer, Asked, Outputs, Written
from streams.runtime.wire import Unreadable, Wire

log = structlog.get_logger("owner")

POISON = "poison"
"""Note: nobody could read the record."""

RULE_FAILED = "rule_failed"
"""Note: a rule raised on the record."""

LETTER_NUMBER = {POISON: 0, RULE_FAILED: 1000}
"""Number of the dead letter among a record's outputs; beyond those of the row that a failed rule left ended."""

ENDED = 0
"""Time at which a row that ended may leave: with the next flush."""

class Counts:
    """What the owner did, for logs and metrics."""

    __slots__ = ("broken", "copies", "dropped", "poison", "re_emitted", "rehomed", "stepped")

    def __init__(self) -> None:
        self.stepped = self.re_emitted = self.dropped = self.rehomed = self.copies = self.broken = self.poison = 0

    def as_dict(self) -> dict[str, int]:
        """Counts by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Rule:
    """A processor together with what its decisions must fit into."""

    def __init__(self, processor: Processor[Any], wire: Wire, row_codec: Codec[Any], counts: Counts) -> None:
        self._processor, self._wire, self._row_codec, self._counts = processor, wire, row_codec, counts

    def decide(self, row: Any, event: Event, views: Views) -> Asked | None:
        """The rule's decision on a record that is new, None if there is nothing to do.

        Raises whatever the rule raises, ValueError for a decision that breaks the contract.
        """
        decided = self._processor.step(row, event, views)
        if decided is None:
            return None
        if isinstance(decided, Note):
            if len(decided.error.encode()) > NOTE_ERROR_BYTES:
                raise ValueError(f"a note's error has at most {NOTE_ERROR_BYTES} bytes, or a re-run would say another")
            return decided, None, event
        return decided, self._expires(row, decided, event), event

    def _expires(self, before: Any, decided: Change[Any] | End[Any], event: Event) -> int | None:
        after, version = decided.row, before.version + 1 if before is not None else 1
        if after.version != version or after.cause != event.position:
            raise ValueError(
                f"{self._processor.name}: a transition must be version {version} with cause {event.position}, "
                f"not {after.version} with {after.cause}"
            )
        return ENDED if isinstance(decided, End) else self._processor.expires(after)

    def answers(self, asked: Sequence[Asked]) -> list[Answer]:
        """What follows from decisions, all of them or none. Raises what a rule's outputs or an encoding raises."""
        outputs = self._processor.outputs
        made = [list(outputs(decided, event)) for decided, _, event in asked]
        encode = self._row_codec.encode
        written = [
            None if isinstance(decided, Note) else filled(Written, (decided.row, encode(decided.row), expires))
            for decided, expires, _ in asked
        ]
        encoded = self._all_encoded(made, [event for _, _, event in asked])
        return [
            filled(Answer, (row, decided if isinstance(decided, Note) else None, outputs))
            for (decided, _, _), row, outputs in zip(asked, written, encoded, strict=True)
        ]

    def _all_encoded(self, made: list[list[Output | EnsureTopic]], events: Sequence[Event]) -> list[Outputs]:
        """All first outputs, then all second ones: neighbours are of one topic and so of one schema."""
        encode = self._wire.encode
        found: list[Outputs] = [[] for _ in made]
        todo = [(place, outputs) for place, outputs in enumerate(made) if outputs]
        column = 0
        while todo:
            for place, outputs in todo:
                output, event = outputs[column], events[place]
                found[place].append(
                    output if isinstance(output, EnsureTopic) else encode(output, event.key, event.partition)
                )
            column += 1
            todo = [(place, outputs) for place, outputs in todo if len(outputs) > column]
        return found

    def unread(self, record: Unreadable, event: Event) -> Answer:
        """The answer to a record that nobody could read."""
        return self._letter_of(POISON, record.error, event)

    def again(self, decided: Decided[Any], event: Event) -> Outputs:
        """What followed from a decision that is in the rows."""
        if isinstance(decided, Note) and decided.kind in LETTER_NUMBER:
            return self._encoded([self._letter(decided, event)], event)
        return self._encoded(self._processor.outputs(decided, event), event)

    def broken(self, row: Any, event: Event, error: Exception) -> Answer:
        """The answer to a record on which the rule raised: a dead letter, and the end of its open row."""
        log.warning("rule_failed", processor=self._processor.name, position=event.position, error=repr(error))
        self._counts.broken += 1
        letter = self._letter_of(RULE_FAILED, f"{type(error).__name__}: {error}", event)
        if row is None or self._processor.expires(row) is not None:
            return letter
        try:
            change = self._processor.broken(row, event, error)
            if change is None:
                return letter
            ((written, _, outputs),) = self.answers([(change, self._expires(row, change, event), event)])
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
        return self._all_encoded([list(outputs)], [event])[0]
