"""One run: a coordinator group, two agents and their users under a scheduler that draws everything from one seed.

The faults come first and the calm after: in the end everybody lives, behaves and is scheduled until nothing is left to do.
Then the log is judged. A run is made of its seed and of the rules that are switched off; nothing else enters it.
"""

from __future__ import annotations

import random

from ops.memory.clock import VirtualClock
from ops.memory.installation import memory_codecs
from ops.roles.coordinator import processors
from streams.runtime.memory import Ended, MemoryCoordinator
from streams.runtime.memory_group import Group
from streams.runtime.memory_log import Producer
from streams.runtime.memory_strands import Strand
from streams.runtime.memory_table import Disk
from tests.simulation.faults import Faults, Seat
from tests.simulation.hosts import Host
from tests.simulation.installation import AGENTS, PARTITIONS, SECOND, new_log, settings_of
from tests.simulation.users import Users
from topology import troupe

INSTANCES = ("c1", "c2")
BUGS = 71
"""Exit code of a process that found itself in the wrong."""

BUSY = {"coordinator": 40, "land": 30, "user": 4, "agent": 14, "time": 6}
RARE = {
    "crash": 1.2, "pause": 1.2, "rebalance": 0.4, "agent dies": 0.8, "compact": 0.2, "ghost": 2, "long jump": 0.05,
    "unregister": 0.1, "doze": 1, "slow": 1, "overtaken": 0.6,
}  # fmt: skip


class Violation(AssertionError):
    """Something happened that must not, whatever the log says."""


class World(Faults):
    """See above. `coordinator` is the class of the processes, `host` that of the agents: what a mutant replaces."""

    def __init__(
        self, seed: int, coordinator: type[MemoryCoordinator] = MemoryCoordinator, host: type[Host] = Host
    ) -> None:
        self.seed, self._class = seed, coordinator
        self.rng = random.Random(seed)
        self.trace: list[tuple[int, str, str]] = []
        self.exits: list[tuple[str, int, str]] = []
        self.clock = VirtualClock()
        self._began = self.clock.now
        self.log = new_log(self.clock)
        self.codecs = memory_codecs(settings_of("any"))
        self.group = Group(PARTITIONS, self._spread)
        self.ghosts: list[Producer] = []
        self.users = Users(self.log, self.codecs, self.rng)
        crowded = self.users.plain = self.rng.random() < 0.25
        agents = AGENTS[: 1 if crowded else self.rng.choice([1, 2, 2])]
        self.hosts = [host(agent_id, self.log, self.codecs, self.rng, self.users) for agent_id in agents]
        self.away: set[str] = set()
        self.seats = [Seat(name) for name in INSTANCES[: self.rng.choice([1, 2, 2])]]
        self.limit = self.rng.randint(3, 14)
        weights = BUSY | {name: weight * self.rng.choice([0, 1, 4]) for name, weight in RARE.items()}
        weights["user"] *= 4 if crowded else 1
        weights["land"] *= self.rng.choice([0.3, 1, 3])
        self._actions, self._weights = list(weights), list(weights.values())
        self._calm = False

    def _spread(self, names: object, partitions: int) -> dict[str, frozenset[int]]:
        """Whatever the group comes up with: each partition has one owner, some members may have none."""
        members = sorted(names)  # type: ignore[call-overload]
        owners = [self.rng.choice(members) for _ in range(partitions)]
        return {name: frozenset(n for n, owner in enumerate(owners) if owner == name) for name in members}

    def say(self, who: str, what: str) -> None:
        self.trace.append((self.clock.now - self._began, who, what))

    # --- the run

    def run(self, actions: int) -> None:
        """Faults, then calm. Raises Violation."""
        for seat in self.seats:
            self.start(seat)
        for host in self.hosts:
            self.say(host.agent_id, host.register())
        if self.rng.random() < 0.8:
            self._settle()  # most runs begin with agents that are there; some with the dawn of everything
        for action in self.rng.choices(self._actions, self._weights, k=actions):
            getattr(self, action.replace(" ", "_"))()
        self.calm_down()

    def start(self, seat: Seat) -> None:
        settings = settings_of(seat.instance)
        seat.process = self._class(
            settings, processors(settings, troupe(), self.codecs), self.codecs, self.log, lambda: self.clock.now,
            self.group, seat.disk, self.rng,
        )  # fmt: skip
        self.say(seat.instance, "starts")

    def step(self, seat: Seat, times: int) -> bool:
        """Some steps of one process; whether there were any."""
        process = seat.process
        assert process is not None
        for done in range(times):
            strand = self._draw(process.strands)
            if strand is None:
                return done > 0
            try:
                process.step(strand)
            except Ended as end:
                self.say(seat.instance, f"ends {end.code}: {end}")
                self.exits.append((seat.instance, end.code, str(end)))
                if end.code == BUGS:
                    raise Violation(f"{seat.instance} stopped for a bug: {end}") from end
                self._died(seat)
                return True
            self.say(seat.instance, f"{strand.name}: {strand.at.name}")
        return True

    def _draw(self, strands: list[Strand]) -> Strand | None:
        """One that can go on: the next from a place that is drawn, which is cheaper than to ask them all."""
        first = int(self.rng.random() * len(strands))
        for strand in [*strands[first:], *strands[:first]]:
            if strand.runnable:
                return strand
        return None

    def _died(self, seat: Seat) -> None:
        process = seat.process
        assert process is not None
        process.kill()
        if process.producer.queue:
            self.ghosts.append(process.producer)
        seat.process = None

    # --- ordinary life

    def _awake(self) -> list[Seat]:
        return [seat for seat in self.seats if seat.process is not None and seat.instance not in self.away]

    def coordinator(self) -> None:
        dead = [seat for seat in self.seats if seat.process is None]
        if dead and self.rng.random() < 0.3:
            self.start(self.rng.choice(dead))
        awake = self._awake()
        if awake:
            self.step(self.rng.choice(awake), self.rng.choice([1, 2, 5, 10, 20]))

    def _producers(self) -> list[tuple[str, Producer]]:
        running = [(seat.instance, seat.process.producer) for seat in self._awake() if seat.process is not None]
        return running + [(host.agent_id, host.producer) for host in self.hosts]

    def land(self) -> None:
        """Some of what was sent arrives."""
        for name, producer in self._producers():
            for _ in range(self.rng.choice([0, 1, 3])):
                if producer.queue:
                    self._land(name, producer)

    def _land(self, name: str, producer: Producer) -> None:
        sending = self.rng.choice(producer.next())
        producer.land(sending)
        self.say(name, f"{sending.topic}.{sending.partition}.{sending.offset} lands, {len(sending.records)} records")

    def user(self) -> None:
        if len(self.users.entries) + len(self.users.commands) < self.limit * 4 and len(self.users.tasks) < self.limit:
            self.say("user", self.users.act())

    def agent(self) -> None:
        hosts = [host for host in self.hosts if host.agent_id not in self.away and host.busy()]
        if hosts:
            host = self.rng.choice(hosts)
            self.say(host.agent_id, host.step())

    def time(self) -> None:
        self._pass(self.rng.choice([1, 1_000, 50_000, 500_000, SECOND, 2 * SECOND, 2 * SECOND, 6 * SECOND]))

    def _pass(self, micros: int) -> None:
        self.clock.advance(micros)
        for seat in self._awake():
            assert seat.process is not None
            if not seat.process.asleep:
                seat.process.heartbeat_at = self.clock.now

    # --- the calm

    def calm_down(self) -> None:
        """All live, behave and are scheduled until nothing is left to do. Raises Violation if that never comes."""
        self._calm = True
        self.say("calm", "begins")
        self.away.clear()
        for host in self.hosts:
            host.tame = True
            for work in host.works:
                work.until, work.outcome = min(work.until, self.clock.now), "completed"
        for _ in range(400):
            self._settle()
            if self._over():
                break
            due = [seat.process.due() for seat in self.seats if seat.process is not None]
            due += [host.due() for host in self.hosts]
            self._pass(max(1_000, min(due) - self.clock.now))
        else:
            raise Violation("something is left to do for ever")
        for seat in self.seats:  # the last strays are found by whoever takes over
            assert seat.process is not None
            self.say(seat.instance, "is killed at the end")
            self._died(seat)
            if self.rng.random() < 0.5:
                seat.disk = Disk()
        self.ghosts = []
        self._settle()

    def _settle(self) -> None:
        """Everything that can be done at this moment."""
        for _ in range(20_000):
            moved = False
            for producer in [*self.ghosts, *(producer for _, producer in self._producers())]:
                while producer.queue:
                    self._land("calm", producer)
                    moved = True
            self.ghosts = []
            for seat in self.seats:
                if seat.instance in self.away:
                    continue
                if seat.process is None:
                    self.start(seat)
                    moved = True
                assert seat.process is not None
                seat.process.asleep = False
                for runner in seat.process.runners:
                    runner.slow.clear()
                if self.step(seat, 20):
                    moved = True
            for host in self.hosts:
                if host.agent_id not in self.away and host.busy():
                    said = host.step()
                    self.say(host.agent_id, said)
                    moved = moved or said != "waits"
            if not moved:
                return
        raise Violation("never at rest")

    def _over(self) -> bool:
        """Every submitted task has its outcome, and all that was read is committed."""
        for seat in self.seats:
            if seat.process is None:
                return False
            for runner in seat.process.runners:
                if runner.owner is None or (runner.spec.name == "tasks" and _open(runner.owner.partitions)):
                    return False
        return True


def _open(partitions: dict[int, object]) -> bool:
    return any(getattr(partition, "open") or getattr(partition, "held") for partition in partitions.values())  # noqa: B009
