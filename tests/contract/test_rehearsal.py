"""A rehearsal and a real system, asked the same by the same code: what becomes of each task must be equal, and why.

This is what lets an author believe a test that ran without a Kafka. Left out of the comparison are instants, places in the
log, the name of the deciding process, and whether a handler took longer than a moment, which on a busy machine any may;
states, attempts, agents, results, errors and reasons are compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from actors.loader import load_agents
from ops.client import Client
from ops.memory.client import MemoryClient
from ops.memory.rehearsal import Rehearsal
from ops.views.tasks import TaskStatus
from schemas.policies import RetryPolicy
from schemas.settings import Kafka, Routing, Settings
from tests.e2e.conftest import Visitor

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

AGENTS = '''
import asyncio

from actors import Actor, Context
from pydantic import BaseModel
from schemas.errors import InvalidInput, Overloaded


class Work(BaseModel):
    how: str = "well"
    seconds: float = 0.0


async def work(work: Work, ctx: Context) -> dict:
    await asyncio.sleep(work.seconds)
    if work.how == "refuse":
        raise InvalidInput("no such account")
    if work.how == "busy" and not ctx.last_attempt:
        raise Overloaded("come back later")
    if work.how == "break":
        raise RuntimeError("it broke")
    return {"how": work.how, "attempt": ctx.attempt, "last": ctx.last_attempt}


def plain(payload: dict, ctx: Context) -> dict:
    return {"pattern": ctx.pattern, "keys": sorted(payload)}


def agents() -> list[Actor]:
    return [
        Actor("worker", work, capabilities=["work", "shared"], max_in_flight=4),
        Actor("clerk", {"plain": plain, "work": work}, capabilities=["paper"], timeout_seconds=60),
    ]
'''

ONCE = RetryPolicy(max_retries=1, retry_delay=0.1)

TASKS: dict[str, dict[str, Any]] = {
    "well": {"pattern": "work", "payload": {}},
    "plain-function": {"pattern": "paper", "payload": {"b": 1, "a": 2}},
    "operation": {"pattern": "paper", "payload": {"operation": "work"}},
    "no-such-operation": {"pattern": "paper", "payload": {"operation": "nothing"}},
    "capability": {"required_capabilities": ["work", "shared"]},
    "pinned": {"agent_id": "clerk", "payload": {"x": 1}},
    "refused-by-handler": {"pattern": "work", "payload": {"how": "refuse"}},
    "does-not-fit": {"pattern": "work", "payload": {"seconds": "long"}},
    "busy-once": {"pattern": "work", "payload": {"how": "busy"}, "retry": ONCE},
    "broken": {"pattern": "work", "payload": {"how": "break"}, "retry": ONCE},
    "too-slow": {"pattern": "work", "payload": {"seconds": 30}, "timeout_seconds": 1, "retry": RetryPolicy(max_retries=0)},
    "nobody": {"pattern": "xyz"},
    "no-such-agent": {"agent_id": "ghost"},
    "no-one-can": {"required_capabilities": ["work", "paper"]},
    "no-route": {"payload": {}},
    "rejected": {"pattern": "xyz", "admission": "reject"},
    "wrong-priority": {"pattern": "work", "priority": 9},
}


async def play(client: Client | MemoryClient) -> dict[str, Any]:
    """One task after the other; the same for whoever answers."""
    seen: dict[str, Any] = {}
    for task_id, fields in TASKS.items():
        await client.submit(task_id=task_id, **fields)
        seen[task_id] = told(await client.wait(task_id, 60))
    await client.submit(task_id="well", pattern="work", payload={"how": "otherwise"})
    seen["conflict"] = told(await client.wait("well", 60))
    await client.submit(task_id="cancelled", pattern="work", payload={"seconds": 1000})
    async with aclosing(client.events("cancelled")) as events:
        async for event in events:
            if event.kind == "started":
                break
    seen["cancel"] = [(await client.cancel(each)).document() for each in ("cancelled", "cancelled", "well", "unheard-of")]
    seen["cancelled"] = told(await client.wait("cancelled", 60))
    return seen


def told(task: TaskStatus | None) -> dict[str, Any]:
    """What must be equal of a task."""
    assert task is not None
    found = task.document()
    history = [
        {name: event[name] for name in ("kind", "to_state", "attempt", "agent", "error")} | why(event)
        for event in found.pop("history")
        if event["kind"] != "started"
    ]
    return {**found, "history": history}


def why(event: dict[str, Any]) -> dict[str, Any]:
    decision = event["decision"] or {}
    names = ("input", "rule", "target", "strategy", "candidates", "excluded_counts", "chosen", "reason", "queue_level")
    return {name: decision.get(name) for name in names}


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Visitor]:
    """A real system that hosts these agents, without the built-in ones."""
    visitor = Visitor(tmp_path / "visitor")
    (visitor.root / "agents.py").write_text(AGENTS)
    given = ("--agents", "agents.py", "--set", "agents.builtin=", "--set", "routing.grace_seconds=0.3")
    visitor.troupe("up", "--detach", "--data", "data", *given)
    yield visitor
    visitor.troupe("down")


def test_a_rehearsal_says_of_each_task_what_a_real_system_says(real: Visitor, tmp_path: Path) -> None:
    address = next(each["addresses"][0] for each in real.json("ps") if each["role"] == "broker")
    settings = Settings(kafka=Kafka(bootstrap_servers=address, partitions=2), routing=Routing(grace_seconds=0.3))

    async def on_kafka() -> dict[str, Any]:
        async with Client(settings) as client:
            return await play(client)

    async def rehearsed() -> dict[str, Any]:
        async with Rehearsal(load_agents(real.root / "agents.py"), settings=settings) as troupe:
            return await play(troupe.client)

    expected, found = asyncio.run(on_kafka()), asyncio.run(rehearsed())
    assert found == expected
    assert {expected[each]["status"] for each in TASKS} == {"completed", "failed", "dead_lettered", "refused"}
