"""Closing Kafka clients within a limit: without a broker an idempotent producer waits for ever for what is under way.

Whoever closes has got its answers, or has been told that there are none; nothing more depends on the close. Sockets that
it leaves end with the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import structlog


async def closed(closing: Awaitable[object], limit_s: float) -> None:
    """Wait for a client's close for at most `limit_s` seconds."""
    try:
        async with asyncio.timeout(limit_s):
            await closing
    except TimeoutError:
        structlog.get_logger("kafka").warning("client_not_closed", limit_s=limit_s)
