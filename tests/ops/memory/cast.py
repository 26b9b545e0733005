"""The agents that the tests of rehearsals use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from actors.api import Actor, Context
from ops.memory.clock import DAWN
from ops.memory.rehearsal import Rehearsal


class Sum(BaseModel):
    a: int
    b: int


async def add(numbers: Sum, ctx: Context) -> dict[str, int]:
    return {"total": numbers.a + numbers.b}


async def nap(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    await asyncio.sleep(payload.get("seconds", 0))
    return {"attempt": ctx.attempt}


def adder() -> Actor:
    return Actor("adder", add, capabilities=["sum"])


def napper(**given: Any) -> Actor:
    return Actor("napper", nap, capabilities=["nap"], **given)


def stumbling(times: int, error: Callable[[], Exception]) -> Actor:
    """Fails so many times, then says at which attempt it did not."""

    async def stumble(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        if ctx.attempt <= times:
            raise error()
        return {"attempt": ctx.attempt}

    return Actor("stumbler", stumble, capabilities=["stumble"])


async def kinds_of(troupe: Rehearsal, task: str) -> list[str]:
    """What is told of a task now."""
    return [str(event.kind) async for event in troupe.events(task, live=False)]


def elapsed(troupe: Rehearsal) -> float:
    return (troupe.now - DAWN) / 1e6
