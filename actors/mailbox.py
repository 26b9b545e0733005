"""What one agent has in hand: the order of its work, how much of it may run at once, and what must not start any more.

Records of one task run one after the other, different tasks side by side, never more than `max_in_flight` at once. An
assignment is known by (task_id, epoch): delivered twice it is worked on once, cancelled or past its deadline it never
starts. A record's offset counts as finished only when the report about it is acknowledged. Nothing here knows Kafka,
a clock or an event loop; whoever runs the handlers tells it what happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from actors.handlers import Operations
from actors.ledger import Ledger
from schemas.inbox import AssignedTask

NO_HEADERS: Sequence[tuple[str, bytes]] = ()

Identity = tuple[str, int]
"""(task_id, epoch): one assignment, over all agents."""


class Past:
    """The last finished and cancelled assignments of a host, so that a second delivery of one is not worked on.

    `remembered`: how many; a coordinator repeats at most its last batches.
    """

    __slots__ = ("_known", "_order", "_remembered")

    def __init__(self, remembered: int = 20_000) -> None:
        self._known: set[Identity] = set()
        self._order: deque[Identity] = deque()  # a dictionary keeps order too, but finds its oldest by a search
        self._remembered = remembered

    def __contains__(self, identity: Identity) -> bool:
        return identity in self._known

    def add(self, identity: Identity) -> None:
        if identity not in self._known:
            self._known.add(identity)
            self._order.append(identity)
            if len(self._order) > self._remembered:
                self._known.remove(self._order.popleft())


class Stage(Enum):
    """Where a piece of work is. OVER: nothing is reported of it any more."""

    WAITING = auto()
    RUNNING = auto()
    DROPPED = auto()
    FINISHED = auto()


@dataclass(slots=True, eq=False)
class Work:
    """One assignment in hand. `position` is the inbox record's `<topic>.<partition>.<offset>`; `places` are all
    (partition, offset) at which it was delivered. `handle`, `timer`, `pacer` and `progress` belong to whoever runs the
    handler.
    """

    mailbox: Mailbox
    task: AssignedTask
    position: str
    places: list[tuple[int, int]]
    correlation_id: str | None = None
    headers: Sequence[tuple[str, bytes]] = NO_HEADERS
    stage: Stage = Stage.WAITING
    reports: int = 0
    handle: Any = None
    timer: Any = None
    pacer: Any = None
    progress: tuple[float, str] | None = None

    @property
    def identity(self) -> Identity:
        return self.task.task_id, self.task.epoch

    def withdrawn(self) -> bool:
        """Whether nothing will be reported of it; may be asked from another thread."""
        return self.stage is Stage.DROPPED


@dataclass(slots=True, eq=False)
class Mailbox:
    """The work of one agent. `ledgers` are its inbox's partitions as far as they are assigned to this host; `running`
    and `waiting` count what has a slot and what has none yet.
    """

    agent_id: str
    max_in_flight: int
    operations: Operations
    past: Past
    ledgers: dict[int, Ledger] = field(default_factory=dict)
    running: int = 0
    waiting: int = 0
    _hand: dict[Identity, Work] = field(default_factory=dict)
    _ready: deque[Work] = field(default_factory=deque)
    # By task_id; a key is there while its task is ready or running, and has no queue as long as nobody waits behind it.
    _behind: dict[str, deque[Work] | None] = field(default_factory=dict)

    @property
    def load(self) -> int:
        """Assignments in hand: waiting, running, or reported and not yet acknowledged."""
        return len(self._hand)

    def accept(self, work: Work) -> bool:
        """Take an assignment that `take` of its ledger has let through; False if there is nothing to do for it."""
        identity = work.identity
        known = self._hand.get(identity)
        if known is not None:
            known.places += [place for place in work.places if place not in known.places]
            return False
        if identity in self.past:
            self._close(work)
            return False
        self._hand[identity] = work
        self.waiting += 1
        task_id = identity[0]
        if task_id not in self._behind:
            self._behind[task_id] = None
            self._ready.append(work)
        else:
            behind = self._behind[task_id]
            if behind is None:
                behind = self._behind[task_id] = deque()
            behind.append(work)
        return True

    def cancel(self, task_id: str, epoch: int, place: tuple[int, int]) -> Work | None:
        """Withdraw an assignment; the work whose handler runs and must be ended by the caller, or None.

        `place` is the withdrawal's own (partition, offset). It is finished with the work and not before: a host that
        begins anew between the two is given both again, or it would do what was withdrawn.
        """
        identity = (task_id, epoch)
        work = self._hand.get(identity)
        if work is None:
            self.past.add(identity)
            self.close(*place)
            return None
        work.places.append(place)
        if work.stage is Stage.RUNNING:
            work.stage = Stage.DROPPED
            return work
        if work.stage is Stage.WAITING:
            work.stage = Stage.DROPPED  # it leaves when its turn comes, so that the order of its key holds
        return None

    def next(self, now: int) -> Iterator[Work]:
        """The assignments that may start now, in order, each taking a slot; `now` in microseconds.

        What was cancelled or is past its deadline leaves without a report: whoever set the deadline keeps it.
        """
        ready = self._ready
        while ready and self.running < self.max_in_flight:
            work = ready.popleft()
            self.waiting -= 1
            if work.stage is Stage.DROPPED or work.task.deadline_at <= now:
                work.stage = Stage.DROPPED
                self._free_key(work)
                self.settle(work)
                continue
            work.stage = Stage.RUNNING
            self.running += 1
            yield work

    def finish(self, work: Work) -> bool:
        """The handler ended: its slot and its key are free. False if the work was cancelled and nothing is reported."""
        self.running -= 1
        self._free_key(work)
        if work.stage is Stage.DROPPED:
            self.settle(work)
            return False
        work.stage = Stage.FINISHED
        return True

    def settle(self, work: Work) -> None:
        """All that follows from an assignment is acknowledged: it leaves the hand and its offsets are finished."""
        identity = work.identity
        self._hand.pop(identity, None)
        self.past.add(identity)
        self._close(work)

    def close(self, partition: int, offset: int) -> None:
        """A record other than an assignment is done with."""
        if ledger := self.ledgers.get(partition):
            ledger.done(offset)

    def revoke(self, partition: int) -> None:
        """The partition goes to another owner: what has not started is left to it, what runs runs on."""
        self.ledgers.pop(partition, None)
        waiting = [*self._ready, *(work for behind in self._behind.values() if behind for work in behind)]
        for work in waiting:
            if work.places[0][0] == partition:
                self._hand.pop(work.identity, None)
                self.waiting -= 1
                self._free_or_leave(work)

    def _free_or_leave(self, work: Work) -> None:
        behind = self._behind.get(work.task.task_id)
        if behind and work in behind:
            behind.remove(work)
            return
        self._ready.remove(work)
        self._free_key(work)

    def _free_key(self, work: Work) -> None:
        task_id = work.task.task_id
        behind = self._behind[task_id]
        if behind:
            self._ready.append(behind.popleft())
        else:
            del self._behind[task_id]

    def _close(self, work: Work) -> None:
        for partition, offset in work.places:
            if ledger := self.ledgers.get(partition):
                ledger.done(offset)
