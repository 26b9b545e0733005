"""The agents that a bench drives: 18 in 6 pools of 3, which do nothing, so that only the system itself is measured.

Their limits are their own and far above what any run reaches: a bound by accident would measure that bound. Being an
ordinary file of agents, it is hosted as a user's would be: `troupe up --agents` takes it too.
"""

from __future__ import annotations

import time
from typing import Any

from actors import Actor, Context
from schemas.policies import RateLimit

POOLS = 6
AGENTS_PER_POOL = 3
RESULT_BYTES = 100
MAX_IN_FLIGHT = 50_000
RATE = RateLimit(rate=60e6, burst=1e6)
"""Tokens per minute: a million tasks a second."""

_PADDING = "x" * (RESULT_BYTES - len('{"at":1700000000000000,"pad":""}'))


async def nothing(payload: str, ctx: Context) -> dict[str, Any]:
    """Answer at once, in 100 bytes, with the microsecond at which the handler began."""
    return {"at": time.time_ns() // 1000, "pad": _PADDING}


def word(pool: int) -> str:
    """The capability that the three agents of a pool offer, and no others."""
    return f"pool{pool}"


def agents() -> list[Actor]:
    """All of them."""
    return [
        Actor(
            f"bench_{pool}_{place}",
            nothing,
            capabilities=[word(pool)],
            max_in_flight=MAX_IN_FLIGHT,
            rate_limit=RATE,
        )
        for pool in range(POOLS)
        for place in range(AGENTS_PER_POOL)
    ]
