"""The agents that a bench drives: 18 in 6 pools of 3, which do nothing, so that only the system itself is measured.

Their limits are their own and far above what any run reaches: a bound by accident would measure that bound. Being an
ordinary file of agents, it is hosted as a user's would be: `troupe up --agents` takes it too. Agents that sleep or
compute come from a file that `write_agents` makes, as nothing but files may say what a host hosts.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

from actors import Actor, Context
from actors.handlers import Handler
from schemas.policies import RateLimit

POOLS = 6
AGENTS_PER_POOL = 3
RESULT_BYTES = 100
MAX_IN_FLIGHT = 50_000
COMPUTING_IN_FLIGHT = 4
"""Handlers that compute run in threads; more of them than cores only take turns."""

RATE = RateLimit(rate=60e6, burst=1e6)
"""Tokens per minute: a million tasks a second."""

_PADDING = "x" * (RESULT_BYTES - len('{"at":1700000000000000,"pad":""}'))
_SMALL = b"x" * 1000  # hashed with the interpreter's lock held, as most Python code runs
_FILE = """from ops.bench.agents import company


def agents():
    return company(sleep_ms={sleep_ms!r}, cpu_ms={cpu_ms!r})
"""


async def nothing(payload: str, ctx: Context) -> dict[str, Any]:
    """Answer at once, in 100 bytes, with the microsecond at which the handler began."""
    return {"at": time.time_ns() // 1000, "pad": _PADDING}


def sleeping(sleep_ms: float) -> Handler:
    """A handler that answers after a while in which it needs no processor."""

    async def sleep(payload: str, ctx: Context) -> dict[str, Any]:
        answer = await nothing(payload, ctx)
        await asyncio.sleep(sleep_ms / 1000)
        return answer

    return sleep


def computing(cpu_ms: float) -> Handler:
    """A plain handler that answers after so many milliseconds of processor time of its own."""

    def compute(payload: str, ctx: Context) -> dict[str, Any]:
        at = time.time_ns() // 1000
        until = time.thread_time() + cpu_ms / 1000
        while time.thread_time() < until:
            hashlib.sha256(_SMALL).digest()
        return {"at": at, "pad": _PADDING}

    return compute


def word(pool: int) -> str:
    """The capability that the three agents of a pool offer, and no others."""
    return f"pool{pool}"


def agents() -> list[Actor]:
    """All of them, doing nothing."""
    return company()


def company(sleep_ms: float = 0, cpu_ms: float = 0) -> list[Actor]:
    """All of them; each handler sleeps, computes, or does nothing."""
    handler = computing(cpu_ms) if cpu_ms else sleeping(sleep_ms) if sleep_ms else nothing
    return [
        Actor(
            f"bench_{pool}_{place}",
            handler,
            capabilities=[word(pool)],
            max_in_flight=COMPUTING_IN_FLIGHT if cpu_ms else MAX_IN_FLIGHT,
            rate_limit=RATE,
        )
        for pool in range(POOLS)
        for place in range(AGENTS_PER_POOL)
    ]


def write_agents(directory: Path, sleep_ms: float, cpu_ms: float) -> Path:
    """The file of agents that do this; the one that is there anyway when they do nothing."""
    if not sleep_ms and not cpu_ms:
        return Path(__file__)
    directory.mkdir(parents=True, exist_ok=True)
    made = directory / "bench_agents.py"
    made.write_text(_FILE.format(sleep_ms=sleep_ms, cpu_ms=cpu_ms), encoding="utf-8")
    return made
