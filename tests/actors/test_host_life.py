"""How a host becomes known, stays known, shares its work and stops, on a real Kafka."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from actors.api import Actor, Context
from actors.runtime.kafka import run_host
from schemas.agents import AgentEvent, AgentEventKind, AgentFault, AgentState
from schemas.errors import OperatorError
from schemas.inbox import InboxKind, InboxRecord
from schemas.topics import AGENT_COMMANDS, AGENT_EVENTS, TASK_REPORTS
from tests.actors.processes import process
from tests.actors.stage import Stage, assignment, micros, outcomes
from tests.actors.test_host_kafka import Diary, add

pytestmark = pytest.mark.kafka


async def test_a_stop_is_answered_with_a_heartbeat_at_the_end_of_the_inbox(broker: str, tmp_path: Path) -> None:
    diary = Diary()
    async with (
        Stage.open(broker, tmp_path) as stage,
        stage.host(Actor("slow", diary.wait, heartbeat_interval_seconds=3600)),
    ):
        await stage.assign("slow", "a")
        await diary.until("a/1")
        stop = InboxRecord(event_id="e", occurred_at=micros(), source="coordinator", kind=InboxKind.STOP)
        await stage.inbox("slow", stop, "slow")
        await asyncio.sleep(0.5)
        diary.gates["a/1"].set()
        beats = await stage.commands(lambda seen: len(seen) == 3)
        assert [each.kind for each in beats] == ["register", "heartbeat", "heartbeat"]
        assert (beats[-1].load, beats[-1].inbox_lag) == (0, 0)
        await stage.reports(lambda seen: outcomes(seen) == {"a": "completed"})


async def test_a_handler_that_blocks_does_not_take_the_host_offline(broker: str, tmp_path: Path) -> None:
    async def block(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        time.sleep(3)  # noqa: ASYNC251 - the point of the test
        return {}

    async with (
        Stage.open(broker, tmp_path, actors__session_timeout_seconds=2) as stage,
        stage.host(Actor("rude", block, heartbeat_interval_seconds=1)),
    ):
        await stage.commands(len)
        began = micros()
        await stage.assign("rude", "a")
        await stage.reports(len)
        beats = await stage.commands(lambda seen: seen[-1].occurred_at > began + 3_000_000)
        during = [each for each in beats if began + 200_000 < each.occurred_at < began + 2_800_000]
        assert len(during) >= 2
        assert during[-1].load == 1
        await stage.assign("rude", "b")  # the group had dropped the host meanwhile: it is back, and repeats nothing
        reports = await stage.reports(lambda seen: "b" in outcomes(seen))
        await stage.committed_to("rude", 2)
        assert [each.task_id for each in reports] == ["a", "b"]


async def test_two_hosts_of_one_name_share_the_work_and_lose_none(broker: str, tmp_path: Path) -> None:
    async def brief(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await asyncio.sleep(0.002)
        return {}

    actors = [Actor(f"brief{n}", brief) for n in range(4)]
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(*actors)
        async with stage.host(*actors, enrol=False):
            for n in range(4):
                await stage.assign_many(f"brief{n}", [assignment(f"first-{n}-{i}") for i in range(200)])
            async with stage.host(*actors, enrol=False):
                for n in range(4):
                    await stage.assign_many(f"brief{n}", [assignment(f"second-{n}-{i}") for i in range(200)])
                reports = await stage.reports(lambda seen: len(outcomes(seen)) == 1600, 40)
        assert set(outcomes(reports).values()) == {"completed"}
        assert await stage.committed("brief0") == (400, "")


async def test_a_refused_registration_is_an_error_with_its_text(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage:
        running = asyncio.create_task(
            run_host(stage.settings, [Actor("adder", add)], stage.codecs, lambda: None, asyncio.Event())
        )
        (command,) = await stage.commands(len)
        assert (command.kind, command.agent_id, command.replace) == ("register", "adder", False)
        partition = 0 if await _end(stage, 0) else 1
        await stage.put(AGENT_EVENTS, "adder", AgentEvent(
            event_id="e", occurred_at=micros(), source="coordinator", kind=AgentEventKind.REFUSED, agent_id="adder",
            version=0, cause=f"{stage.name(AGENT_COMMANDS)}.{partition}.0", to_state=AgentState.ABSENT,
            error=AgentFault(code="agent_conflict", message="Agent 'adder' is not wanted"),
        ))  # fmt: skip
        with pytest.raises(OperatorError, match="Agent 'adder' is not wanted"):
            await asyncio.wait_for(running, 10)


async def _end(stage: Stage, partition: int) -> int:
    reader = await stage._reader(AGENT_COMMANDS)
    ends = await reader.end_offsets([each for each in reader.assignment() if each.partition == partition])
    return next(iter(ends.values()))


async def test_another_definition_replaces_the_old_one(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(Actor("adder", add))
        newer = Actor("adder", add, capabilities=["sums"])
        running = asyncio.create_task(
            run_host(stage.settings, [newer], stage.codecs, lambda: None, stop := asyncio.Event())
        )
        (command,) = await stage.commands(len)
        assert command.replace
        assert command.definition == newer.definition()
        await stage.enrol(newer)
        await stage.commands(lambda seen: seen[-1].kind == "heartbeat")
        stop.set()
        await asyncio.wait_for(running, 20)


async def test_an_id_that_differs_in_case_only_is_refused(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(Actor("Adder", add))
        with pytest.raises(OperatorError, match="'adder' differs from agent 'Adder' in case only"):
            await run_host(stage.settings, [Actor("adder", add)], stage.codecs, lambda: None, asyncio.Event())
        assert await stage.quiet(AGENT_COMMANDS, 0.3) == []


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a/b", "a~b", "ä", "x" * 65])
def test_an_id_that_is_no_topic_name_is_refused_when_the_actor_is_made(name: str) -> None:
    with pytest.raises(ValueError, match="agent_id"):
        Actor(name, add)


async def test_without_a_coordinator_the_error_says_so(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path, coordinator__ready_seconds=2) as stage:
        with pytest.raises(OperatorError, match="did not register adder within 2 s") as raised:
            await run_host(stage.settings, [Actor("adder", add)], stage.codecs, lambda: None, asyncio.Event())
        assert "troupe up" in raised.value.hint


async def test_reports_lie_at_their_home(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("adder", add)):
        await stage.assign_many("adder", [assignment(f"t{n}", {"a": 1, "b": 2}) for n in range(50)])
        reader = await stage._reader(TASK_REPORTS)
        found: dict[str, int] = {}
        async with asyncio.timeout(20):
            while len(found) < 50:
                for partition, messages in (await reader.getmany(timeout_ms=50)).items():
                    found |= {(each.key or b"").decode(): partition.partition for each in messages}
        placed = {}
        for key in found:
            placed[key] = (
                await stage.producer.send_and_wait(stage.name(TASK_REPORTS), key=key.encode(), value=b"x")
            ).partition
        assert found == placed


async def test_a_stop_while_nobody_answers_the_registration(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage:
        stop = asyncio.Event()
        running = asyncio.create_task(run_host(stage.settings, [Actor("adder", add)], stage.codecs, stop.set, stop))
        await stage.commands(len)
        stop.set()
        await asyncio.wait_for(running, 5)


async def test_a_stop_during_the_start_has_its_limit(broker: str, tmp_path: Path) -> None:
    """Somebody listens at the broker's address and says nothing; the host is asked to stop while it waits for a word."""
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    slow = {"TROUPE_KAFKA__REQUEST_TIMEOUT_SECONDS": "120", "TROUPE_KAFKA__METADATA_TIMEOUT_SECONDS": "120"}
    async with (
        server,
        Stage.open(broker, tmp_path, actors__drain_seconds=0) as stage,
        process(stage, wait=False, TROUPE_KAFKA__BOOTSTRAP_SERVERS=f"{host}:{port}", **slow) as child,
    ):
        await asyncio.wait_for(asked.wait(), 20)
        child.terminate()
        assert await asyncio.wait_for(child.wait(), 20) == 75
        assert child.said("stop_forced")


async def test_a_goodbye_that_takes_too_long_is_not_said(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path, actors__goodbye_seconds=0) as stage:
        with capture_logs() as told:
            async with stage.host(Actor("adder", add)):
                await stage.commands(lambda seen: len(seen) == 2)
        assert [each["event"] for each in told].count("goodbye_not_said") == 1
        assert not any(each.goodbye for each in await stage.commands(lambda seen: len(seen) == 2))


async def test_only_the_last_process_of_a_host_says_goodbye(broker: str, tmp_path: Path) -> None:
    """While another one is there it takes over what the first leaves; nobody's tasks need another agent."""
    async with Stage.open(broker, tmp_path, actors__session_timeout_seconds=2) as stage:
        actor = Actor("adder", add, heartbeat_interval_seconds=1)
        await stage.enrol(actor)
        async with stage.host(actor, enrol=False):
            async with stage.host(actor, enrol=False):
                pass
            gone = micros()
            seen = await stage.commands(lambda seen: seen and seen[-1].occurred_at > gone + 4_000_000)
            assert not any(each.goodbye for each in seen)
        await stage.commands(lambda seen: seen and seen[-1].goodbye)
