"""The coordinator without a Kafka: the same processors on a log in memory and a clock that somebody turns.

For unit tests, for users' tests of their agents, for the simulation and for a twin. It runs nothing by itself. Either
`run` does all that can be done at this moment, or `step` takes single steps of a strand, so that a seeded scheduler can
interleave several processes, kill one between any two steps, or let one fall asleep and wake when another has taken over.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn

from schemas.codec import Codecs
from schemas.settings import Settings
from schemas.topics import Topic
from streams.processor import ProcessorSpec
from streams.runtime.compacted import Compacted
from streams.runtime.exits import EXIT_FENCED, EXIT_KAFKA
from streams.runtime.memory_group import Group
from streams.runtime.memory_log import Log, Producer
from streams.runtime.memory_runner import NEVER, Make, MemoryRunner
from streams.runtime.memory_strands import Point, Strand
from streams.runtime.memory_table import Disk, MemoryTable
from streams.runtime.wire import Wire

MICROS = 1_000_000


class Ended(Exception):
    """The process stopped itself; `code` as in `exits.py`. Nothing is committed past this point."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class MemoryCoordinator:
    """One coordinator process. Made once; a process that ended is followed by another one on the same group and disk."""

    runner_class: type[MemoryRunner] = MemoryRunner

    def __init__(
        self,
        settings: Settings,
        processors: Sequence[tuple[ProcessorSpec, Make]],
        codecs: Codecs,
        log: Log,
        clock: Callable[[], int],
        group: Group | None = None,
        disk: Disk | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`clock` gives microseconds. group: shared by the processes of an installation, None for the only one. disk: what
        a process before left behind. rng: draws what is fetched together, and sends land when they are told to; without it
        everything is fetched, and lands at once.
        """
        self.settings, self.log, self._now = settings, log, clock
        self.instance = settings.coordinator.instance
        self.group = f"{settings.kafka.topic_prefix}coordinator"
        self.members = group or Group(settings.kafka.partitions)
        self.wire = Wire(settings, codecs)
        self.producer = Producer(log, at_once=rng is None)
        topics = tuple({topic.name: topic for spec, _ in processors for topic in spec.views}.values())
        self.views = Compacted(topics, codecs, settings.kafka.topic_prefix, settings.kafka.partitions)
        self.views.listeners.append(self._view_changed)
        self.heartbeat_at = clock()
        self.asleep = False
        self._disk = disk or Disk()
        self._view_at = {(name, n): 0 for name in self.views.topics for n in range(settings.kafka.partitions)}
        self._views_up_to = -1
        self._generation = 0
        self._saved: dict[tuple[str, int], int] = {}
        self.runners = [self.runner_class(spec, make, self, rng) for spec, make in processors]
        self.strands: list[Strand] = []
        self.spawn("group", self._membership())
        self.spawn("views", self._follow())
        self.spawn("commits", self._commit())
        self.members.join(self.instance)

    # --- what the scheduler does

    def runnable(self) -> list[Strand]:
        """Strands that a step would take further."""
        return [strand for strand in self.strands if strand.runnable]

    def step(self, strand: Strand) -> None:
        """One stretch of one strand. Raises Ended if the process stopped itself."""
        if not self.asleep:
            self.heartbeat_at = self.clock()
        strand.step()
        if strand.done:
            self.strands.remove(strand)

    def run(self, limit: int = 1_000_000) -> int:
        """Everything that can be done now; returns the number of steps. Raises RuntimeError if it never ends."""
        steps = 0
        while strands := self.runnable():
            for strand in strands:
                self.step(strand)
            steps += len(strands)
            if steps > limit:
                places = [f"{strand.name} at '{strand.at.name}'" for strand in strands]
                raise RuntimeError(f"still busy after {steps} steps: {places}")
        return steps

    def due(self) -> int:
        """When there is something to do although nothing comes, microseconds; far away if never."""
        return min((runner.due() for runner in self.runners), default=NEVER)

    def kill(self) -> None:
        """End as a killed process does: what it sent may still land, what it had not sent is gone."""
        for strand in self.strands:
            strand.close()
        self.strands.clear()

    def stop(self) -> None:
        """Finish what was begun, commit, and leave the group."""
        self.run()
        self._save()
        self.members.leave(self.instance)
        self.kill()

    # --- what the runners need

    def clock(self) -> int:
        """Microseconds."""
        return self._now()

    def table(self, name: str, number: int) -> MemoryTable:
        """The local store of a partition."""
        return self._disk.tables[name, number]

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> Strand:
        """Start a strand; it takes its first step when the scheduler says."""
        strand = Strand(name, coroutine)
        self.strands.append(strand)
        return strand

    def refuse_if_paused(self) -> None:
        """A process that slept past its session may be a zombie, and must not send."""
        silent = (self.clock() - self.heartbeat_at) / MICROS
        if silent > self.settings.coordinator.session_timeout_seconds:
            self.die(EXIT_FENCED, f"the group has not heard of us for {silent:.1f} s; another may own our partitions")

    def die(self, code: int, why: str) -> NoReturn:
        """Stop at once. Raises Ended."""
        raise Ended(code, why)

    async def refresh_schemas(self, schema_id: int) -> None:
        """All schemas are known from the start."""

    # --- its strands

    async def _membership(self) -> None:
        """Own what the group gives, give it back when the group asks."""
        members, name = self.members, self.instance
        await self._read_views()
        while True:
            await Point("waiting for partitions", self._may_move)
            member = members.assignment(name)
            if member is None:
                if name in members.members:
                    members.give_back(name)
                else:
                    members.join(name)
                continue
            self._generation = member.generation
            self._saved.clear()
            for runner in self.runners:
                await runner.own(member.numbers or ())
            loops = [self.spawn(runner.spec.name, self._serve(runner)) for runner in self.runners]
            await Point("serving", lambda loops=loops: all(loop.done for loop in loops))  # type: ignore[misc]
            await Point("giving back")
            self._save()
            for runner in self.runners:
                runner.owner = None
            if name in members.members and self._holds():
                members.give_back(name)

    def _may_move(self) -> bool:
        member = self.members.members.get(self.instance)
        return member is None or member.numbers is not None

    def _holds(self) -> bool:
        return self.members.holds(self.instance, self._generation)

    @property
    def _wanted_back(self) -> bool:
        """Whether the group asks for our partitions; one that sleeps does not hear it."""
        return not self.asleep and (self.members.rebalancing or not self._holds())

    async def _serve(self, runner: MemoryRunner) -> None:
        while True:
            await Point("idle", lambda: self._wanted_back or not runner.idle)
            if self._wanted_back:
                break
            await runner.turn()
        await runner.finish()

    async def _read_views(self) -> None:
        """To the end that they had, before anything is owned."""
        for name, number in self._view_at:
            self.views.reached[self.views.topics[name].name][number] = 0
        ends = {place: self.log.end(*place) for place in self._view_at}
        while any(self._view_at[place] < end for place, end in ends.items()):
            self._look_at_views()
            await Point("reading views")

    async def _follow(self) -> None:
        while True:
            await Point("following views", lambda: self.log.appended != self._views_up_to)
            self._look_at_views()

    def _look_at_views(self) -> None:
        self._views_up_to = self.log.appended
        for (name, number), at in self._view_at.items():
            end = self.log.end(name, number)
            for stored in self.log.read(name, number, at, end - at):
                topic = self.views.topics[name]
                self.views.apply(topic, number, stored.offset, stored.key, stored.value, stored.headers)
            self._view_at[name, number] = end

    def _view_changed(self, topic: Topic, key: str) -> None:
        for runner in self.runners:
            if runner.owner is not None and topic in runner.spec.views:
                runner.owner.processor.view_changed(topic, key)
                runner.look = True

    async def _commit(self) -> None:
        while True:
            await Point("to commit", lambda: any(runner.moved for runner in self.runners))
            for runner in self.runners:
                runner.moved = False
            self._save()

    def _unsaved(self) -> dict[tuple[str, int], int]:
        found: dict[tuple[str, int], int] = {}
        for runner in self.runners:
            found |= {place: at for place, at in runner.commits().items() if self._saved.get(place) != at}
        return found

    def _save(self) -> None:
        """Step 5. A group that has given our partitions to another refuses, and then we may not go on."""
        unsaved = self._unsaved()
        if not unsaved:
            return
        if not self._holds():
            self.die(EXIT_KAFKA, "the group refused a commit: our partitions are another's")
        for (name, number), offset in unsaved.items():
            self.log.commit(self.group, name, number, offset)
        self._saved |= unsaved
