"""02: many tasks for a pool of agents, and why each went where it went.

Three agents offer `count_words`; one of them also offers `german`. A task says what it needs and not who is to do it. The
coordinator shares the work out, and writes every candidate that it considered into the event of its decision.

    troupe run ops/examples/02_fan_out_and_explain.py   # in another terminal
    python ops/examples/02_fan_out_and_explain.py

prints

    30 texts with 270 words were counted by anna, boris, carla
    capabilities count_words: considered were anna, boris, carla
    capabilities count_words, german: considered were carla
    Chose carla: the task asks for count_words, german, and it is free with 0 of 4 slots in use.
"""

from __future__ import annotations

from typing import Any

from actors import Actor, Context
from ops.cli.options import running_settings
from ops.client import Client
from ops.examples.start import start
from ops.views.explain import candidate_rows, explanation

TEXT = "No accepted task is lost; each has one outcome."
LIMIT_S = 15.0


async def count(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    return {"words": len(str(payload["text"]).split())}


def agents() -> list[Actor]:
    return [
        Actor("anna", count, capabilities=["count_words"], max_in_flight=4),
        Actor("boris", count, capabilities=["count_words"], max_in_flight=4),
        Actor("carla", count, capabilities=["count_words", "german"], max_in_flight=4),
    ]


async def main() -> None:
    async with Client(running_settings()) as client:
        tasks = [await client.submit(required_capabilities=["count_words"], payload={"text": TEXT}) for _ in range(30)]
        words = sum([(await client.result(task, LIMIT_S))["words"] for task in tasks])
        done = [await client.wait(task, timeout_s=LIMIT_S) for task in tasks]
        who = sorted({str(task.agent) for task in done if task is not None})
        print(f"{len(tasks)} texts with {words} words were counted by {', '.join(who)}")

        for words in (["count_words"], ["count_words", "german"]):
            task = await client.submit(required_capabilities=words, payload={"text": "Guten Tag"})
            found = await client.wait(task, timeout_s=LIMIT_S)
            assert found is not None
            explained = explanation(found)  # `troupe explain TASK` prints the same
            (step,) = (each for each in explained.steps if each.decision is not None)
            considered = sorted(agent for agent, *_ in candidate_rows(step.decision or {}))
            print(f"{explained.asked}: considered were {', '.join(considered)}")
        print(step.text)


if __name__ == "__main__":
    start(main, "troupe run ops/examples/02_fan_out_and_explain.py")
