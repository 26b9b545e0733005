"""Who stays of two groups that read one inbox: seen by one that looks, against a member of the other on a real Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from actors.api import Actor, Context
from actors.runtime.rivals import _refusal, _Rival, last_of, refuse_rivals
from schemas.errors import OperatorError
from schemas.topics import TASK_REPORTS, inbox_name
from tests.actors.stage import Stage, assignment, outcomes
from tests.actors.test_host_groups import named

pytestmark = pytest.mark.kafka

SESSION = 4


async def echo(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    return payload


@contextlib.asynccontextmanager
async def opened(broker: str, path: Path) -> AsyncIterator[Stage]:
    quick = {"actors__session_timeout_seconds": SESSION, "actors__fetch_max_wait_ms": 5}
    async with Stage.open(broker, path, **quick) as stage:
        await stage.enrol(Actor("echo", echo))
        yield stage


@contextlib.asynccontextmanager
async def member(
    stage: Stage, host: str, agent_id: str = "echo", group: str | None = None
) -> AsyncIterator[AIOKafkaConsumer]:
    """A host of this name, as far as Kafka can tell."""
    reader = AIOKafkaConsumer(
        stage.name(inbox_name(agent_id)),
        bootstrap_servers=stage.settings.kafka.bootstrap_servers,
        group_id=stage.name(group or f"actors.{host}"),
        client_id=f"{host}-1-0123456789ab",
    )
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


async def look(stage: Stage, host: str, joined: bool, **groups: str) -> None:
    ours = {agent_id: stage.name(group) for agent_id, group in (groups or {"echo": f"actors.{host}"}).items()}
    await refuse_rivals(stage.settings, ours, joined_as=f"{host}-1-0123456789ab" if joined else None)


async def test_of_two_that_came_together_the_second_name_gives_way_at_once(broker: str, tmp_path: Path) -> None:
    async with opened(broker, tmp_path) as stage, member(stage, "m"):
        began = time.monotonic()
        with pytest.raises(OperatorError, match="hosted already"):
            await look(stage, "z", joined=True)
        assert time.monotonic() - began < SESSION


@pytest.mark.parametrize(("name", "joined"), [("a", True), ("z", False)], ids=["first name", "not joined"])
async def test_who_need_not_give_way_waits_and_goes_on(broker: str, tmp_path: Path, name: str, joined: bool) -> None:
    """Whose name sorts first does; and who has not joined yet, whatever its name."""
    async with opened(broker, tmp_path) as stage, member(stage, "m") as other:
        looking = asyncio.create_task(look(stage, name, joined=joined))
        await asyncio.sleep(1)
        assert not looking.done()
        await other.stop()
        async with asyncio.timeout(SESSION):
            await looking


async def test_two_that_meet_at_two_agents_have_one_winner(broker: str, tmp_path: Path) -> None:
    """Each has one of the agents in a group of its own, so that the groups' names sort one way here and one way there."""
    first, second = {"echo": "actors.a", "more": "agents.more"}, {"echo": "agents.echo", "more": "actors.b"}
    async with opened(broker, tmp_path) as stage, contextlib.AsyncExitStack() as there:
        await stage.enrol(Actor("more", echo))
        left = [
            [
                await there.enter_async_context(member(stage, host, agent_id, group))
                for agent_id, group in groups.items()
            ]
            for host, groups in (("a", first), ("b", second))
        ]
        stays = asyncio.create_task(look(stage, "a", joined=True, **first))
        began = time.monotonic()
        with pytest.raises(OperatorError, match=r"'echo' and 1 more is hosted already"):
            await look(stage, "b", joined=True, **second)
        assert time.monotonic() - began < SESSION
        assert not stays.done()
        await asyncio.gather(*(each.stop() for each in left[1]))
        async with asyncio.timeout(SESSION):
            await stays


async def test_one_that_was_there_all_along_is_not_driven_out_by_a_name(broker: str, tmp_path: Path) -> None:
    async with opened(broker, tmp_path) as stage, member(stage, "m"):
        with pytest.raises(OperatorError, match="hosted already"):
            await look(stage, "a", joined=True)


async def test_of_two_hosts_that_start_together_one_works_and_only_one(broker: str, tmp_path: Path) -> None:
    async with opened(broker, tmp_path) as stage:
        await stage.assign_many("echo", [assignment(f"t{n}") for n in range(20)])
        async with contextlib.AsyncExitStack() as hosts:

            async def begin(name: str) -> str:
                await hosts.enter_async_context(named(stage, name).host(Actor("echo", echo), enrol=False))
                return name

            ends = await asyncio.gather(begin("first"), begin("second"), return_exceptions=True)
            refused = [each for each in ends if isinstance(each, OperatorError)]
            assert len(refused) == 1, ends
            await stage.reports(lambda seen: len(outcomes(seen)) == 20)
            reports = await stage.quiet(TASK_REPORTS, 1.0)
            assert len([each for each in reports if each.kind == "completed"]) == 20


async def test_who_gives_way_after_it_has_joined_has_begun_nothing(broker: str, tmp_path: Path) -> None:
    """The other comes while the registry lets us wait, so that the first look misses it and the second does not."""
    begun: list[str] = []

    async def note(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begun.append(ctx.task_id)
        return payload

    changed = Actor("echo", note, capabilities=["more"])
    async with opened(broker, tmp_path) as stage, contextlib.AsyncExitStack() as later:
        await stage.assign_many("echo", [assignment(f"t{n}") for n in range(20)])
        running = asyncio.create_task(later.enter_async_context(named(stage, "z").host(changed, enrol=False)))
        await stage.commands(len)
        await later.enter_async_context(member(stage, "m"))
        await stage.enrol(changed)
        with pytest.raises(OperatorError, match=r"hosted already, in the consumer group '.*actors\.m'"):
            await running
        assert begun == []


async def test_who_was_removed_from_its_group_is_not_the_last_of_it(broker: str, tmp_path: Path) -> None:
    """Somebody else is, who has its inboxes by then."""
    async with opened(broker, tmp_path) as stage, contextlib.AsyncExitStack() as there:
        group = stage.name("actors.m")
        await there.enter_async_context(member(stage, "m"))
        assert await last_of(stage.settings, {group}, "m-1-0123456789ab", 5.0) == {group}
        assert await last_of(stage.settings, {group}, "m-2-0123456789ab", 5.0) == set()
        await there.enter_async_context(member(stage, "m"))
        assert await last_of(stage.settings, {group}, "m-1-0123456789ab", 5.0) == set()


@pytest.mark.parametrize("prefix", ["", "t1.", "actors.", "my.actors."])
def test_the_way_to_join_follows_from_the_group(prefix: str) -> None:
    shared = _refusal([_Rival("echo", f"{prefix}actors.main", frozenset())], prefix)
    own = _refusal([_Rival("echo", f"{prefix}agents.echo", frozenset())], prefix)
    assert "`--host main` shares its work" in shared.hint
    assert '`config={"own_group": True}` shares its work' in own.hint
