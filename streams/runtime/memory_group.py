"""Who owns which partitions: the consumer group of the coordinators in memory.

As with Kafka's eager protocol, everybody gives everything back before anything is given out; a member that was not heard
of for a session is expelled, which it learns later than its successor. Members are static: one that comes back under its
name in time finds what it had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Spread = Callable[[Sequence[str], int], dict[str, frozenset[int]]]


@dataclass(slots=True)
class Member:
    """generation: of the assignment it holds; numbers: None once it has given them back."""

    generation: int = 0
    numbers: frozenset[int] | None = None


def evenly(names: Sequence[str], partitions: int) -> dict[str, frozenset[int]]:
    """Each its share, one by one."""
    return {
        name: frozenset(range(index, partitions, len(names))) for index, name in enumerate(sorted(names))
    }  # fmt: skip


class Group:
    """The group of one installation."""

    def __init__(self, partitions: int, spread: Spread = evenly) -> None:
        self._partitions, self.spread = partitions, spread
        self.members: dict[str, Member] = {}
        self.generation = 0
        self.rebalancing = False

    def join(self, name: str) -> None:
        """Come in; one that is a member already goes on with what it has."""
        if name not in self.members:
            self.members[name] = Member()
            self.rebalance()

    def leave(self, name: str) -> None:
        """Go, or be expelled."""
        if self.members.pop(name, None) is not None:
            self.rebalance()

    def rebalance(self) -> None:
        """Ask everybody to give back."""
        self.rebalancing = True
        self._settle()

    def give_back(self, name: str) -> None:
        """A member owns nothing now."""
        self.members[name].numbers = None
        self._settle()

    def assignment(self, name: str) -> Member | None:
        """What a member holds; None while there is nothing for it to hold."""
        member = self.members.get(name)
        return None if member is None or member.numbers is None or self.rebalancing else member

    def holds(self, name: str, generation: int) -> bool:
        """Whether a member may go on and commit as one of this generation."""
        member = self.members.get(name)
        return member is not None and member.generation == generation and member.numbers is not None

    def _settle(self) -> None:
        if any(member.numbers is not None for member in self.members.values()):
            return
        self.rebalancing = False
        self.generation += 1
        for name, numbers in self.spread(list(self.members), self._partitions).items() if self.members else ():
            self.members[name] = Member(self.generation, numbers)
