"""03: what happens when an agent is busy, slow or broken.

One agent, three ways to fail. A busy one is asked again after a delay; one that takes too long loses its attempt; one that
never gets it right ends as a dead letter, where the request waits with its last error. Each task has one outcome.

    troupe run ops/examples/03_retries_and_dead_letters.py   # in another terminal
    python ops/examples/03_retries_and_dead_letters.py

prints

    busy_once
      assigned, attempt 1
      retry_scheduled, attempt 1: the exchange is closed (overloaded), again in 0.2 s
      assigned, attempt 2
      completed, attempt 2
    slow_once
      assigned, attempt 1
      retry_scheduled, attempt 1: Task timed out after 1 s (timeout), again in 0.2 s
      assigned, attempt 2
      completed, attempt 2
    broken
      assigned, attempt 1
      retry_scheduled, attempt 1: ZeroDivisionError: division by zero (agent_error), again in 0.2 s
      assigned, attempt 2
      dead_lettered, attempt 2: ZeroDivisionError: division by zero (agent_error)

and `troupe topics tail tasks.deadletters --json --limit 1` shows the request of the third. Without the agent it
says so, at the latest after LIMIT_S.
"""

from __future__ import annotations

import asyncio
from typing import Any

from actors import Actor, Context
from ops.cli.options import running_settings
from ops.client import Client, NoOutcome
from ops.examples.start import start
from schemas.errors import Overloaded
from schemas.policies import RetryPolicy

TRANSITIONS = ("assigned", "retry_scheduled", "completed", "dead_lettered")
LIMIT_S = 15.0
MISSING = "The agent is missing: `troupe run ops/examples/03_retries_and_dead_letters.py` elsewhere, then this again."


async def trade(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    way = payload["way"]
    if way == "busy_once" and ctx.attempt == 1:
        raise Overloaded("the exchange is closed")
    if way == "slow_once" and ctx.attempt == 1:
        await asyncio.sleep(60)
    return {"price": 100 / (0 if way == "broken" else 4)}


def agents() -> list[Actor]:
    policy = RetryPolicy(max_retries=1, retry_delay=0.2)
    return [Actor("trading_agent", trade, capabilities=["trade"], timeout_seconds=1, retry=policy)]


async def follow(client: Client, task: str) -> None:
    async for event in client.events(task, timeout_s=LIMIT_S):
        why = f": {event.error.message} ({event.error.code})" if event.error else ""
        again = f", again in {event.delay_seconds:g} s" if event.delay_seconds else ""
        if event.kind in TRANSITIONS:
            print(f"  {event.kind}, attempt {event.attempt}{why}{again}")
        if event.kind == "failed":  # nobody could be asked; what an agent gets wrong ends as a dead letter here
            raise SystemExit(f"  {event.kind}{why}\n{MISSING}")
        if event.kind == "dead_lettered" and event.error and event.error.code == "timeout":  # it left a moment ago
            raise SystemExit(MISSING)


async def main() -> None:
    async with Client(running_settings()) as client:
        for way in ("busy_once", "slow_once", "broken"):
            print(way)
            task = await client.submit(pattern="trade", payload={"way": way})
            try:
                await follow(client, task)
            except NoOutcome as late:
                await client.cancel(task, "the example gave it up")
                raise SystemExit(f"  {late}\n{MISSING}") from late


if __name__ == "__main__":
    start(main)
