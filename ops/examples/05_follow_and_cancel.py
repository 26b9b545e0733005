"""05: long work, followed as it happens, and called off.

The first task is put into Kafka by hand, as JSON and without a schema, as a program in any language could. Its events
are then read as a stream, progress among them. The second would take an hour and is cancelled.

    troupe run ops/examples/05_follow_and_cancel.py     # in another terminal
    python ops/examples/05_follow_and_cancel.py

prints

    assigned
    progress
    completed
    168 primes below 1000
    the hour-long task is cancelled, and prime_agent is free again
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from aiokafka import AIOKafkaProducer

from actors import Actor, Context
from ops.cli.options import running_settings
from ops.client import Client
from ops.examples.start import start

LIMIT_S = 15.0


async def count(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    below, pause = int(payload["below"]), float(payload.get("pause_seconds", 0))
    found = 0
    for number in range(2, below):
        found += all(number % divisor for divisor in range(2, int(number**0.5) + 1))
        if number % 100 == 0:
            await ctx.report(number / below, f"{found} primes below {number}")
            await asyncio.sleep(pause)  # a handler that waits can be cancelled there
    return {"primes": found}


def agents() -> list[Actor]:
    return [Actor("prime_agent", count, capabilities=["count_primes"])]


async def main() -> None:
    settings = running_settings()
    task = f"primes-{uuid.uuid4()}"
    request = {"task_id": task, "pattern": "count_primes", "payload": {"below": 1000, "pause_seconds": 0.05}}
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        await producer.send_and_wait("tasks.requests", json.dumps(request).encode())

    async with Client(settings) as client:
        said = ""
        async for event in client.events(task, timeout_s=LIMIT_S):
            if str(event.kind) not in (said, "started"):  # progress comes many times; before it or after it, `started`
                said = str(event.kind)
                print(said)
        print(f"{(await client.result(task, LIMIT_S))['primes']} primes below 1000")

        task = await client.submit(pattern="count_primes", payload={"below": 10**6, "pause_seconds": 0.4})
        async for event in client.events(task, timeout_s=LIMIT_S):
            if event.kind == "progress":
                answer = await client.cancel(task, "not needed any more")
                break
        print(f"the hour-long task is {answer.outcome}, and {answer.agent} is free again")


if __name__ == "__main__":
    start(main, "troupe run ops/examples/05_follow_and_cancel.py")
