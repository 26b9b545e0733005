"""What is done stays done, on both runtimes, whichever consumer group an agent is hosted in next."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from actors.api import Actor, Context
from actors.runtime.kafka import DrainTimeout
from tests.actors.stage import outcomes
from tests.actors.test_host_kafka import Diary
from tests.contract.actor_stages import Open, open_stage

__all__ = ["open_stage"]

OWN = {"own_group": True}


@pytest.mark.parametrize(
    "moves",
    [[("one", {}), ("two", {}), ("one", {})], [("main", {}), ("main", OWN), ("main", {}), ("two", OWN)]],
    ids=["to another name and back", "to a group of its own and back"],
)
async def test_an_agent_that_moves_does_nothing_again(open_stage: Open, moves: list[tuple[str, Any]]) -> None:
    begun: list[str] = []

    async def note(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begun.append(ctx.task_id)
        return {}

    async with open_stage(actors__session_timeout_seconds=2) as stage:
        given: list[str] = []
        for turn, (name, config) in enumerate(moves):
            async with stage.host(Actor("mover", note, config=config), name=name):
                for task in (f"t{turn}.a", f"t{turn}.b"):
                    given.append(task)
                    await stage.assign("mover", task)
                await stage.reports(lambda seen: len(outcomes(seen)) == len(given))
                assert sorted(begun) == given


async def test_what_was_finished_beyond_the_prefix_goes_along(open_stage: Open) -> None:
    diary = Diary()
    actor = Actor("slow", diary.wait)
    async with open_stage(actors__drain_seconds=0.2, actors__session_timeout_seconds=2) as stage:
        with suppress(DrainTimeout):
            async with stage.host(actor, name="one"):
                for name in ("a", "b", "c"):
                    await stage.assign("slow", name)
                    diary.gates[f"{name}/1"].set() if name != "a" else None
                await diary.until("c/1")
                await stage.reports(lambda seen: len(outcomes(seen)) == 2)
        diary.gates["a/1"].set()
        async with stage.host(actor, enrol=False, name="main"):
            await stage.reports(lambda seen: len(outcomes(seen)) == 3)
            await stage.committed_to("slow", 3)
        assert diary.begun == ["a/1", "b/1", "c/1", "a/1"]


async def test_what_another_group_had_done_is_committed_although_nothing_comes(open_stage: Open) -> None:
    """Else the host that goes on would look as if all of it waited."""
    diary = Diary()
    diary.gates["a/1"].set()
    async with open_stage(actors__session_timeout_seconds=2) as stage:
        async with stage.host(Actor("slow", diary.wait), name="one"):
            await stage.assign("slow", "a")
            await stage.reports(outcomes)
        assert await stage.committed("slow") == (0, "")
        async with stage.host(Actor("slow", diary.wait), enrol=False, name="main"):
            await stage.committed_to("slow", 1)
        assert diary.begun == ["a/1"]
