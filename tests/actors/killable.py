"""Agents of the hosts that tests kill."""

from __future__ import annotations

import asyncio
import os
import signal
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


def agents() -> list[Actor]:
    return [Actor("quick", quick), Actor("nap", nap), Actor("block", block), Actor("die", die)]
