"""Closing Kafka clients within a limit: without a broker an idempotent producer waits for ever for what is under way.

Whoever closes has got its answers, or has been told that there are none; nothing more depends on the close, and what is
not committed is delivered again. Sockets that it leaves end with the process. It is here, and needs no Kafka client,
because hosts of agents and the edges close alike and share nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import structlog


async def closed(closing: Awaitable[object], limit_s: float) -> None:
    """Wait for a client's close for at most `limit_s` seconds.

    A consumer that ends while it holds back after a failed fetch says that it was cancelled. Who believed that would end
    as one that was, and not with the failure that made it close.
    """
    try:
        async with asyncio.timeout(limit_s):
            await closing
    except TimeoutError:
        structlog.get_logger("kafka").warning("client_not_closed", limit_s=limit_s)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
