"""When is a broker ready? When a client can work with it, which is later than when its port answers.

Ready means: every broker is registered with an elected controller, every partition has a leader again, and a consumer
group can be formed. Asking for a group makes the broker create its offsets topic before the first worker needs it; a
client that asks too early logs errors that look like faults. It must be our cluster, too: on a port that was lost to
another Kafka in the last moment, that one answers just as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ops.broker.layout import Node, bootstrap, cluster_id
from ops.broker.ports import HOST
from schemas.errors import BrokerUnavailable

_POLL_S = 0.03
_PROBE_GROUP = "troupe.ready"  # asked for its coordinator only: no group of this name ever exists


async def until_ready(
    nodes: Sequence[Node], check_alive: Callable[[], None], timeout_s: float, answer_s: float
) -> None:
    """Wait until clients can work; `check_alive` is called all the while and raises when waiting is pointless.

    Raises BrokerUnavailable after `timeout_s`, with the last thing that was missing. `answer_s`: longest wait for one
    answer, and for the end of the connection.
    """
    # Beside each other, because a port that another program took may accept a connection and never say a word.
    probe = asyncio.create_task(_probe(nodes, timeout_s, answer_s))
    try:
        while not probe.done():
            check_alive()
            await asyncio.wait({probe}, timeout=_POLL_S)
        probe.result()
    finally:
        probe.cancel()
        await asyncio.wait({probe}, timeout=answer_s)


async def _probe(nodes: Sequence[Node], timeout_s: float, answer_s: float) -> None:
    missing = ["no connection yet"]
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    await _listening(nodes)
                    await _complete(nodes, missing, answer_s)
                    return
                except (OSError, KafkaError) as error:
                    missing[:] = [repr(error)]
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise BrokerUnavailable(f"Kafka was not ready after {timeout_s:.0f} s ({missing[0]})") from None


async def _listening(nodes: Sequence[Node]) -> None:
    """A plain connection to each broker first, because the Kafka client logs every refusal."""
    for node in nodes:
        _, writer = await asyncio.open_connection(HOST, node.port)
        writer.close()


async def _complete(nodes: Sequence[Node], missing: list[str], answer_s: float) -> None:
    """Ask on one connection until nothing is missing; what is goes into the list."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap(nodes), request_timeout_ms=int(answer_s * 1000))
    try:
        await admin.start()
        while shortfall := await _shortfall(admin, nodes):
            missing[:] = [shortfall]
            await asyncio.sleep(_POLL_S)
    finally:
        async with asyncio.timeout(answer_s):
            await admin.close()


async def _shortfall(admin: AIOKafkaAdminClient, nodes: Sequence[Node]) -> str:
    cluster = await admin.describe_cluster()
    if cluster["cluster_id"] != cluster_id(nodes):
        return f"another Kafka answers on {bootstrap(nodes)}"
    if cluster["controller_id"] < 0:
        return "no controller yet"
    if len(cluster["brokers"]) < len(nodes):
        return f"{len(cluster['brokers'])} of {len(nodes)} brokers registered"
    for topic in await admin.describe_topics():
        if any(partition["leader"] < 0 for partition in topic["partitions"]):
            return f"topic {topic['topic']} has a partition without a leader"
    try:
        await admin.find_coordinator(_PROBE_GROUP)
    except KafkaError as error:
        return f"no group coordinator: {error!r}"
    return ""
