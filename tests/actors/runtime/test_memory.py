"""The host on a log in memory, its coordinator played by hand, all of it in virtual time."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from actors.api import Actor, Context
from actors.reports import Reporter
from schemas.agents import AgentCommandKind, AgentEvent, AgentEventKind, AgentFault, AgentState
from schemas.errors import OperatorError
from schemas.topics import AGENT_COMMANDS, AGENT_EVENTS, TASK_REPORTS
from tests.actors.memory_stage import MemoryStage
from tests.actors.stage import outcomes
from tests.actors.test_host_kafka import Diary


async def nap(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    await asyncio.sleep(payload.get("seconds", 0))
    return {"slept": payload.get("seconds", 0)}


async def test_a_handler_that_sleeps_an_hour_costs_no_time(tmp_path: Path) -> None:
    began = time.monotonic()
    async with MemoryStage.open(tmp_path) as stage, stage.host(Actor("napper", nap)):
        start = stage.now()
        await stage.assign("napper", "t", {"seconds": 3600}, deadline=start + 7_200_000_000)
        reports = await stage.reports(lambda seen: outcomes(seen), limit=4000)
        assert [each.kind for each in reports] == ["started", "completed"]
        assert reports[0].occurred_at == start + 250_000
        assert stage.now() - start == pytest.approx(3_600_000_000, abs=20_000)
    assert time.monotonic() - began < 10


async def test_heartbeats_come_at_their_intervals_with_load_and_lag(tmp_path: Path) -> None:
    async with MemoryStage.open(tmp_path) as stage, stage.host(Actor("napper", nap, heartbeat_interval_seconds=7)):
        start = stage.now()
        await stage.assign("napper", "t", {"seconds": 10})
        await asyncio.sleep(29)
        beats = [each for each in stage.decoded(AGENT_COMMANDS) if each.kind is AgentCommandKind.HEARTBEAT]
        assert [(each.occurred_at - start) / 1e6 for each in beats] == [0, 7, 14, 21, 28]
        assert [(each.load, each.inbox_lag) for each in beats[1:3]] == [(1, 0), (0, 0)]


async def test_the_same_run_writes_the_same_bytes(tmp_path: Path) -> None:
    async def history(place: Path) -> list[Any]:
        async with MemoryStage.open(place) as stage, stage.host(Actor("napper", nap, max_in_flight=2)):
            for n in range(20):
                await stage.assign("napper", f"t{n}", {"seconds": n % 3})
            await stage.reports(lambda seen: len(outcomes(seen)) == 20)
            return stage.stored(TASK_REPORTS)

    assert await history(tmp_path / "a") == await history(tmp_path / "b")


async def test_a_killed_host_leaves_what_it_had_not_committed_to_the_next(tmp_path: Path) -> None:
    diary = Diary()
    async with MemoryStage.open(tmp_path) as stage:
        async with stage.host(actor := Actor("slow", diary.wait)) as host:
            for name in ("a", "b"):
                await stage.assign("slow", name)
            diary.gates["b/1"].set()
            await stage.committed_to("slow", 0)
            await stage.reports(lambda seen: "b" in outcomes(seen))
            await asyncio.sleep(1)
            assert await stage.committed("slow") == (0, "1;1+1")
            stage.hosted = None
            await host.kill()
        diary.gates["a/1"].set()
        async with stage.host(actor, enrol=False):
            reports = await stage.reports(lambda seen: len(outcomes(seen)) == 2)
        assert diary.begun == ["a/1", "b/1", "a/1"]
        assert [each.task_id for each in reports if each.kind == "completed"] == ["b", "a"]


async def test_an_assignment_that_ended_two_hosts_is_failed_by_the_third(tmp_path: Path) -> None:
    diary = Diary()
    async with MemoryStage.open(tmp_path) as stage:
        await stage.enrol(actor := Actor("slow", diary.wait))
        await stage.assign("slow", "a")
        for _ in range(2):
            async with stage.host(actor, enrol=False) as host:
                await asyncio.sleep(0.01)
                stage.hosted = None
                await host.kill()
        async with stage.host(actor, enrol=False):
            reports = await stage.reports(lambda seen: outcomes(seen))
        assert diary.begun == ["a/1", "a/1"]
        assert reports[-1].error and reports[-1].error.message == "handler ended the process"


async def test_drained_handlers_report_and_the_others_are_left(tmp_path: Path) -> None:
    async with MemoryStage.open(tmp_path, actors__drain_seconds=5) as stage:
        async with stage.host(Actor("napper", nap)):
            await stage.assign("napper", "quick", {"seconds": 3})
            await stage.assign("napper", "slow", {"seconds": 60})
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert outcomes(stage.decoded(TASK_REPORTS)) == {"quick": "completed"}
        assert await stage.committed("napper") == (1, "")


async def test_time_waits_for_threads_and_not_for_ever(tmp_path: Path) -> None:
    gate = threading.Event()

    def count(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        gate.wait(payload["real_seconds"])
        return {}

    async with MemoryStage.open(tmp_path) as stage, stage.host(Actor("thread", count)):
        start = stage.now()
        await stage.assign("thread", "brief", {"real_seconds": 0.3})
        (report,) = await stage.reports(lambda seen: outcomes(seen))
        assert (report.kind, stage.now() - start < 100_000) == ("completed", True)


async def test_a_refused_registration_says_why(tmp_path: Path) -> None:
    async with MemoryStage.open(tmp_path) as stage:
        with pytest.raises(OperatorError, match="is not wanted"):
            async with stage.host(Actor("napper", nap), enrol=False) as host:
                assert not host.ready
                partition = next(each for each in (0, 1) if stage.log.end(stage.name(AGENT_COMMANDS), each))
                refusal = AgentEvent(
                    event_id="e", occurred_at=stage.now(), source="coordinator", kind=AgentEventKind.REFUSED,
                    agent_id="napper", version=0, cause=f"m.agents.commands.{partition}.0", to_state=AgentState.ABSENT,
                    error=AgentFault(code="agent_conflict", message="Agent 'napper' is not wanted"),
                )  # fmt: skip
                stage.put(AGENT_EVENTS, "napper", stage.codecs.of(AGENT_EVENTS.subject).encode(refusal))
                host.poll()


async def test_a_host_with_too_much_waiting_takes_no_more_for_those_who_are_full(tmp_path: Path) -> None:
    async with MemoryStage.open(tmp_path, actors__max_records=20) as stage:
        full, other = Actor("full", nap, max_in_flight=2), Actor("other", nap)
        async with stage.host(full, other):
            for n in range(200):
                await stage.assign("full", f"f{n}", {"seconds": 10})
            await asyncio.sleep(0)
            await asyncio.sleep(11)
            await stage.assign("other", "o")
            await asyncio.sleep(0.2)
            (beat,) = [each for each in stage.decoded(AGENT_COMMANDS) if each.agent_id == "full" and each.load]
            assert beat.load <= 2 + 2 * 20 and beat.load + beat.inbox_lag >= 198
            assert outcomes(stage.decoded(TASK_REPORTS))["o"] == "completed"
            reports = await stage.reports(lambda seen: len(outcomes(seen)) == 201, limit=2000)
            assert [each.task_id for each in reports if each.kind == "completed"][-1] == "f199"


async def test_a_drain_that_ends_with_a_cancel_is_told_soon(tmp_path: Path) -> None:
    async with MemoryStage.open(tmp_path) as stage, stage.host(Actor("napper", nap, heartbeat_interval_seconds=3600)):
        await stage.assign("napper", "t", {"seconds": 1000})
        await stage.tell_stop("napper")
        await asyncio.sleep(5)
        await stage.cancel("napper", "t")
        await asyncio.sleep(0.2)
        beats = [each for each in stage.decoded(AGENT_COMMANDS) if each.kind is AgentCommandKind.HEARTBEAT]
        assert [(each.load, each.inbox_lag) for each in beats] == [(0, 0), (0, 0)]
        assert beats[-1].occurred_at - beats[0].occurred_at < 5_200_000


async def test_what_is_reported_is_no_longer_in_the_journal(tmp_path: Path) -> None:
    async with MemoryStage.open(tmp_path) as stage, stage.host(Actor("napper", nap)):
        journal = stage.settings.data_dir / "hosts" / "main" / "journal"
        await stage.assign("napper", "t", {"seconds": 1})
        await asyncio.sleep(0.5)
        assert journal.read_text().split()[0] == "+"
        await stage.reports(outcomes)
        assert journal.read_text() == ""


async def test_a_mistake_of_ours_ends_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with MemoryStage.open(tmp_path) as stage, stage.host(Actor("napper", nap)) as host:
        stage.hosted = None

        def broken(*given: Any) -> None:
            raise ZeroDivisionError("a mistake of ours")

        monkeypatch.setattr(Reporter, "completed", broken)
        await stage.assign("napper", "t")
        host.poll()
        await asyncio.sleep(0.001)
        with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
            host.poll()


async def test_an_agent_with_a_group_of_its_own_commits_there(tmp_path: Path) -> None:
    async with MemoryStage.open(tmp_path) as stage:
        async with stage.host(Actor("alone", nap, config={"own_group": True}), Actor("napper", nap)):
            for agent in ("alone", "napper"):
                await stage.assign(agent, agent)
            await stage.reports(lambda seen: len(outcomes(seen)) == 2)
            await asyncio.sleep(1)
        commits = [
            (group, agent)
            for group in ("m.agents.alone", "m.actors.main")
            for agent in ("alone", "napper")
            if stage.log.committed(group, f"m.agents.{agent}.inbox", 0) == (1, "")
        ]
        assert commits == [("m.agents.alone", "alone"), ("m.actors.main", "napper")]


async def test_a_slow_handlers_offset_is_committed_after_its_report(tmp_path: Path) -> None:
    async with MemoryStage.open(tmp_path) as stage, stage.host(Actor("napper", nap, heartbeat_interval_seconds=3600)):
        await stage.assign("napper", "t", {"seconds": 10})
        await asyncio.sleep(10.3)
        assert (outcomes(stage.decoded(TASK_REPORTS)), await stage.committed("napper")) == ({"t": "completed"}, (0, ""))
        await asyncio.sleep(0.3)
        assert await stage.committed("napper") == (1, "")
