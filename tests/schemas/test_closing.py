"""What a close may take, and whose cancellation counts; a broker that hangs is in `tests/ops/test_closing.py`."""

from __future__ import annotations

import asyncio

import pytest

from schemas.closing import closed
from schemas.errors import BrokerUnavailable

LIMIT_S = 10.0


async def test_a_client_that_never_closes_is_left() -> None:
    async with asyncio.timeout(LIMIT_S):
        await closed(asyncio.sleep(3600), 0.01)


async def test_a_client_that_says_it_was_cancelled_hides_no_failure() -> None:
    """As aiokafka's consumer does when it is stopped between a failed fetch and the next."""

    async def stop() -> None:
        fetch = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        fetch.cancel()
        await fetch

    async def leave() -> None:
        try:
            raise BrokerUnavailable("gone")
        finally:
            await closed(stop(), LIMIT_S)

    with pytest.raises(BrokerUnavailable):
        await leave()


async def test_who_is_cancelled_while_a_client_closes_is_cancelled() -> None:
    closing = asyncio.create_task(closed(asyncio.sleep(60), LIMIT_S))
    await asyncio.sleep(0.01)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
