"""From inbox records to mailboxes: what each record means to the agent, and which records mean nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.ledger import Ledger
from actors.mailbox import Mailbox, Work
from actors.poison import Found
from schemas.codec import Codec
from schemas.errors import DecodeError, TroupeError
from schemas.inbox import InboxKind, InboxRecord


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
        record = codec.decode(found.value)
        ledger.take(found.offset)
        _obey(record, found, mailbox, taken)
    except DecodeError as error:
        ledger.take(found.offset)
        taken.poison.append((mailbox, found, error))


def _obey(record: InboxRecord, found: Found, mailbox: Mailbox, taken: Taken) -> None:
    if record.kind is InboxKind.ASSIGN and record.task is not None:
        trace = [pair for pair in found.headers if pair[0] == "traceparent"]
        place = (found.partition, found.offset)
        if mailbox.accept(Work(mailbox, record.task, found.position, [place], record.correlation_id, trace)):
            taken.filled[mailbox.agent_id] = mailbox
        return
    if record.kind is InboxKind.CANCEL and record.task_id is not None and record.epoch is not None:
        if work := mailbox.cancel(record.task_id, record.epoch):
            taken.ended.append(work)
    elif record.kind is InboxKind.STOP:
        taken.stopped[found.topic] = mailbox
    else:
        raise DecodeError(f"inbox record of kind '{record.kind}': its part is missing, or the agent takes none")
    mailbox.close(found.partition, found.offset)
