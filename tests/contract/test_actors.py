"""What an agent's author can rely on, tried on both runtimes: what becomes of an assignment, whatever its handler does."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest

from actors.api import Actor, Context
from actors.runtime.kafka import DrainTimeout
from schemas.agents import AgentCommandKind
from schemas.policies import RetryPolicy
from schemas.topics import inbox_name
from tests.actors.stage import outcomes
from tests.actors.test_host_kafka import Diary, add, misbehave
from tests.contract.actor_stages import Open, open_stage

__all__ = ["open_stage"]


async def test_a_handler_that_returns_completes_its_task(open_stage: Open) -> None:
    async with open_stage() as stage, stage.host(Actor("adder", add)):
        await stage.assign("adder", "t1", {"a": 1, "b": 2})
        (report,) = await stage.reports(len)
        assert (report.kind, report.task_id, report.result) == ("completed", "t1", '{"total":3}')
        assert (report.attempt, report.epoch, report.agent_id, report.source) == (1, 1, "adder", "adder")
        assert report.event_id == f"{stage.name(inbox_name('adder'))}.0.0.0"
        assert report.causation_id == f"{stage.name(inbox_name('adder'))}.0.0"
        await stage.committed_to("adder", 1)


@pytest.mark.parametrize(
    ("how", "code", "again"),
    [
        ("raise", "agent_error", True), ("busy", "overloaded", True), ("invalid", "invalid_input", False),
        ("none", "agent_error", False), ("huge", "payload_too_large", False),
    ],
)  # fmt: skip
async def test_a_failure_says_whether_to_try_again(open_stage: Open, how: str, code: str, again: bool) -> None:
    async with open_stage() as stage, stage.host(Actor("odd", misbehave)):
        await stage.assign("odd", "t", {"how": how})
        (report,) = await stage.reports(len)
        assert report.error is not None
        assert (report.kind, report.error.code, report.error.retryable) == ("failed", code, again)
        await stage.committed_to("odd", 1)


async def test_an_input_that_does_not_fit_never_reaches_the_handler(open_stage: Open) -> None:
    async with open_stage() as stage, stage.host(Actor("adder", add)):
        await stage.assign("adder", "t", {"a": 1, "b": "x"})
        (report,) = await stage.reports(len)
        assert report.error is not None
        assert (report.error.code, report.error.retryable) == ("invalid_input", False)
        assert report.error.message.startswith("b: Input should be a valid integer")


async def test_an_attempt_taken_away_at_its_timeout_ends_its_handler_and_the_next_one_runs(open_stage: Open) -> None:
    diary = Diary()
    async with open_stage() as stage, stage.host(Actor("slow", diary.wait)):
        await stage.assign("slow", "a")
        await diary.until("a/1")
        await stage.cancel("slow", "a", epoch=1)
        await stage.assign("slow", "a", epoch=2)
        diary.gates["a/2"].set()
        reports = await stage.reports(outcomes)
        await stage.committed_to("slow", 3)
        assert (diary.begun, diary.cancelled) == (["a/1", "a/2"], ["a/1"])
        assert [each.epoch for each in reports if each.kind == "completed"] == [2]


async def test_nothing_starts_past_its_deadline(open_stage: Open) -> None:
    async with open_stage() as stage, stage.host(Actor("adder", add)):
        await stage.assign("adder", "late", {"a": 1, "b": 2}, deadline=stage.now() - 1)
        await stage.assign("adder", "early", {"a": 1, "b": 2})
        reports = await stage.reports(len)
        await stage.committed_to("adder", 2)
        assert outcomes(reports) == {"early": "completed"}


async def test_a_handler_that_nobody_withdrew_is_ended_after_its_deadline(open_stage: Open) -> None:
    diary = Diary()
    settings = {"actors__report_after_seconds": 0.05, "actors__overdue_seconds": 0.2}
    async with open_stage(**settings) as stage, stage.host(Actor("slow", diary.wait, max_in_flight=1)):
        await stage.assign("slow", "a", deadline=stage.now() + 1_000_000)
        await stage.assign("slow", "b")
        await diary.until("b/1")
        diary.gates["b/1"].set()
        reports = await stage.reports(lambda seen: "b" in outcomes(seen))
        await stage.committed_to("slow", 2)
        assert (diary.begun, diary.cancelled) == (["a/1", "b/1"], ["a/1"])
        assert outcomes(reports) == {"b": "completed"}


async def test_what_was_cancelled_before_it_began_never_starts(open_stage: Open) -> None:
    diary = Diary()
    async with open_stage() as stage, stage.host(Actor("slow", diary.wait, max_in_flight=1)):
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


async def test_a_repeated_assignment_is_worked_on_once(open_stage: Open) -> None:
    async with open_stage() as stage, stage.host(Actor("adder", add)):
        await stage.assign("adder", "t", {"a": 1, "b": 2})
        await stage.reports(len)
        for _ in range(2):
            await stage.assign("adder", "t", {"a": 1, "b": 2})
        await stage.assign("adder", "u", {"a": 1, "b": 2})
        reports = await stage.reports(lambda seen: "u" in outcomes(seen))
        await stage.committed_to("adder", 4)
        assert [each.task_id for each in reports] == ["t", "u"]


async def test_one_task_in_order_others_side_by_side_within_the_limit(open_stage: Open) -> None:
    diary = Diary()
    async with open_stage() as stage, stage.host(Actor("slow", diary.wait, max_in_flight=2)):
        for name in ("a", "b", "c"):
            await stage.assign("slow", name)
        await stage.assign("slow", "a", epoch=2)
        await diary.until("b/1")
        await asyncio.sleep(0.3)
        assert diary.begun == ["a/1", "b/1"]
        for name in ("a/1", "b/1", "c/1", "a/2"):
            diary.gates[name].set()
        reports = await stage.reports(lambda seen: len([each for each in seen if each.kind == "completed"]) == 4)
        assert diary.most == 2
        assert [each.epoch for each in reports if each.task_id == "a" and each.kind == "completed"] == [1, 2]


async def test_progress_is_sent_at_most_once_an_interval_and_the_latest_counts(open_stage: Open) -> None:
    async def work(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        for step in range(10):
            await ctx.report(step / 10, f"step {step}")
            await asyncio.sleep(0.05)
        return {}

    async with open_stage(actors__progress_interval_seconds=0.2) as stage, stage.host(Actor("steps", work)):
        await stage.assign("steps", "slow")
        reports = await stage.reports(outcomes)
        kinds = [each.kind for each in reports]
        assert (kinds[0], kinds[-1], kinds.count("started")) == ("progress", "completed", 1)
        assert 2 <= kinds.count("progress") <= 4
        told = [each for each in reports if each.kind == "progress"]
        assert (told[0].progress, told[0].note) == (0.0, "step 0")
        assert all(each.progress is not None and each.note == f"step {round(each.progress * 10)}" for each in told)
        assert len({each.event_id for each in reports}) == len(reports)


async def test_a_plain_function_runs_in_a_thread(open_stage: Open) -> None:
    barrier = threading.Barrier(2)

    def meet(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        ctx.report_now(0.5, "here")
        barrier.wait(10)
        return {}

    async with open_stage() as stage, stage.host(Actor("meet", meet)):
        await stage.assign("meet", "a")
        await stage.assign("meet", "b")
        reports = await stage.reports(lambda seen: len(outcomes(seen)) == 2)
        assert outcomes(reports) == {"a": "completed", "b": "completed"}


async def test_what_nobody_can_read_is_a_dead_letter_and_the_next_flows(open_stage: Open) -> None:
    async with open_stage() as stage, stage.host(Actor("adder", add)):
        await stage.garbage("adder", b"\x01garbage")
        await stage.garbage("adder", b"\x00\x00\x00\xff\xff\x01")
        await stage.assign("adder", "good", {"a": 1, "b": 2})
        reports = await stage.reports(len)
        letters = sorted(await stage.dead_letters(lambda seen: len(seen) == 2), key=lambda each: each.offset)
        await stage.committed_to("adder", 3)
        assert outcomes(reports) == {"good": "completed"}
        topic = stage.name(inbox_name("adder"))
        assert [(each.kind, each.source_topic) for each in letters] == [("poison", topic)] * 2
        assert (letters[0].original_key, letters[0].original_value) == (b"k", b"\x01garbage")
        assert [(each.key, each.value) for each in letters[0].headers] == [("h", b"\xff")]
        assert "Schema id" in letters[1].error.message


async def test_what_was_finished_beyond_the_prefix_is_not_done_again_after_a_restart(open_stage: Open) -> None:
    diary = Diary()
    actor = Actor("slow", diary.wait, retry=RetryPolicy())
    async with open_stage(actors__drain_seconds=0.2) as stage:
        with suppress(DrainTimeout):  # the host on Kafka says so, the one in memory returns it
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
            await stage.reports(lambda seen: len(outcomes(seen)) == 3)
            await stage.committed_to("slow", 3)
        assert diary.begun == ["a/1", "b/1", "c/1", "a/1"]


async def test_a_stop_is_answered_when_nothing_is_in_hand(open_stage: Open) -> None:
    diary = Diary()
    async with open_stage() as stage, stage.host(Actor("slow", diary.wait, heartbeat_interval_seconds=3600)):
        await stage.assign("slow", "a")
        await diary.until("a/1")
        await stage.tell_stop("slow")
        await asyncio.sleep(0.3)
        diary.gates["a/1"].set()
        beats = await stage.commands(lambda seen: len(seen) == 3)
        kinds = [AgentCommandKind.REGISTER, AgentCommandKind.HEARTBEAT, AgentCommandKind.HEARTBEAT]
        assert [each.kind for each in beats] == kinds
        assert (beats[-1].load, beats[-1].inbox_lag) == (0, 0)


async def test_a_host_that_has_drained_says_goodbye_and_the_next_one_is_another(open_stage: Open) -> None:
    async with open_stage() as stage:
        async with stage.host(Actor("adder", add)):
            await stage.commands(lambda seen: len(seen) == 2)
        first = await stage.commands(lambda seen: len(seen) == 3)
        assert [(each.kind.value, each.goodbye) for each in first[1:]] == [("heartbeat", False), ("heartbeat", True)]
        await asyncio.sleep(0.05)
        async with stage.host(Actor("adder", add), enrol=False):
            both = await stage.commands(lambda seen: len(seen) == 5)
        assert both[1].incarnation == both[2].incarnation != both[4].incarnation
        assert all(each.incarnation for each in both if each.kind is AgentCommandKind.HEARTBEAT)


async def test_a_host_that_leaves_work_undone_says_goodbye_after_its_last_report(open_stage: Open) -> None:
    diary = Diary()
    actor = Actor("slow", diary.wait, heartbeat_interval_seconds=3600)
    async with open_stage(actors__drain_seconds=0.5) as stage:
        with suppress(DrainTimeout):
            async with stage.host(actor):
                for name in ("a", "b"):
                    await stage.assign("slow", name)
                await diary.until("a/1")
                await diary.until("b/1")
                asyncio.get_running_loop().call_later(0.2, diary.gates["b/1"].set)
        assert diary.cancelled == ["a/1"]
        seen = await stage.commands(lambda seen: seen and seen[-1].goodbye)
        assert [each.goodbye for each in seen] == [False, False, True]
        reports = await stage.reports(lambda seen: outcomes(seen) == {"b": "completed"})
        assert reports[-1].occurred_at <= seen[-1].occurred_at
        diary.gates["a/1"].set()
        async with stage.host(actor, enrol=False):
            await stage.reports(lambda seen: outcomes(seen) == {"a": "completed", "b": "completed"})
        assert diary.begun == ["a/1", "b/1", "a/1"]
