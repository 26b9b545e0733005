"""Agents of the hosts that tests kill, and agents that do to their host what no handler should."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
import time
from typing import Any

from actors import Actor, Context


async def quick(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    return {"n": payload.get("n")}


async def nap(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    await asyncio.sleep(payload["seconds"])
    return {}


def block(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    time.sleep(payload["seconds"])
    return {}


async def die(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


async def rogue(payload: dict[str, Any], ctx: Context) -> Any:
    """Each way to misbehave inside of the host's loop."""
    match payload["how"]:
        case "os_exit":
            os._exit(3)
        case "sys_exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "base":
            raise Surprise("of a kind of its own")
        case "cancel_self":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(5)
        case "cancel_self_and_return":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return {}
        case "sleep":
            time.sleep(payload["seconds"])  # noqa: ASYNC251 - that is the misdeed
        case "spin":
            while True:
                pass
        case "hog":
            re.match(r"(a+)+$", "a" * 60 + "b")  # the interpreter gets no turn
        case "swallow":
            await swallow(payload["seconds"])
        case "memory":
            return {"bytes": len(bytearray(payload["bytes"]))}
        case "background":
            ctx.logger.info("left", task=repr(asyncio.create_task(swallow(600))))
        case "thread":
            threading.Thread(target=time.sleep, args=(600,), name="left").start()
        case "list":
            return ["no", "object"]
        case "bytes":
            return {"data": b"\xff"}
        case "nan":
            return {"value": float("nan")}
        case "huge":
            return {"data": "x" * 5_000_000}
    return {}


class Surprise(BaseException):
    """Neither an Exception nor anything that Python knows."""


async def swallow(seconds: float) -> None:
    """Go on whatever is asked."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            continue


def agents() -> list[Actor]:
    plain = [Actor("quick", quick), Actor("nap", nap), Actor("block", block), Actor("die", die)]
    return [*plain, Actor("rogue", rogue), Actor("deaf", rogue, max_in_flight=1), Actor("dull", block, max_in_flight=1)]
