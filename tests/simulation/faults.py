"""What befalls a simulated installation: deaths, sleeps, rebalances, late words of the dead, slow inputs, jumps of time.

Each is one move of the scheduler. Nothing here mends anything; the calm after the faults does.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from ops.memory.clock import VirtualClock
from streams.runtime.memory import MemoryCoordinator
from streams.runtime.memory_group import Group
from streams.runtime.memory_log import Producer
from streams.runtime.memory_table import Disk
from tests.simulation.hosts import Host
from tests.simulation.installation import SECOND, RecordedLog
from tests.simulation.users import Users


@dataclass
class Seat:
    """The place of one coordinator: its machine's disk, and who runs there now, if anybody."""

    instance: str
    disk: Disk = field(default_factory=Disk)
    process: MemoryCoordinator | None = None


class Faults(ABC):
    """The moves; whoever runs them has these."""

    rng: random.Random
    clock: VirtualClock
    log: RecordedLog
    group: Group
    users: Users
    hosts: list[Host]
    seats: list[Seat]
    away: set[str]
    ghosts: list[Producer]

    @abstractmethod
    def say(self, who: str, what: str) -> None:
        """Add to the trace."""

    @abstractmethod
    def step(self, seat: Seat, times: int) -> bool:
        """Some steps of one process; whether there were any."""

    @abstractmethod
    def agent(self) -> None:
        """One step of an agent."""

    @abstractmethod
    def land(self) -> None:
        """Some of what was sent arrives."""

    @abstractmethod
    def user(self) -> None:
        """One record of a user."""

    @abstractmethod
    def coordinator(self) -> None:
        """Some steps of a coordinator."""

    @abstractmethod
    def _died(self, seat: Seat) -> None:
        """A process ends as one that was killed."""

    @abstractmethod
    def _awake(self) -> list[Seat]:
        """Seats whose process runs."""

    @abstractmethod
    def _land(self, name: str, producer: Producer) -> None:
        """One batch arrives."""

    @abstractmethod
    def _pass(self, micros: int) -> None:
        """Time passes."""

    @abstractmethod
    def _settle(self) -> None:
        """All is done that can be done at this moment."""

    def crash(self) -> None:
        """A process is killed; its disk may be lost with it, its last words may be heard, and commits may go back."""
        seats = [seat for seat in self.seats if seat.process is not None]
        if not seats:
            return
        seat = self.rng.choice(seats)
        if seat.instance not in self.away and self.rng.random() < 0.3:
            self._until_it_writes(seat)
            if seat.process is None:
                return
        self.say(seat.instance, "is killed")
        self._died(seat)
        self.away.discard(seat.instance)
        if self.rng.random() < 0.4:
            self.ghosts = []
        if self.rng.random() < 0.35:
            self.say(seat.instance, "loses its disk")
            seat.disk = Disk()
        if self.rng.random() < 0.4:
            self._expel(seat)
        if self.rng.random() < 0.3:
            self._rewind()

    def _expel(self, seat: Seat) -> None:
        self.say("group", f"expels {seat.instance}")
        self.group.leave(seat.instance)

    def _rewind(self) -> None:
        """Somebody sets offsets back: more is delivered again than a crash would."""
        for (group, topic, partition), (offset, _) in list(self.log.commits().items()):
            if group == "s.coordinator" and self.rng.random() < 0.3:
                back = self.rng.randint(0, offset)
                self.log.commit(group, topic, partition, back)
                self.say("somebody", f"sets {topic}.{partition} from {offset} to {back}")

    def pause(self) -> None:
        """A process stops for longer than its session; or one that did goes on, not knowing."""
        asleep = [seat for seat in self.seats if seat.instance in self.away and seat.process is not None]
        if asleep:
            seat = self.rng.choice(asleep)
            self.away.discard(seat.instance)
            self.say(seat.instance, "goes on")
            assert seat.process is not None
            if self.rng.random() < 0.3:
                seat.process.asleep = False  # the first thing that it does is to hear of the group
            return
        seats = [seat for seat in self._awake() if seat.process is not None and not seat.process.asleep]
        if seats:
            seat = self.rng.choice(seats)
            if self.rng.random() < 0.6:
                self._until_it_writes(seat)
                if seat.process is None:
                    return
            self.away.add(seat.instance)
            assert seat.process is not None
            seat.process.asleep = True
            self.say(seat.instance, "falls asleep")
            if self.rng.random() < 0.7:
                self._pass(7 * SECOND)
                self._expel(seat)

    def _until_it_writes(self, seat: Seat) -> None:
        """Go on, without a network, until a batch for a changelog is on its way: what is worth being late with."""
        for _ in range(30):
            process = seat.process
            if process is None or any(each.topic.endswith("-changelog") for each in process.producer.queue):
                return
            self.step(seat, 1)

    def doze(self) -> None:
        """Every coordinator stands still for less than a session, while agents work and time passes."""
        self.say("time", "the coordinators stand still")
        for _ in range(self.rng.choice([6, 12, 18])):
            self.agent()
            for host in self.hosts:
                if host.producer.queue and self.rng.random() < 0.7:
                    self._land(host.agent_id, host.producer)
            if self.rng.random() < 0.2:
                self._pass(SECOND)
        self._pass(2 * SECOND)
        for seat in self._awake():
            assert seat.process is not None
            for runner in seat.process.runners:
                if self.rng.random() < 0.4:  # and afterwards one input answers before another
                    runner.slow.add(list(runner.topics)[self.rng.choice([0, 1, 1, 2, 3]) % len(runner.topics)])

    def overtaken(self) -> None:
        """A coordinator is lost with a batch on its way; somebody takes over, hears little, and then the batch arrives."""
        seats = [seat for seat in self._awake() if seat.process is not None and not seat.process.asleep]
        if not seats:
            return
        seat = self.rng.choice(seats)
        for _ in range(self.rng.choice([0, 100])):
            if seat.process is None or _writes_what_was_woken(seat.process.producer):
                break
            self.rng.choice([self.agent, self.land, lambda: self.step(seat, 3), self.user])()
        self._until_it_writes(seat)
        if seat.process is None or not seat.process.producer.queue:
            return
        late = seat.process.producer
        self.say(seat.instance, "is overtaken")
        self._died(seat)
        self._expel(seat)
        if self.rng.random() < 0.3:
            self.away.add(self.rng.choice(self.hosts).agent_id)
            self._pass(16 * SECOND)
        for _ in range(self.rng.choice([6, 12, 25])):
            for other in self._awake():
                self.step(other, 10)
                if other.process is None:
                    continue
                if self.rng.random() < 0.1:
                    other.process.runners[0].slow |= set(self.rng.sample(list(other.process.runners[0].topics), 2))
                while other.process.producer.queue and self.rng.random() < 0.8:
                    self._land(other.instance, other.process.producer)
        while late.queue:
            self._land("late", late)

    def slow(self) -> None:
        """Of some input nothing comes for a while, or it comes again."""
        seats = self._awake()
        if not seats:
            return
        process = self.rng.choice(seats).process
        assert process is not None
        runner = self.rng.choice(process.runners)
        if runner.slow:
            self.say(process.instance, f"{runner.spec.name} hears again of {sorted(runner.slow)}")
            runner.slow.clear()
        else:
            runner.slow.add(self.rng.choice(list(runner.topics)))
            self.say(process.instance, f"{runner.spec.name} hears nothing of {sorted(runner.slow)}")

    def rebalance(self) -> None:
        self.say("group", "rebalances")
        self.group.rebalance()

    def agent_dies(self) -> None:
        """An agent is killed, perhaps for so long that it counts as gone."""
        host = self.rng.choice(self.hosts)
        if host.agent_id in self.away:
            self.away.discard(host.agent_id)
            self.say(host.agent_id, "comes back")
            return
        for _ in range(self.rng.choice([0, 4, 8])):  # what it sends now is still on its way when it dies
            if host.busy():
                self.say(host.agent_id, host.step())
        self.say(host.agent_id, "is killed")
        if self.rng.random() < 0.5 and host.producer.queue:
            self.ghosts.append(host.producer)
        host.begin()
        if self.rng.random() < 0.6:
            self.away.add(host.agent_id)
            if self.rng.random() < 0.5:
                self._pass(16 * SECOND)

    def unregister(self) -> None:
        host = self.rng.choice(self.hosts)
        forced = self.rng.random() < 0.5
        self.say("user", "unregister at " + self.users.agent_command(host.agent_id, "unregister", force=forced))
        host.registered = False

    def compact(self) -> None:
        self.say("broker", "compacts")
        self.log.compact_all()

    def ghost(self) -> None:
        """What a dead process had sent, or one that sleeps, arrives late; or it never does."""
        asleep = [seat.process.producer for seat in self.seats if seat.process and seat.instance in self.away]
        late = [*self.ghosts, *(producer for producer in asleep if producer.queue)]
        if late:
            producer = self.rng.choice(late)
            if producer.queue and self.rng.random() < 0.8:
                self._land("late", producer)
            elif producer in self.ghosts:
                self.ghosts.remove(producer)

    def long_jump(self) -> None:
        """All is done; then nobody does anything for two hours. Who sleeps on would read ids that are known no more."""
        if any(seat.instance in self.away for seat in self.seats):
            return
        self._settle()
        self.say("time", "two hours pass")
        self._pass(7_200 * SECOND)


def _writes_what_was_woken(producer: Producer) -> bool:
    """Whether a row is on its way whose cause is a wake."""
    batches = [sending.records for sending in producer.queue if sending.topic == "s.coordinator-tasks-changelog"]
    return any(b"s.tasks.wakes." in (value or b"") for records in batches for _, value, _ in records)
