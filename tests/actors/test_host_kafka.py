"""The host against a real Kafka, its coordinator played by hand."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs

from actors.api import Actor, Context
from actors.runtime.kafka import DrainTimeout
from schemas.errors import InvalidInput, Overloaded
from schemas.inbox import InboxKind, InboxRecord
from schemas.topics import TASK_REPORTS, inbox_name
from tests.actors.stage import Stage, assignment, micros, outcomes

pytestmark = pytest.mark.kafka


class Sum(BaseModel):
    a: int
    b: int


class Total(BaseModel):
    total: int


async def add(numbers: Sum, ctx: Context) -> Total:
    return Total(total=numbers.a + numbers.b)


async def misbehave(payload: dict[str, Any], ctx: Context) -> Any:
    match payload["how"]:
        case "invalid":
            raise InvalidInput("no such account")
        case "busy":
            raise Overloaded("come back later")
        case "raise":
            raise RuntimeError("it broke")
        case "exit":
            raise SystemExit(1)
        case "cancel":
            raise asyncio.CancelledError
        case "half":
            raise RuntimeError("half a character: \ud800")
        case "none":
            return None
        case "huge":
            return {"data": "x" * 1_000_000}
    return {"how": payload["how"]}


class Diary:
    """What handlers did, in order; `gates` let a test hold one back."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self.most = 0
        self.gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def wait(self, payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        name = f"{ctx.task_id}/{ctx.epoch}"
        self.begun.append(name)
        self.most = max(self.most, len(self.begun) - len(self.ended) - len(self.cancelled))
        try:
            await self.gates[name].wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        self.ended.append(name)
        return {}

    async def until(self, name: str, limit: float = 10.0) -> None:
        async with asyncio.timeout(limit):
            while name not in self.begun:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_an_assignment_is_reported_and_committed(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("adder", add)):
        await stage.assign("adder", "t1", {"a": 1, "b": 2})
        (report,) = await stage.reports(len)
        assert (report.kind, report.task_id, report.result) == ("completed", "t1", '{"total":3}')
        assert (report.attempt, report.epoch, report.agent_id, report.source) == (1, 1, "adder", "adder")
        assert report.event_id == f"{stage.name(inbox_name('adder'))}.0.0.0"
        await stage.committed_to("adder", 1)
        beats = await stage.commands(lambda seen: [each for each in seen if each.kind == "heartbeat"])
        assert (beats[-1].agent_id, beats[-1].load) == ("adder", 0)


async def test_each_failure_has_its_code(broker: str, tmp_path: Path) -> None:
    ways = {
        "invalid": ("failed:invalid_input", False), "busy": ("failed:overloaded", True),
        "raise": ("failed:agent_error", True), "exit": ("failed:agent_error", True),
        "cancel": ("failed:agent_error", True), "none": ("failed:agent_error", False),
        "huge": ("failed:payload_too_large", False), "half": ("failed:agent_error", True),
        "well": ("completed", None),
    }  # fmt: skip
    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("odd", misbehave), Actor("adder", add)):
        for how in ways:
            await stage.assign("odd", how, {"how": how})
        await stage.assign("adder", "sum", {"a": 1, "b": "x"})
        reports = await stage.reports(lambda seen: len(seen) >= len(ways) + 1)
        assert outcomes(reports) == {how: code for how, (code, _) in ways.items()} | {"sum": "failed:invalid_input"}
        told = {each.task_id: each.error for each in reports}
        assert {how: told[how] and told[how].retryable for how in ways} == {
            how: again for how, (_, again) in ways.items()
        }
        assert told["raise"] and told["raise"].message == "RuntimeError: it broke"
        assert told["sum"] and told["sum"].message.startswith("b: Input should be a valid integer")
        await stage.committed_to("odd", len(ways))


async def test_an_invalid_input_is_no_failure_of_the_host(broker: str, tmp_path: Path) -> None:
    with capture_logs() as told:
        async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("odd", misbehave), Actor("adder", add)):
            await stage.assign("odd", "invalid", {"how": "invalid"})
            await stage.assign("odd", "raise", {"how": "raise"})
            await stage.assign("adder", "sum", {"a": 1, "b": "x"})
            await stage.reports(lambda seen: len(seen) == 3)
    levels = {each["task"]: (each["event"], each["log_level"]) for each in told if "task" in each}
    refused = ("input_refused", "info")
    assert levels == {"invalid": refused, "sum": refused, "raise": ("handler_failed", "warning")}


async def test_one_task_in_order_others_side_by_side_within_the_limit(broker: str, tmp_path: Path) -> None:
    diary = Diary()
    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("slow", diary.wait, max_in_flight=3)):
        for name in ("a", "b", "c", "d"):
            await stage.assign("slow", name)
        await stage.assign("slow", "a", epoch=2)
        await diary.until("c/1")
        await asyncio.sleep(0.3)
        assert diary.begun == ["a/1", "b/1", "c/1"]
        diary.gates["a/1"].set()
        await diary.until("d/1")
        assert "a/2" not in diary.begun
        diary.gates["b/1"].set()
        await diary.until("a/2")
        for gate in ("c/1", "d/1", "a/2"):
            diary.gates[gate].set()
        reports = await stage.reports(lambda seen: len([each for each in seen if each.kind == "completed"]) == 5)
        assert diary.most == 3
        of_a = [each.epoch for each in reports if each.task_id == "a" and each.kind == "completed"]
        assert of_a == [1, 2]
        assert {each.task_id for each in reports if each.kind == "started"} >= {"b", "c"}


async def test_finished_offsets_beyond_the_prefix_survive_a_restart(broker: str, tmp_path: Path) -> None:
    diary = Diary()
    async with Stage.open(broker, tmp_path, actors__drain_seconds=0.2) as stage:
        actor = Actor("slow", diary.wait)
        with pytest.raises(DrainTimeout):
            async with stage.host(actor):
                for name in ("a", "b", "c"):
                    await stage.assign("slow", name)
                    diary.gates[f"{name}/1"].set() if name != "a" else None
                await diary.until("c/1")
                await stage.reports(lambda seen: len(outcomes(seen)) == 2)
        assert await stage.committed("slow") == (0, "1;1+2")
        assert diary.cancelled == ["a/1"]
        diary.gates["a/1"].set()
        async with stage.host(actor, enrol=False):
            reports = await stage.reports(lambda seen: len(outcomes(seen)) == 3)
            await stage.committed_to("slow", 3)
        assert diary.begun == ["a/1", "b/1", "c/1", "a/1"]
        assert Counter(each.task_id for each in reports if each.kind == "completed") == {"a": 1, "b": 1, "c": 1}


async def test_a_cancel_ends_the_handler_and_what_waits_never_starts(broker: str, tmp_path: Path) -> None:
    diary = Diary()
    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("slow", diary.wait, max_in_flight=1)):
        for name in ("a", "b", "c"):
            await stage.assign("slow", name)
        await diary.until("a/1")
        await stage.cancel("slow", "b")
        await stage.cancel("slow", "a", epoch=7)
        await stage.cancel("slow", "a")
        await diary.until("c/1")
        diary.gates["c/1"].set()
        reports = await stage.reports(lambda seen: "c" in outcomes(seen))
        await stage.committed_to("slow", 6)
        assert (diary.begun, diary.cancelled) == (["a/1", "c/1"], ["a/1"])
        assert outcomes(reports) == {"c": "completed"}


async def test_the_result_of_a_cancelled_thread_is_dropped(broker: str, tmp_path: Path) -> None:
    begun, gate = threading.Event(), threading.Event()
    seen_by: dict[str, list[bool]] = defaultdict(list)

    def block(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        seen_by[ctx.task_id].append(ctx.cancelled)
        begun.set()
        gate.wait(20)
        seen_by[ctx.task_id].append(ctx.cancelled)
        return {}

    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("slow", block, max_in_flight=1)):
        await stage.assign("slow", "a")
        assert await asyncio.to_thread(begun.wait, 10)
        await stage.cancel("slow", "a")
        await stage.assign("slow", "b")
        await asyncio.sleep(0.3)
        gate.set()
        reports = await stage.reports(lambda seen: "b" in outcomes(seen))
        await stage.committed_to("slow", 3)
        assert outcomes(reports) == {"b": "completed"}
        assert seen_by == {"a": [False, True], "b": [False, False]}


async def test_nothing_starts_past_its_deadline(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("adder", add)):
        await stage.assign("adder", "late", {"a": 1, "b": 2}, deadline=micros() - 1)
        await stage.assign("adder", "early", {"a": 1, "b": 2})
        reports = await stage.reports(len)
        await stage.committed_to("adder", 2)
        assert outcomes(reports) == {"early": "completed"}


async def test_a_repeated_assignment_is_worked_on_once(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("adder", add)):
        for _ in range(3):
            await stage.assign("adder", "t", {"a": 1, "b": 2})
        await stage.assign("adder", "u", {"a": 1, "b": 2})
        reports = await stage.reports(lambda seen: "u" in outcomes(seen))
        await stage.committed_to("adder", 4)
        assert [each.task_id for each in reports] == ["t", "u"]


async def test_started_and_progress_only_of_slow_handlers(broker: str, tmp_path: Path) -> None:
    async def work(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        for step in range(payload["steps"]):
            await ctx.report(step / 10, f"step {step}")
            await asyncio.sleep(0.05)
        return {}

    async with (
        Stage.open(broker, tmp_path, actors__progress_interval_seconds=0.3) as stage,
        stage.host(Actor("steps", work)),
    ):
        await stage.assign("steps", "quick", {"steps": 0})
        await stage.assign("steps", "slow", {"steps": 10})
        reports = await stage.reports(lambda seen: len(outcomes(seen)) == 2)
        assert [each.kind for each in reports if each.task_id == "quick"] == ["completed"]
        kinds = [each.kind for each in reports if each.task_id == "slow"]
        assert kinds[0] == "progress" and kinds[-1] == "completed" and kinds.count("started") == 1
        assert 2 <= kinds.count("progress") <= 3
        last = [each for each in reports if each.kind == "progress"][-1]
        assert last.progress and last.note == f"step {round(last.progress * 10)}"
        assert len({each.event_id for each in reports}) == len(reports)


async def test_poison_goes_to_the_dead_letters_and_the_host_goes_on(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("adder", add)):
        topic = stage.name(inbox_name("adder"))
        await stage.producer.send_and_wait(topic, key=b"k", value=b"\x01garbage", headers=[("h", b"\xff")])
        await stage.producer.send_and_wait(topic, key=None, value=b"\x00\x00\x00\xff\xff\x01")
        await stage.producer.send_and_wait(topic, key=b"k", value=None)
        await stage.inbox("adder", InboxRecord(
            event_id="e", occurred_at=micros(), source="x", kind=InboxKind.MESSAGE), "m")  # fmt: skip
        await stage.assign("adder", "good", {"a": 1, "b": 2})
        reports = await stage.reports(len)
        letters = await stage.dead_letters(lambda seen: len(seen) == 4)
        await stage.committed_to("adder", 5)
        assert outcomes(reports) == {"good": "completed"}
        letters = sorted(letters, key=lambda each: each.offset)
        assert [each.offset for each in letters] == [0, 1, 2, 3]
        first = letters[0]
        assert (first.original_key, first.original_value) == (b"k", b"\x01garbage")
        assert [(each.key, each.value) for each in first.headers] == [("h", b"\xff")]
        assert (first.kind, first.source_topic, first.deadletter_id) == ("poison", topic, f"{topic}.0.0.0")
        assert "Schema id" in letters[1].error.message


async def test_sync_handlers_run_side_by_side_in_threads(broker: str, tmp_path: Path) -> None:
    barrier = threading.Barrier(3)

    def meet(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        ctx.report_now(0.5, "here")
        barrier.wait(10)
        return {"thread": threading.current_thread().name}

    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("meet", meet)):
        for name in "abc":
            await stage.assign("meet", name)
        reports = await stage.reports(lambda seen: len(outcomes(seen)) == 3)
        names = {json.loads(each.result)["thread"] for each in reports if each.result}
        assert len(names) == 3


async def test_a_handler_sees_one_task_of_its_own(broker: str, tmp_path: Path) -> None:
    """Time-outs and task groups must work from a handler's first line, although many share a lane."""

    async def careful(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        first = asyncio.current_task()
        try:
            async with asyncio.timeout(0.05):
                await asyncio.sleep(payload["seconds"])
            word = "in time"
        except TimeoutError:
            word = "late"
        assert asyncio.current_task() is first
        return {"word": word}

    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("careful", careful)):
        records = [assignment(f"t{n:03}", {"seconds": 10 if n % 3 == 0 else 0}) for n in range(60)]
        await stage.assign_many("careful", records)
        reports = await stage.reports(lambda seen: len(outcomes(seen)) == 60)
        words = {each.task_id: json.loads(each.result)["word"] for each in reports if each.result}
        assert words == {f"t{n:03}": "late" if n % 3 == 0 else "in time" for n in range(60)}


async def test_a_full_agent_does_not_hold_back_another(broker: str, tmp_path: Path) -> None:
    diary = Diary()
    full = Actor("full", diary.wait, max_in_flight=2)
    async with Stage.open(broker, tmp_path, actors__max_records=20) as stage, stage.host(full, Actor("adder", add)):
        await stage.assign_many("full", [assignment(f"f{n:03}") for n in range(200)])
        await diary.until("f001/1")
        for n in range(5):
            await stage.assign("adder", f"t{n}", {"a": 1, "b": 2})
        await stage.reports(lambda seen: len(outcomes(seen)) == 5)
        for n in range(200):
            diary.gates[f"f{n:03}/1"].set()
        await stage.reports(lambda seen: len(outcomes(seen)) == 205)
        await stage.committed_to("full", 200)
        assert diary.begun == [f"f{n:03}/1" for n in range(200)]


async def test_a_handler_that_goes_on_after_its_cancel_knows_it_and_reports_nothing(
    broker: str, tmp_path: Path
) -> None:
    known: list[bool] = []

    async def stubborn(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        try:
            await asyncio.sleep(payload.get("seconds", 0))
        except asyncio.CancelledError:
            known.append(ctx.cancelled)
        await asyncio.sleep(0.2)
        await ctx.report(0.9, "still there")
        return {"epoch": ctx.epoch}

    async with Stage.open(broker, tmp_path) as stage, stage.host(Actor("slow", stubborn, max_in_flight=1)):
        await stage.assign("slow", "a", {"seconds": 60})
        await stage.reports(len)  # it runs
        await stage.cancel("slow", "a")
        await stage.assign("slow", "a", epoch=2)  # it must wait for the first to end
        await stage.reports(lambda seen: outcomes(seen) == {"a": "completed"})
        await stage.committed_to("slow", 3)
        reports = await stage.quiet(TASK_REPORTS, 0.3)
        assert [(each.kind, each.epoch) for each in reports if each.epoch == 1] == [("started", 1)]
        assert [each.result for each in reports if each.result] == ['{"epoch":2}']
        assert known == [True]


async def test_a_stop_does_not_wait_for_what_was_cancelled(broker: str, tmp_path: Path) -> None:
    async def deaf(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        for _ in range(100):
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue
        return {}

    async with Stage.open(broker, tmp_path, actors__drain_seconds=20) as stage:
        async with stage.host(Actor("deaf", deaf)):
            await stage.assign("deaf", "a")
            await stage.reports(len)
            await stage.cancel("deaf", "a")
            await asyncio.sleep(0.3)
            began = time.monotonic()
        assert time.monotonic() - began < 4
        assert outcomes(await stage.quiet(TASK_REPORTS, 0.3)) == {}
