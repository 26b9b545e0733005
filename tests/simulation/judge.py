"""The verdict on one run: the checker of the runs under real faults on a log in memory, and what only a simulation sees."""

from __future__ import annotations

from typing import Any

from schemas.partitioning import home
from schemas.tasks import ReportKind, TaskEventKind
from schemas.topics import AGENT_HEALTH, AGENT_REGISTRY, Topic
from streams.processor import REMOVED_AT, ProcessorSpec
from tests.faults.checker import Checker, Found, Report
from tests.simulation.installation import AGENTS, PARTITIONS, settings_of
from tests.simulation.world import World
from topology import troupe


class Judge(Checker):
    """Judges a world after its calm."""

    agents = AGENTS

    def __init__(self, world: World) -> None:
        super().__init__(settings_of("judge"), world.codecs, world.users.entries)
        self._world = world

    def verdict(self) -> Report:
        """Everything: nothing here waits for anybody, so the checker's coroutine ends at its first step."""
        checking = self.check()
        try:
            checking.send(None)
        except StopIteration as done:
            report: Report = done.value
            self._origins()
            self._views()
            self._unheard()
            self._commits()
            return Report({name: found for name, found in self._bad.items() if found}, report.facts)
        raise AssertionError("the checker waited for something")

    async def read(self, topic: Topic, name: str | None = None) -> list[Found]:
        """All records of a topic, but for those that are none: what becomes of them is told by their dead letters."""
        garbage = {entry.value for entry in self._entries if not entry.id}
        codec, count = self._codecs.of(topic.subject), topic.partitions or PARTITIONS
        found = [e for e in await self._all(self._prefix + (name or topic.name), count) if e.value not in garbage]
        for each in found:
            each.record = None if each.value is None else codec.decode(each.value)
        return found

    async def _all(self, name: str, partitions: int) -> list[Found]:
        history = self._world.log.history
        return [
            Found(name, number, each.offset, each.key, each.value, each.timestamp // 1000, None)
            for number in range(partitions)
            for each in history[name, number]
        ]

    def _stored(self, spec: ProcessorSpec) -> dict[tuple[int, bytes], bytes]:
        """The tables of those who own the partitions now; half of them were rebuilt from the compacted log."""
        found: dict[tuple[int, bytes], bytes] = {}
        for seat in self._world.seats:
            assert seat.process is not None
            for runner in seat.process.runners:
                if runner.spec.name == spec.name and runner.owner is not None:
                    for number in runner.owner.partitions:
                        rows = seat.disk.tables[spec.name, number].rows()
                        found |= {(number, key): value for key, value in rows}
        return found

    def _refusals(self) -> None:
        """Of the submits of one id those with the accepted body are one task, every other one is refused."""
        refused = {each.record.cause for each in self.events if each.record.kind is TaskEventKind.REFUSED}
        told = [each.record for each in self.events]
        accepted = {record.task_id: record.cause for record in told if record.version == 1 and not record.from_state}
        submits = [entry for entry in self._entries if entry.id]
        bodies = {entry.ack: entry.value for entry in submits}
        for entry in submits:
            other = entry.value != bodies.get(accepted.get(entry.id))
            if other != (entry.ack in refused):
                self._bad["I7 a refusal too many or too few"].append(f"{entry.kind} {entry.id} {entry.ack}")

    def _origins(self) -> None:
        """Whatever happened was caused by a record of somebody or by a wake, never by a copy of a record."""
        commands = self._world.users.commands | {entry.ack for entry in self._entries}
        wakes = {f"{self._prefix}{spec.wakes.name}" for spec in troupe().processors}
        reports = f"{self._prefix}tasks.reports"
        for each in self.events:
            topic = each.record.cause.rsplit(".", 2)[0]
            if each.record.cause not in commands and topic not in wakes and topic != reports:
                self._bad["I2 caused by nobody"].append(f"{each.record.task_id} {each.record.kind} {each.record.cause}")

    def _views(self) -> None:
        """What everybody sees of an agent is what its row says."""
        rows: dict[str, Any] = {}
        for seat in self._world.seats:
            assert seat.process is not None
            for runner in seat.process.runners:
                if runner.spec.name == "agents" and runner.owner is not None:
                    rows |= {key: row for each in runner.owner.partitions.values() for key, row in each.open.items()}
        ends: dict[str, int] = {}  # by commands that came by detours the last one need not be the latest
        for number in range(PARTITIONS):
            for each in self._world.log.history[f"{self._prefix}{AGENT_REGISTRY.name}", number]:
                if each.value is None:
                    key = (each.key or b"").decode()
                    ends[key] = max(ends.get(key, 0), int(dict(each.headers)[REMOVED_AT]))
        for seat in self._world.seats:
            assert seat.process is not None
            for topic in (AGENT_REGISTRY, AGENT_HEALTH):
                seen = seat.process.views.items(topic)
                for agent_id in seen.keys() | rows.keys():
                    known = agent_id in seen, agent_id in rows
                    # A command that came by a detour may be older than the end of the life before, and a tie counts as
                    # late: then an agent is seen from its next command on, which for one that is alive is a heartbeat.
                    waits = known == (False, True) and rows[agent_id].updated_at <= ends.get(agent_id, 0)
                    if known != (True, True) and not waits:
                        self._bad["I4 a view is not its rows"].append(f"{topic.name} {agent_id} seen, row: {known}")
            for agent_id, record in seat.process.views.items(AGENT_REGISTRY).items():
                row = rows.get(agent_id)
                if row is not None and (row.state, row.draining) != (record.state, record.draining):
                    self._bad["I4 a view is not its rows"].append(f"{agent_id} {record.state} {row.state}")

    def _spurious_timeouts(self) -> None:
        """Of reports at their home only: of one that lies elsewhere the partition's time knows nothing."""
        everything = self.reports
        self.reports = [each for each in everything if each.partition == home(each.record.task_id, PARTITIONS)]
        super()._spurious_timeouts()
        self.reports = everything

    def _unheard(self) -> None:
        """An agent that commits an assignment for having reported it has its report in the log."""
        ends = (ReportKind.COMPLETED, ReportKind.FAILED)
        told = {(e.record.task_id, e.record.epoch) for e in self.reports if e.record.kind in ends}
        for host in self._world.hosts:
            missing = sorted(host.settled - told)
            self._bad["an assignment is committed and its report is not in the log"] += map(str, missing)

    def _commits(self) -> None:
        """Nothing is left to read."""
        log = self._world.log
        for spec in troupe().processors:
            for topic in spec.reads:
                for number in range(PARTITIONS):
                    name = self._prefix + topic.name
                    committed = log.committed("s.coordinator", name, number)
                    if (committed or (0, ""))[0] != log.end(name, number):
                        self._bad["I6 not read to its end"].append(f"{name}.{number} {committed}")
