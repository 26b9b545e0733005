"""Agents that come, change and go while the system runs: routing follows the registry, and no task is lost meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from ops.cli.agents import read_agents
from ops.client import Client
from ops.views.tasks import TaskStatus
from schemas.agents import AgentCommand, AgentCommandKind
from schemas.settings import Settings, environment_of
from schemas.tasks import TaskEventKind, TaskState
from schemas.topics import AGENT_COMMANDS
from tests.faults.harness import Run, run

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SOURCE = """
import asyncio
from actors import Actor, Context

async def work(payload: dict, ctx: Context) -> dict:
    await asyncio.sleep(payload.get("seconds", 0))
    return {{"version": {version}}}

def agents() -> list[Actor]:
    return [Actor("newcomer", work, capabilities={words!r}, max_in_flight={slots},
                  heartbeat_interval_seconds=1, timeout_seconds=60)]
"""


@contextlib.asynccontextmanager
async def hosted(
    settings: Settings, version: int, words: list[str], slots: int = 10
) -> AsyncIterator[subprocess.Popen]:
    """`troupe run` of a file, ready; asked to stop at the end if it still runs."""
    folder = settings.data_dir / "agents"
    folder.mkdir(parents=True, exist_ok=True)
    file, ready = folder / "mine.py", folder / f"ready-{uuid.uuid4().hex}"
    file.write_text(SOURCE.format(version=version, words=words, slots=slots))
    own = settings.model_copy(update={"actors": settings.actors.model_copy(update={"host": "mine"})})
    with (folder / f"{version}.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - as the system under fault starts its own
            [sys.executable, "-m", "tests.actors.hosted", str(file), str(ready)],
            cwd=ROOT, env={**os.environ, **environment_of(own)}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with asyncio.timeout(40):
            while not ready.exists():
                assert process.poll() is None, (folder / f"{version}.log").read_text()[-2000:]
                await asyncio.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 20)
        except subprocess.TimeoutExpired:
            process.kill()


async def tell(made: Run, **command: object) -> None:
    """One command about the newcomer."""
    producer = AIOKafkaProducer(bootstrap_servers=made.settings.kafka.bootstrap_servers, acks="all")
    await producer.start()
    record = AgentCommand(
        event_id=uuid.uuid4().hex, occurred_at=time.time_ns() // 1000, source="operator", agent_id="newcomer", **command
    )
    value = made.submitter.codecs.of(AGENT_COMMANDS.subject).encode(record)
    await producer.send_and_wait(made.settings.kafka.topic_prefix + AGENT_COMMANDS.name, value, key=b"newcomer")
    await producer.stop()


async def status_of_newcomer(made: Run) -> str:
    found = {each.agent_id: each for each in await read_agents(made.settings)}
    return found["newcomer"].status if "newcomer" in found else "absent"


async def until_status(made: Run, wanted: set[str], limit_s: float = 30.0) -> float:
    """Seconds until the registry says one of these."""
    began = time.monotonic()
    async with asyncio.timeout(limit_s):
        while await status_of_newcomer(made) not in wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return time.monotonic() - began


async def until_state(client: Client, task_id: str, state: TaskState) -> None:
    async with asyncio.timeout(20):
        while (status := await client.status(task_id)) is None or status.status is not state:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def ended(client: Client, task_id: str) -> TaskStatus:
    status = await client.wait(task_id, 60)
    assert status is not None, task_id
    return status


async def test_an_agent_comes_changes_and_goes(broker: str, tmp_path: Path) -> None:
    async with run("agents change", broker, tmp_path, seed=93) as made, Client(made.settings) as client:
        await made.system.ready()
        waiting = await client.submit(required_capabilities=["sums"], payload={})  # it comes within the grace
        async with hosted(made.settings, 1, ["sums"]):
            first = await ended(client, await client.submit(required_capabilities=["sums"], payload={}))
            early = await ended(client, waiting)
        assert first.status is TaskState.COMPLETED and first.result == '{"version":1}'
        assert early.status in (TaskState.COMPLETED, TaskState.FAILED)  # by how long a host takes to start
        async with hosted(made.settings, 2, ["products"], slots=1) as process:
            second = await ended(client, await client.submit(required_capabilities=["products"], payload={}))
            assert second.result == '{"version":2}'
            gone = await ended(client, await client.submit(required_capabilities=["sums"], payload={}))
            assert gone.status is TaskState.FAILED
            two = [await client.submit(agent_id="newcomer", payload={"seconds": 5}) for _ in range(2)]
            await until_state(client, two[0], TaskState.RUNNING)
            await until_state(client, two[1], TaskState.QUEUED)
            await tell(made, kind=AgentCommandKind.UNREGISTER)
            # What it had is done before it is absent, what only waited for it fails; then nobody finds it, though its
            # process is there.
            assert [(await ended(client, each)).status for each in two] == [TaskState.COMPLETED, TaskState.FAILED]
            await until_status(made, {"absent"})
            nobody = await ended(client, await client.submit(required_capabilities=["products"], payload={}))
            assert nobody.status is TaskState.FAILED
            assert process.poll() is None
        async with hosted(made.settings, 3, ["products"]):
            back = await ended(client, await client.submit(required_capabilities=["products"], payload={}))
            assert back.result == '{"version":3}'
        assert not made.system.exits()


async def test_a_host_that_does_not_come_back_is_offline_and_its_tasks_wait_for_another(
    broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three heartbeats missing; a task that it had begun is queued again without using a retry, and done when it can."""
    async with run("host gone", broker, tmp_path, seed=94) as made, Client(made.settings) as client:
        await made.system.ready()
        async with hosted(made.settings, 1, ["sums"]) as process:
            task_id = await client.submit(required_capabilities=["sums"], payload={"seconds": 30})
            await until_state(client, task_id, TaskState.RUNNING)
            short = await client.submit(required_capabilities=["sums"], payload={"seconds": 0.5})
            process.send_signal(signal.SIGKILL)
            took = await until_status(made, {"failed"})  # the word for an agent that is offline
        status = await client.status(task_id)
        assert status is not None and status.status is TaskState.QUEUED
        await client.cancel(task_id)
        began = time.monotonic()
        async with hosted(made.settings, 2, ["sums"]):
            done = await ended(client, short)
        assert done.status is TaskState.COMPLETED
        assert all(event.kind is not TaskEventKind.RETRY_SCHEDULED for event in done.history)
        assert not made.system.exits()
        with capsys.disabled():
            print(f"\nkilled to offline {took:.1f} s, started again to done {time.monotonic() - began:.1f} s")
