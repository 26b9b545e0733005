"""The watch on a loop that is really held, with an end that only notes what it was called with."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Any

from actors.handlers import Operations
from actors.ledger import Ledger
from actors.mailbox import Mailbox, Past, Work
from actors.watch import Patience, Watch
from schemas.inbox import AssignedTask
from tests.actors.test_mailbox import echo

Ends = list[tuple[str, dict[str, object]]]


def watch(ends: Ends, now: int = 0, **patience: Any) -> Watch:
    given = {"told_after": 0.1, "unknown_after": 60.0, "drain": 60.0, "frozen_after": None} | patience
    return Watch(Patience(**given), lambda: now, lambda event, fields: ends.append((event, fields)), io.StringIO())


def work(deadline_at: int) -> Work:
    box = Mailbox("echo", 1, Operations(echo), Past(), {0: Ledger(0)})
    task = AssignedTask(task_id="t", attempt=2, epoch=3, deadline_at=deadline_at)
    return Work(box, task, "inbox.0.0", [(0, 0)])


async def hold(seconds: float) -> None:
    await asyncio.sleep(0.05)
    time.sleep(seconds)  # noqa: ASYNC251 - the point


async def test_a_stop_has_a_limit_before_the_loop_is_watched() -> None:
    ends: Ends = []
    watching = watch(ends, drain=0.2)
    watching.start()
    watching.stop_asked()
    await asyncio.sleep(0.1)
    assert ends == []
    await asyncio.sleep(0.4)
    assert {event for event, _ in ends} == {"stop_forced"}


async def test_a_loop_that_is_free_is_left_alone() -> None:
    ends: Ends = []
    watching = watch(ends, now=10, unknown_after=0.0)
    watching.start()
    watching.begin(lambda: work(deadline_at=1))
    await asyncio.sleep(0.5)
    watching.close()
    assert ends == []


async def test_a_holder_may_go_on_until_its_deadline() -> None:
    ends: Ends = []
    watching = watch(ends, now=10)
    watching.start()
    watching.begin(lambda: work(deadline_at=11))
    await hold(0.5)
    watching.close()
    assert ends == []


async def test_a_holder_past_its_deadline_ends_the_process() -> None:
    ends: Ends = []
    watching = watch(ends, now=12)
    watching.start()
    watching.begin(lambda: work(deadline_at=11))
    await hold(0.5)
    watching.close()
    event, fields = ends[0]
    assert (event, fields["agent"], fields["task"], fields["attempt"]) == ("loop_held_for_good", "echo", "t", 2)
    assert "test_watch.py" in str(fields["where"]) and "in hold" in str(fields["where"])


async def test_what_no_handler_of_ours_does_has_a_limit_too() -> None:
    ends: Ends = []
    watching = watch(ends, unknown_after=0.3)
    watching.start()
    watching.begin(lambda: None)
    await hold(0.8)
    watching.close()
    assert {event for event, _ in ends} == {"loop_held_for_good"}
    assert "agent" not in ends[0][1]


async def test_a_stop_has_a_limit_also_when_the_loop_is_gone() -> None:
    ends: Ends = []
    watching = watch(ends, drain=0.2)
    watching.start()
    watching.begin(lambda: None)
    watching.stop_asked()
    watching.close()
    await asyncio.sleep(0.1)
    assert ends == []
    await asyncio.sleep(0.4)
    assert {event for event, _ in ends} == {"stop_forced"}
