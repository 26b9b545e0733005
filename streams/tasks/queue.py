"""Who waits for whom: one first-in-first-out queue for each pool, keys only.

Order is (created_at, key), so a task that comes back keeps its place. A queue is a heap with a short sorted front: the
front answers "who is next" and "how many are ahead" at once, and what leaves the middle is forgotten when it surfaces.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort

Place = tuple[int, str]
"""created_at in microseconds, key."""


class PoolQueue:
    """The waiting tasks of one pool."""

    def __init__(self) -> None:
        self._front: list[Place] = []
        self._rest: list[Place] = []
        self._live: set[Place] = set()

    def __len__(self) -> int:
        return len(self._live)

    def add(self, place: Place) -> None:
        """A task begins to wait."""
        self._live.add(place)
        if self._front and place < self._front[-1]:
            insort(self._front, place)
        else:
            heapq.heappush(self._rest, place)

    def remove(self, place: Place) -> None:
        """A task waits no more."""
        self._live.discard(place)
        at = bisect_left(self._front, place)
        if at < len(self._front) and self._front[at] == place:
            del self._front[at]

    def first(self, count: int) -> list[Place]:
        """The next so many, in order."""
        self._fill(count)
        return self._front[:count]

    def ahead(self, place: Place, limit: int) -> int:
        """How many wait before this place; counted up to `limit`."""
        self._fill(limit)
        return bisect_left(self._front, place, hi=min(limit, len(self._front)))

    def _fill(self, count: int) -> None:
        front, rest = self._front, self._rest
        while len(front) < count and rest:
            place = heapq.heappop(rest)
            # A task that left and came back lies in the heap twice, side by side.
            if place in self._live and not (front and front[-1] == place):
                front.append(place)


class Queues:
    """All pools' queues."""

    def __init__(self) -> None:
        self.pools: dict[str, PoolQueue] = {}
        self.count = 0
        """Waiting tasks, those without a pool included."""
        self.limbo: dict[str, int] = {}
        """Tasks without a route yet, with the generation of the directory at which they were last looked at."""

    def add(self, pool: str | None, place: Place, generation: int) -> None:
        """A task begins to wait, without a pool while it has no route; `generation` is the directory's."""
        self.count += 1
        if pool is None:
            self.limbo[place[1]] = generation
            return
        queue = self.pools.get(pool)
        if queue is None:
            queue = self.pools[pool] = PoolQueue()
        queue.add(place)

    def remove(self, pool: str | None, place: Place) -> None:
        """A task waits no more."""
        self.count -= 1
        if pool is None:
            del self.limbo[place[1]]
            return
        queue = self.pools[pool]
        queue.remove(place)
        if not queue:
            del self.pools[pool]

    def ahead(self, pool: str, place: Place, limit: int = 1) -> int:
        """How many of a pool wait before this place; counted up to `limit`."""
        queue = self.pools.get(pool)
        return queue.ahead(place, limit) if queue is not None else 0
