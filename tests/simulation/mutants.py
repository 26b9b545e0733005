"""The contract with one rule switched off at a time. Each must be found, or the simulation proves nothing.

What is replaced here is replaced for a run only, by subclasses of the runtime in memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from streams.processor import Event
from streams.runtime.history import Closed, History
from streams.runtime.memory import MemoryCoordinator
from streams.runtime.memory_log import landed
from streams.runtime.memory_runner import MemoryRunner, Place
from streams.runtime.owner import Owner
from streams.runtime.partition import Arrival, Flush, Part, Partition, Taken
from streams.runtime.replay import Replay
from streams.runtime.wire import Source
from tests.simulation.hosts import Host


class OutputsFirst(MemoryRunner):
    """Outputs are sent and acked before the rows that they follow from are in the changelog."""

    async def write(self, owner: Owner, flush: Flush) -> None:
        if flush.parts:
            await self._ensure(flush.topics)
            await landed(self.send(flush.outputs), "outputs sent first")
            flush.outputs.clear()
        await super().write(owner, flush)


class NoHeader(MemoryRunner):
    """A batch's header row says where it belongs, but not what is done: no inputs, no origins, no notes."""

    class owner_class(Owner):
        def header(self, partition: Partition, part: Part, seq: int) -> Any:
            return super().header(partition, part, seq).model_copy(update={"inputs": [], "origins": [], "notes": []})


class TailNotFirst(MemoryRunner):
    """New records are decided while outputs of old ones are not proven yet."""

    class owner_class(Owner):
        def _repeat(self, flush: Flush, arrival: Arrival, event: Event) -> None:
            super()._repeat(flush, arrival, event)
            flush.tail.clear()

    def positioned(self, partition: Partition, starts: dict[str, int]) -> None:
        super().positioned(partition, starts)
        partition.left.clear()


class NoClaim(MemoryRunner):
    """An owner steps records without having appended anything; winners over strays are still written."""

    async def claim(self, owner: Owner, partition: Partition, replay: Replay) -> None:
        if replay.ignored:
            await super().claim(owner, partition, replay)


class StraysBelieved(MemoryRunner):
    """A batch counts wherever it lies."""

    class history_class(History):
        def take(self, message: Any) -> Closed | None:
            closed = super().take(message)
            if closed is None:
                return None
            rows = sorted([*closed.rows, *closed.ignored], key=lambda row: row.offset)
            return Closed(rows, [], closed.said, closed.last, closed.said)


class NoOrigin(MemoryRunner):
    """A re-produced record is taken for one that was written where it lies."""

    def _arrival(self, place: Place, stored: Any) -> Arrival:
        arrival = super()._arrival(place, stored)
        if arrival.delivery.topic.name != self.spec.repartition.name or arrival.source is None:
            return arrival
        name, number = place
        position = f"{name}.{number}.{stored.offset}"
        return arrival._replace(source=Source(position, name, number, stored.offset, stored.timestamp))


class RehomedOnce(MemoryRunner):
    """A record outside its home is not re-produced when it is delivered again."""

    class owner_class(Owner):
        def _rehome(self, flush: Flush, arrival: Arrival) -> None:
            delivery = arrival.delivery
            partition = self.partitions[delivery.partition]
            if delivery.offset > partition.tail.get(delivery.topic.name, -1):
                super()._rehome(flush, arrival)
            else:
                flush.group.append(Taken(arrival, partition, new=False))


class EndsOfTheLastFetch(MemoryRunner):
    """Whether an input is read to its end is judged by the end that its last fetch told."""

    def fetch(self) -> list[Arrival]:
        found = super().fetch()
        known: dict[Place, int] = self.__dict__.setdefault("known", {})
        for name, number, _ in {arrival.delivery.handle for arrival in found}:
            known[self.topics[name].name, number] = self.process.log.end(name, number)
        return found

    def ends(self, ripe: Any) -> dict[Place, int]:
        known: dict[Place, int] = self.__dict__.get("known", {})
        return {place: known.get(place, 0) for place in super().ends(ripe)}


class CommitsBeforeAcks(Host):
    """An agent commits the offset of an assignment before its report is acked."""

    commits_before_acks = True


class Mutant(NamedTuple):
    """What takes the place of what."""

    runner: type[MemoryRunner] = MemoryRunner
    host: type[Host] = Host

    def coordinator(self) -> type[MemoryCoordinator]:
        """A process with the runner."""
        return type("Coordinator", (MemoryCoordinator,), {"runner_class": self.runner})


MUTANTS = {
    "outputs-before-rows": Mutant(OutputsFirst),
    "no-header-row": Mutant(NoHeader),
    "tail-not-acked-first": Mutant(TailNotFirst),
    "no-claim": Mutant(NoClaim),
    "strays-believed": Mutant(StraysBelieved),
    "no-origin": Mutant(NoOrigin),
    "not-rehomed-again": Mutant(RehomedOnce),
    "ends-of-the-last-fetch": Mutant(EndsOfTheLastFetch),
    "commits-before-acks": Mutant(host=CommitsBeforeAcks),
}
