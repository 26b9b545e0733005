"""From inbox records to mailboxes: what each record means to the agent, and which records mean nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from actors.ledger import Ledger
from actors.mailbox import NO_HEADERS, Mailbox, Work
from actors.poison import Found
from schemas.codec import Codec
from schemas.errors import DecodeError, TroupeError
from schemas.inbox import AssignedTask, InboxKind, InboxRecord

_ASSIGN, _CANCEL, _STOP = InboxKind.ASSIGN.value, InboxKind.CANCEL.value, InboxKind.STOP.value


@dataclass(slots=True)
class Taken:
    """What a delivery led to: mailboxes with new work, mailboxes told to stop, handlers to end, records to bury."""

    filled: dict[str, Mailbox] = field(default_factory=dict)
    stopped: dict[str, Mailbox] = field(default_factory=dict)
    ended: list[Work] = field(default_factory=list)
    poison: list[tuple[Mailbox, Found, TroupeError]] = field(default_factory=list)


def take(found: Found, mailbox: Mailbox, ledger: Ledger, codec: Codec[InboxRecord], taken: Taken) -> None:
    """Note one delivered record and do what it says; raises UnknownSchemaId before anything is noted."""
    if not ledger.wants(found.offset):
        ledger.take(found.offset)
        return
    try:
        fields = codec.decode_fields(found.value)
        ledger.take(found.offset)
        _obey(fields, found, mailbox, taken)
    except DecodeError as error:
        ledger.take(found.offset)
        taken.poison.append((mailbox, found, error))


def _obey(record: dict[str, Any], found: Found, mailbox: Mailbox, taken: Taken) -> None:
    kind = record["kind"]
    if kind == _ASSIGN and record["task"] is not None:
        task = AssignedTask.read(record["task"])
        trace = [pair for pair in found.headers if pair[0] == "traceparent"] if found.headers else NO_HEADERS
        place = (found.partition, found.offset)
        if mailbox.accept(Work(mailbox, task, found.position, [place], record["correlation_id"], trace)):
            taken.filled[mailbox.agent_id] = mailbox
        return
    if kind == _CANCEL and record["task_id"] is not None and record["epoch"] is not None:
        if work := mailbox.cancel(record["task_id"], record["epoch"], (found.partition, found.offset)):
            taken.ended.append(work)
        return
    if kind == _STOP:
        taken.stopped[found.topic] = mailbox
    else:
        raise DecodeError(f"inbox record of kind '{kind}': its part is missing, or the agent takes none")
    mailbox.close(found.partition, found.offset)
