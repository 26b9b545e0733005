"""Strands of work that stop at named points, so that anything may happen between any two steps, and again by the same seed.

A strand is a coroutine that nobody runs but its owner, one stretch at a time. It stops where a process on Kafka would wait
for a broker or could be killed; what it says there is the name of the point and, if it waits, what for.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, NamedTuple

Ready = Callable[[], bool]


def _always() -> bool:
    return True


class Point(NamedTuple):
    """A place where a strand may stand still; `ready` says whether it can go on."""

    name: str
    ready: Ready = _always

    def __await__(self) -> Generator[Point, None, None]:
        yield self
        while not self.ready():
            yield self


class Strand:
    """One coroutine and where it stands."""

    __slots__ = ("_coroutine", "at", "done", "name")

    def __init__(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        self.name, self._coroutine = name, coroutine
        self.at = Point("begin")
        self.done = False

    @property
    def runnable(self) -> bool:
        """Whether a step would do anything."""
        return not self.done and self.at.ready()

    def step(self) -> None:
        """Go on to the next point. Raises what the work raises."""
        try:
            self.at = self._coroutine.send(None)
        except StopIteration:
            self.done = True

    def close(self) -> None:
        """End it where it stands, as a kill does: nothing in it may catch this."""
        self._coroutine.close()
        self.done = True
