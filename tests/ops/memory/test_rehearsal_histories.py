"""Whatever is submitted, crashed and waited for, in any order: each task ends once, and its history says how."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actors.api import Actor, Context
from ops.memory.rehearsal import Rehearsal
from ops.views.tasks import NOTES
from schemas.errors import InvalidInput
from schemas.tasks import TERMINAL, TaskEventKind
from schemas.topics import TASK_RESULTS

Action = tuple[str, float]

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["quick", "slow", "endless", "stumbles", "refuses"]), st.just(0.0)),
        st.tuples(st.just("advance"), st.sampled_from([0.0, 0.001, 0.5, 1.0, 9.0, 40.0])),
        st.tuples(st.sampled_from(["coordinator", "actors", "both"]), st.sampled_from([0.0, 1.0, 35.0])),
    ),
    min_size=1,
    max_size=14,
)


async def work(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    match payload["how"]:
        case "slow":
            await asyncio.sleep(12)
        case "endless":
            await asyncio.Event().wait()
        case "stumbles" if ctx.attempt < 3:
            raise RuntimeError("not yet")
        case "refuses":
            raise InvalidInput("no")
    return {"how": payload["how"]}


ENDS = {
    "quick": {"completed"}, "slow": {"completed"}, "stumbles": {"completed"}, "refuses": {"failed"},
    "endless": {"dead_lettered"},
}  # fmt: skip


async def play(actions: list[Action]) -> None:
    actor = Actor("worker", work, capabilities=["work"], max_in_flight=2, timeout_seconds=30)
    async with Rehearsal([actor]) as troupe:
        tasks: dict[str, str] = {}
        for name, seconds in actions:
            if name == "advance":
                await troupe.advance(seconds)
            elif name in ("coordinator", "actors", "both"):
                await crash(troupe, name, seconds)
            else:
                tasks[await troupe.submit("work", {"how": name})] = name
        for task, how in tasks.items():
            found = await troupe.wait(task)
            # A handler that never ends may be found in its third start, after crashes, which is a failure of its own.
            assert found.status in ENDS[how], (how, found.document())
            moves = [event for event in found.history if event.kind not in NOTES]
            assert [event.version for event in moves] == list(range(1, len(moves) + 1))
            assert [event.to_state in TERMINAL for event in moves].count(True) == 1
            lost = [event.kind for event in moves].count(TaskEventKind.REQUEUED)  # uses no retry
            assert found.attempts <= 4 + lost
        await troupe.advance(61)  # a start that was delivered again after its end runs to its deadline, and 30 s more
        assert troupe.running == 0
        assert outcomes(troupe) == dict.fromkeys(tasks, 1)


async def crash(troupe: Rehearsal, name: str, seconds: float) -> None:
    if name in ("coordinator", "both"):
        troupe.crash_coordinator()
    if name in ("actors", "both"):
        await troupe.crash_actors()
    await troupe.advance(seconds)
    if name in ("coordinator", "both"):
        troupe.restart_coordinator()
    if name in ("actors", "both"):
        troupe.restart_actors()


def outcomes(troupe: Rehearsal) -> dict[str, int]:
    """How many different outcomes each task has; repeats have the same id."""
    codec = troupe.codecs.of(TASK_RESULTS.subject)
    found = {
        (result.task_id, result.event_id)
        for number in range(troupe.log.topics()[TASK_RESULTS.name])
        for stored in troupe.log.read(TASK_RESULTS.name, number, 0, 10_000)
        for result in [codec.decode(stored.value or b"")]
    }
    return dict(Counter(task_id for task_id, _ in found))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(actions=[("slow", 0.0), ("both", 35.0), ("slow", 0.0), ("coordinator", 0.0)])
@example(actions=[("endless", 0.0), ("actors", 35.0)])
@example(actions=[("endless", 0.0), ("actors", 0.0), ("actors", 0.0), ("actors", 0.0)])
@example(actions=[
    ("endless", 0.0), ("advance", 0.0), ("actors", 0.0), ("actors", 0.0), ("coordinator", 0.0), ("actors", 0.0),
])  # fmt: skip
@given(actions=ACTIONS)
def test_each_task_ends_once_whatever_crashes(actions: list[Action]) -> None:
    asyncio.run(play(actions))
