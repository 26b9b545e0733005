"""Handlers that hang, exit, allocate and block, in a whole system: each task ends, the others go on, the host is back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.client import Client
from ops.views.tasks import TaskStatus
from schemas.tasks import TaskState
from tests.faults.harness import Run, run
from tests.faults.submitter import Entry

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(600)]

FAILED, DEAD = TaskState.FAILED, TaskState.DEAD_LETTERED
ENDS = {
    "base": (DEAD, {"agent_error"}), "interrupt": (DEAD, {"agent_error"}), "sys_exit": (DEAD, {"agent_error"}),
    "list": (FAILED, {"agent_error"}), "huge": (FAILED, {"payload_too_large"}),
    "memory": (DEAD, {"agent_error", "timeout"}), "os_exit": (DEAD, {"agent_error", "timeout"}),
    "swallow": (DEAD, {"timeout"}), "spin": (DEAD, {"timeout", "agent_error"}),
}  # fmt: skip
"""How a task of each kind ends. One that shares its host with a killer may itself be found at a third start."""
EXITS = {"memory": 75, "os_exit": 3, "spin": 75}
"""With which code its host ends; that of any other kind goes on."""


async def test_rogue_handlers_end_in_dead_letters_and_the_rest_is_done(
    broker: str, tmp_path: Path, endured: Callable[[dict], None]
) -> None:
    environ = {
        "TROUPE_ACTORS__MEMORY_LIMIT_MB": "1200", "TROUPE_ACTORS__STUCK_SECONDS": "1", "TROUPE_ACTORS__DRAIN_SECONDS": "2",
        "FAULTS_HANGS": "0", "FAULTS_TIMEOUT_SECONDS": "30",
    }  # fmt: skip
    async with run("rogue handlers", broker, tmp_path, seed=91, environ=environ, untidy=False) as made:
        await made.system.ready()
        feeding = asyncio.create_task(made.submitter.feed(300, 20))
        async with Client(made.settings) as client:
            ended = {how: await _ended(made, client, how) for how in ENDS}
        await feeding
        odd = {
            how: (each.status, each.error) for how, each in ended.items()
            if each.status is not ENDS[how][0] or each.error is None or each.error.code not in ENDS[how][1]
        }  # fmt: skip
        assert not odd
        await made.verdict()
        endured(made.row | {"deaths": made.system.actors.deaths})
        # Two attempts of at most three starts each for what kills its host at once, two for each of the others.
        assert made.system.actors.deaths <= 4 + 3 * 2 + 2, made.system.exits()


async def _submitted(made: Run, client: Client, task_id: str, agent_id: str, payload: dict) -> str:
    """Submit to one agent, with an entry in the ledger by which the run is judged."""
    entry = Entry(time.time_ns() // 1000, task_id, "task", json.dumps(payload).encode())
    made.submitter.entries.append(entry)
    await client.submit(agent_id=agent_id, payload=payload, task_id=task_id)
    entry.ack = "confirmed"
    return task_id


async def _ended(made: Run, client: Client, how: str) -> TaskStatus:
    """Also wait until the host, or the one after it, works again: it may end after its report."""
    payload = {"how": how, "seconds": 600, "bytes": 3 << 30}
    with made.system.actors.may_exit(*([EXITS[how]] if how in EXITS else [])):
        status = await client.wait(await _submitted(made, client, f"rogue-{how}", "rogue", payload), 90)
        after = await client.wait(await _submitted(made, client, f"after-{how}", "witness", {"seconds": 0}), 30)
    assert status is not None, how
    assert after is not None and after.status is TaskState.COMPLETED, how
    return status


async def test_a_killed_host_is_back_and_its_task_is_done_again(
    broker: str, tmp_path: Path, endured: Callable[[dict], None]
) -> None:
    """It is a static member: it gets its inboxes back when it is ready, not when its old session is over."""
    async with run("host killed", broker, tmp_path, seed=92) as made:
        await made.system.ready()
        async with Client(made.settings) as client:
            back, again = [], []
            for n in range(3):
                task_id = await _submitted(made, client, f"nap-{n}", "witness", {"seconds": 1})
                await _running(client, task_id)
                killed = time.monotonic()
                await made.system.kill(made.system.actors)
                await made.system.until(lambda: made.system.actors.was_ready, 30, "ready again")
                back.append(time.monotonic() - killed)
                status = await client.wait(task_id, 30)
                again.append(time.monotonic() - killed)
                assert status is not None and status.status is TaskState.COMPLETED
        made.row |= {"ready s": f"{max(back):.1f}", "done again s": f"{max(again):.1f}"}
        await _over(made)
        endured(made.row)


async def _running(client: Client, task_id: str) -> None:
    async with asyncio.timeout(20):
        while (status := await client.status(task_id)) is None or status.status is not TaskState.RUNNING:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _over(made: Run) -> None:
    await made.submitter.feed(20)
    await made.verdict()
