"""Agents that misbehave by design, so that a run under faults has failures, retries and timeouts of its own.

What an attempt does follows from its task and number alone: some 15 % raise, some 2 % never answer. Each start is
appended to a ledger outside Kafka. Limits come from the environment: the host runs this file in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import zlib

from actors import Actor, Context
from schemas.policies import RetryPolicy
from tests.actors.killable import nap, rogue

RAISES_BELOW = 17
ONCE_MORE = RetryPolicy(max_retries=1, retry_delay=0.1)
POLICY = RetryPolicy(max_retries=2, retry_delay=0.2, max_delay=0.5)


def fate(task_id: str, attempt: int) -> int:
    """0 to 99: below `hangs_below` the attempt never answers, below 17 it raises."""
    return zlib.crc32(f"{task_id}:{attempt}".encode()) % 100


def handler(ledger: str, work_seconds: float, hangs_below: int):
    async def work(payload: dict, ctx: Context) -> dict:
        line = json.dumps({"id": ctx.task_id, "attempt": ctx.attempt, "epoch": ctx.epoch, "pid": os.getpid()})
        descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)
        if work_seconds:
            await asyncio.sleep(work_seconds)
        luck = fate(ctx.task_id, ctx.attempt)
        if luck < hangs_below:
            await asyncio.Event().wait()
        if luck < RAISES_BELOW:
            raise RuntimeError(f"attempt {ctx.attempt} was to fail")
        return {"id": ctx.task_id, "size": len(payload.get("text", ""))}

    return work


def agents() -> list[Actor]:
    given = os.environ.get
    work = handler(os.environ["FAULTS_LEDGER"], float(given("FAULTS_WORK_SECONDS", "0")), int(given("FAULTS_HANGS", "2")))
    timeout = int(given("FAULTS_TIMEOUT_SECONDS", "2"))
    return [
        Actor("rogue", rogue, max_in_flight=2, timeout_seconds=3, retry=ONCE_MORE),
        Actor("witness", nap, max_in_flight=10, heartbeat_interval_seconds=1),
        *(
            Actor(name, work, capabilities=["work"], max_in_flight=40, timeout_seconds=timeout, retry=POLICY)
            for name in ("first", "second")
        ),
    ]
