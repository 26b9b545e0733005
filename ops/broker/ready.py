"""When is a broker ready? When a client can work with it, which is later than when its port answers.

Ready means: every broker is registered with an elected controller, every partition has a leader again, and a consumer
group can be formed. The last one makes the broker create its offsets topic before the first worker needs it; asked
too early, clients log errors that look like faults.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ops.broker.layout import Node, bootstrap
from ops.broker.ports import HOST
from schemas.errors import BrokerUnavailable

_POLL_S = 0.03
_REQUEST_TIMEOUT_MS = 5_000
_CLOSE_TIMEOUT_S = 5.0
_PROBE_GROUP = "troupe.ready"  # asked for its coordinator only: no group of this name ever exists


async def until_ready(nodes: Sequence[Node], check_alive: Callable[[], None], timeout_s: float) -> None:
    """Wait until clients can work; `check_alive` is called between tries and raises when waiting is pointless.

    Raises BrokerUnavailable after `timeout_s`, with the last thing that was missing.
    """
    deadline = time.monotonic() + timeout_s
    missing = "no connection yet"
    while (left_s := deadline - time.monotonic()) > 0:
        check_alive()
        try:
            async with asyncio.timeout(left_s):
                await _listening(nodes)
                missing = await _missing(nodes, deadline, check_alive)
        except (OSError, KafkaError, TimeoutError) as error:
            missing = repr(error)
        else:
            if not missing:
                return
        await asyncio.sleep(_POLL_S)
    raise BrokerUnavailable(f"Kafka was not ready after {timeout_s:.0f} s ({missing})")


async def _listening(nodes: Sequence[Node]) -> None:
    """A plain connection to each broker first, because the Kafka client logs every refusal."""
    for node in nodes:
        _, writer = await asyncio.open_connection(HOST, node.port)
        writer.close()


async def _missing(nodes: Sequence[Node], deadline: float, check_alive: Callable[[], None]) -> str:
    """Ask on one connection until nothing is missing; returns an empty string then, else what still was."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap(nodes), request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        while True:
            missing = await _shortfall(admin, len(nodes))
            if not missing or time.monotonic() > deadline:
                return missing
            check_alive()
            await asyncio.sleep(_POLL_S)
    finally:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await admin.close()


async def _shortfall(admin: AIOKafkaAdminClient, brokers: int) -> str:
    cluster = await admin.describe_cluster()
    if cluster["controller_id"] < 0:
        return "no controller yet"
    if len(cluster["brokers"]) < brokers:
        return f"{len(cluster['brokers'])} of {brokers} brokers registered"
    for topic in await admin.describe_topics():
        if any(partition["leader"] < 0 for partition in topic["partitions"]):
            return f"topic {topic['topic']} has a partition without a leader"
    try:
        await admin.find_coordinator(_PROBE_GROUP)
    except KafkaError as error:
        return f"no group coordinator: {error!r}"
    return ""
