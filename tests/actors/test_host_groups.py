"""Which hosts may read one inbox: those of one group share it, those of two would each do all of its work."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.api import Actor, Context
from schemas.agents import AgentCommandKind
from schemas.errors import OperatorError
from schemas.topics import AGENT_COMMANDS
from tests.actors.processes import process
from tests.actors.stage import Stage, assignment, called, outcomes

pytestmark = pytest.mark.kafka

FILE = Path(__file__).with_name("own_group.py")


async def echo(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    return payload


def named(stage: Stage, host: str) -> Stage:
    """The same stage, seen from a host of another name."""
    return replace(stage, settings=called(stage.settings, host))


async def test_an_agent_is_hosted_in_one_group_only(broker: str, tmp_path: Path) -> None:
    """The second host is told who is first, changes nothing in the registry, and the first works on alone."""
    async with (
        Stage.open(broker, tmp_path, actors__session_timeout_seconds=2) as stage,
        stage.host(Actor("echo", echo)),
    ):
        await stage.commands(len)
        other = named(stage, "second")
        changed = Actor("echo", echo, capabilities=["more"])
        with pytest.raises(
            OperatorError, match=r"'echo' is hosted already, in the consumer group '.*actors\.main'"
        ) as no:
            async with other.host(changed, Actor("new", echo)):
                pass
        assert "`--host main` shares its work" in no.value.hint
        told = await stage.quiet(AGENT_COMMANDS, 0.5)
        assert [each.agent_id for each in told if each.kind is AgentCommandKind.REGISTER] == ["echo"]
        await stage.assign("echo", "once", {"a": 1})
        await stage.reports(len)
        assert outcomes(await stage.reports(len)) == {"once": "completed"}


async def test_an_agent_may_move_to_a_host_of_another_name(broker: str, tmp_path: Path) -> None:
    """A host that stops leaves its group, so that the next one begins long before its session would be over."""
    async with Stage.open(broker, tmp_path, actors__session_timeout_seconds=60) as stage:
        actor = Actor("echo", echo)
        async with stage.host(actor):
            await stage.assign("echo", "first", {})
            await stage.reports(len)
        began = time.monotonic()
        async with named(stage, "second").host(actor, enrol=False):
            await stage.assign("echo", "second", {})
            await stage.reports(lambda seen: "second" in outcomes(seen))
        assert time.monotonic() - began < 20


async def test_an_agent_may_move_from_a_host_that_was_killed(broker: str, tmp_path: Path) -> None:
    """A killed member is listed until its session is over, and the next host waits for that."""
    async with Stage.open(broker, tmp_path, actors__session_timeout_seconds=3) as stage:
        await stage.enrol(Actor("shared", echo))
        async with process(stage, file=FILE, TROUPE_ACTORS__HOST="one", ONLY="shared") as first:
            first.kill()
            assert await first.wait() < 0
        began = time.monotonic()
        async with process(stage, file=FILE, TROUPE_ACTORS__HOST="two", ONLY="shared") as second:
            assert second.said("waiting_for_another_host")
            await stage.assign("shared", "s", {})
            await stage.reports(lambda seen: "s" in outcomes(seen))
        assert time.monotonic() - began < 20


async def test_what_a_process_leaves_goes_to_the_others_of_its_host_at_once(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path, actors__session_timeout_seconds=60) as stage:
        await stage.enrol(Actor("shared", echo))
        host = {"TROUPE_ACTORS__HOST": "one", "ONLY": "shared"}
        async with process(stage, file=FILE, **host) as one, process(stage, file=FILE, **host) as two:
            await stage.assign("shared", "before", {})
            worker = (await stage.reports(lambda seen: outcomes(seen)))[-1].result or ""
            first, rest = (one, two) if str(one.pid) in worker else (two, one)
            first.terminate()
            assert await first.wait() == 0
            began = time.monotonic()
            await stage.assign("shared", "after", {})
            reports = await stage.reports(lambda seen: "after" in outcomes(seen))
            assert time.monotonic() - began < 20
            assert str(rest.pid) in (reports[-1].result or "")


async def test_a_group_of_its_own_is_shared_by_hosts_of_any_name(broker: str, tmp_path: Path) -> None:
    """Two processes, two host names, one agent with four partitions; each task is done once, by either."""
    async with Stage.open(broker, tmp_path) as stage:
        actors = [Actor("own", echo, config={"own_group": True, "inbox_partitions": 4}), Actor("shared", echo)]
        await stage.enrol(*actors, partitions=4)
        env = {"TROUPE_ACTORS__HOST": "one"}
        async with (
            process(stage, file=FILE, **env),
            process(stage, file=FILE, TROUPE_ACTORS__HOST="two", ONLY="own") as two,
        ):
            await asyncio.sleep(1)
            await stage.assign_many("own", [assignment(f"t{n:03}") for n in range(200)])
            await stage.assign("shared", "s", {})
            reports = await stage.reports(lambda seen: len(outcomes(seen)) == 201)
            assert two.returncode is None
        done = Counter(each.task_id for each in reports if each.kind == "completed")
        assert set(done.values()) == {1}
        workers = {each.result for each in reports if each.task_id.startswith("t") and each.result}
        assert len(workers) == 2
        assert str(os.getpid()) not in "".join(workers)
