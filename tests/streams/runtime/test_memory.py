"""The coordinator in memory by itself: assignments, redelivery, the local store, a second owner, and how it stops."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from ops.memory.clock import VirtualClock
from ops.memory.installation import create_topics, memory_codecs
from ops.memory.log import MemoryLog
from ops.roles.coordinator import processors
from schemas.agents import AgentCommand, AgentDefinition
from schemas.partitioning import home
from schemas.settings import Coordinator, Kafka, Settings
from schemas.tasks import TaskCommand
from schemas.topics import AGENT_COMMANDS, TASK_EVENTS, TASK_REQUESTS, Topic
from streams.runtime.memory import Ended, MemoryCoordinator
from streams.runtime.memory_group import Group
from streams.runtime.memory_table import Disk, MemoryTable
from topology import troupe

SECOND = 1_000_000


@dataclass
class Place:
    """A log with a group of coordinators on it."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    group: Group = field(default_factory=lambda: Group(2))

    def __post_init__(self) -> None:
        self.log = MemoryLog(self.clock)
        create_topics(self.log, settings("any"), troupe())
        self.codecs = memory_codecs(settings("any"))

    def coordinator(self, name: str = "c1", disk: Disk | None = None, rng: random.Random | None = None) -> MemoryCoordinator:
        given = settings(name)
        rules = processors(given, troupe(), self.codecs)
        return MemoryCoordinator(given, rules, self.codecs, self.log, lambda: self.clock.now, self.group, disk, rng)

    def put(self, topic: Topic, key: str, record: Any, partition: int | None = None) -> None:
        number = home(key, 2) if partition is None else partition
        value = self.codecs.of(topic.subject).encode(record)
        self.log.append(f"m.{topic.name}", number, [(key.encode(), value, ())])

    def submit(self, task_id: str, partition: int | None = None, **fields: Any) -> None:
        command = TaskCommand(event_id="e", occurred_at=1, source="t", task_id=task_id, **fields)
        self.put(TASK_REQUESTS, task_id, command, partition)

    def tell(self, agent_id: str, kind: str, **fields: Any) -> None:
        command = AgentCommand.model_validate(
            {"event_id": "e", "occurred_at": 1, "source": "t", "kind": kind, "agent_id": agent_id, **fields}
        )
        self.put(AGENT_COMMANDS, agent_id, command)

    def events(self) -> list[tuple[str, str]]:
        codec = self.codecs.of(TASK_EVENTS.subject)
        found = [each for n in range(2) for each in self.log.read("m.tasks.events", n, 0, 1000)]
        return [(event.task_id, str(event.kind)) for event in (codec.decode(each.value) for each in found)]


def settings(name: str) -> Settings:
    return Settings(kafka=Kafka(partitions=2, topic_prefix="m."), coordinator=Coordinator(instance=name))


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_task_goes_to_an_agent_that_is_there(place: Place) -> None:
    coordinator = place.coordinator()
    definition = AgentDefinition(agent_id="a", agent_type="t", capabilities=["dig"])
    place.tell("a", "register", definition=definition)
    place.tell("a", "heartbeat")
    coordinator.run()
    place.submit("t", required_capabilities=["dig"])
    coordinator.run()
    assert place.events() == [("t", "assigned")]
    assert place.log.end("m.agents.a.inbox", 0) == 1
    assert coordinator.run() == 0, "nothing is left to do"
    assert place.clock.now < coordinator.due() <= place.clock.now + 30 * SECOND, "the agent's silence is what comes next"


@pytest.mark.parametrize("keeps_its_disk", [True, False])
def test_who_comes_after_a_kill_goes_on(place: Place, keeps_its_disk: bool) -> None:
    disk = Disk()
    first = place.coordinator(disk=disk)
    place.submit("t", hold=True)
    first.run()
    first.kill()
    second = place.coordinator(disk=disk if keeps_its_disk else None)
    place.submit("t", hold=True)
    place.submit("t", kind="cancel")
    second.run()
    assert place.events() == [("t", "accepted"), ("t", "cancelled")]


def test_offsets_set_back_change_nothing(place: Place) -> None:
    coordinator = place.coordinator()
    place.submit("t", hold=True)
    place.submit("t", kind="cancel")
    coordinator.run()
    coordinator.kill()
    for number in range(2):
        place.log.commit("m.coordinator", "m.tasks.requests", number, 0)
    place.coordinator().run()
    assert sorted(set(place.events())) == [("t", "accepted"), ("t", "cancelled")]
    assert place.log.committed("m.coordinator", "m.tasks.requests", home("t", 2)) == (2, "")


def test_a_record_at_another_partition_finds_home(place: Place) -> None:
    coordinator = place.coordinator()
    place.submit("t", partition=1 - home("t", 2), hold=True)
    coordinator.run()
    assert place.log.end("m.tasks.repartition", home("t", 2)) == 1
    assert place.events() == [("t", "accepted")]


def test_partitions_move_when_a_second_one_joins_and_come_back_when_it_leaves(place: Place) -> None:
    first = place.coordinator()
    first.run()
    second = place.coordinator("c2")
    for _ in range(3):
        first.run()
        second.run()
    owned = [sorted(runner.owner.partitions) for each in (first, second) for runner in each.runners if runner.owner]
    assert owned == [[0], [0], [1], [1]]
    for n in range(8):
        place.submit(f"t{n}", hold=True)
    first.run()
    second.run()
    second.stop()
    first.run()
    assert {task for task, _ in place.events()} == {f"t{n}" for n in range(8)}
    assert sorted(first.runners[0].owner.partitions[0].open) + sorted(first.runners[0].owner.partitions[1].open)
    assert sum(len(each.open) for each in first.runners[0].owner.partitions.values()) == 8


def test_each_coordinator_assigns_to_every_partition_of_an_inbox(place: Place) -> None:
    """Only the owner of the agent's row is told how many there are."""
    first, second = place.coordinator(), place.coordinator("c2")
    definition = AgentDefinition(
        agent_id="wide", agent_type="t", capabilities=["dig"], max_in_flight=100, config='{"inbox_partitions":3}'
    )
    place.tell("wide", "register", definition=definition)
    place.tell("wide", "heartbeat")
    for _ in range(4):
        first.run()
        second.run()
    tasks = [f"t{n}" for n in range(24)]
    for task in tasks:
        place.submit(task, required_capabilities=["dig"])
    for _ in range(2):
        first.run()
        second.run()
    assert {home(task, 2) for task in tasks} == {0, 1}, "both had some to assign"
    found = {(n, each.key.decode()) for n in range(3) for each in place.log.read("m.agents.wide.inbox", n, 0, 100)}
    assert found == {(home(task, 3), task) for task in tasks}


def test_one_that_was_overtaken_stops_at_its_next_append(place: Place) -> None:
    old = place.coordinator()
    old.run()
    place.group.leave("c1")
    new = place.coordinator("c2")
    new.run()
    old.asleep = True  # it has not heard of it
    place.submit("t", hold=True)
    with pytest.raises(Ended, match="acked at 2, expected 1") as ended:
        old.run()
    assert ended.value.code == 72
    old.kill()
    with pytest.raises(Ended, match="acked at 4, expected 2"):
        new.run()
    new.kill()
    place.coordinator("c2").run()
    assert place.events() == [("t", "accepted")], "the stray is ignored, and the task is taken by whoever owns it"


def test_one_that_slept_through_its_session_does_not_send(place: Place) -> None:
    coordinator = place.coordinator()
    coordinator.run()
    coordinator.asleep = True
    place.clock.advance(7 * SECOND)
    place.submit("t", hold=True)
    with pytest.raises(Ended, match=r"not heard of us for 7\.0 s"):
        coordinator.run()
    assert place.events() == []


def test_what_was_not_landed_is_not_done(place: Place) -> None:
    coordinator = place.coordinator(rng=random.Random(1))
    for _ in range(200):
        for strand in coordinator.runnable():
            coordinator.step(strand)
        for sending in coordinator.producer.next():
            coordinator.producer.land(sending)
    place.submit("t", hold=True)
    for _ in range(200):
        for strand in coordinator.runnable():
            coordinator.step(strand)
    assert [sending.topic for sending in coordinator.producer.queue] == ["m.coordinator-tasks-changelog"]
    assert place.events() == []


def test_a_claim_removes_what_was_published_late_of_an_agent_that_is_gone(place: Place) -> None:
    coordinator = place.coordinator()
    place.tell("a", "register", definition=AgentDefinition(agent_id="a", agent_type="t"))
    coordinator.run()
    late = [(each.key, each.value, each.headers) for each in place.log.read("m.agents.registry", home("a", 2), 0, 1)]
    place.tell("a", "unregister")
    coordinator.run()
    coordinator.kill()
    place.log.append("m.agents.registry", home("a", 2), late)
    place.log.trim("m.agents.registry", home("a", 2), place.log.end("m.agents.registry", home("a", 2)) - 1)
    place.coordinator().run()
    last = place.log.read("m.agents.registry", home("a", 2), 0, 100)[-1]
    assert (last.key, last.value) == (b"a", None)


def test_finished_rows_leave_oldest_first() -> None:
    table = MemoryTable()
    for at, key in ((30, b"c"), (10, b"a"), (20, b"b")):
        table.put(key, b"v", at)
    table.put(b"b", b"again", None)
    assert table.leaving(25, 10) == [(b"", b"a")]
    assert table.leaving(40, 1) == [(b"", b"a")]
    table.drop(b"a")
    assert table.leaving(40, 10) == [(b"", b"c")]
    assert dict(table.rows()) == {b"b": b"again", b"c": b"v"}
    assert table.stored(b"c") == (b"v", 30) and table.stored(b"b") == (b"again", None) and table.stored(b"a") == (None, None)
