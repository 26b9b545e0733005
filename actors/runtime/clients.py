"""Kafka clients of a host, with the settings that its promises rest on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer

from actors.heartbeats import Send
from actors.runtime.sessions import SessionConsumer
from schemas.plain_requests import send_plainly
from schemas.settings import Settings

BATCH_BYTES = 1 << 20
"""The default of 16 KiB wakes every waiting sender at each finished batch (12 times the cost, measured)."""

_LOOK_MS = 1000
"""The fetcher walks through all partitions as often, also while nothing can be asked; what happens wakes it anyway."""

_OVERHEAD_BYTES = 64 * 1024
_NEVER_MS = 2**31 - 1


def producer(settings: Settings, client_id: str) -> AIOKafkaProducer:
    """An idempotent producer that waits for all in-sync replicas; not yet started."""
    made = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        client_id=client_id,
        acks="all",
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES,
        max_request_size=settings.limits.max_wrapped_bytes + _OVERHEAD_BYTES,
        request_timeout_ms=int(settings.kafka.request_timeout_seconds * 1000),
    )
    send_plainly(made.client)
    return made


def consumer(settings: Settings, group: str, member: str) -> SessionConsumer:
    """A consumer whose offsets only we commit; `member` makes it static, and is what others see of us. Not yet started."""
    session_ms = int(settings.actors.session_timeout_seconds * 1000)
    return SessionConsumer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        client_id=member,
        group_id=group,
        group_instance_id=member,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=session_ms,
        heartbeat_interval_ms=max(100, session_ms // 6),
        fetch_max_wait_ms=settings.actors.fetch_max_wait_ms,
        consumer_timeout_ms=_LOOK_MS,
        max_partition_fetch_bytes=settings.limits.max_wrapped_bytes + _OVERHEAD_BYTES,
        max_poll_interval_ms=_NEVER_MS,  # handlers may take hours, and being alive is said by the heartbeats
        request_timeout_ms=int(settings.kafka.request_timeout_seconds * 1000),
    )


@asynccontextmanager
async def heartbeat_connection(settings: Settings, topic: str) -> AsyncIterator[Send]:
    """A connection of its own for the thread that sends heartbeats."""
    client = producer(settings, f"{settings.actors.host}-heartbeats")

    async def send(key: str, value: bytes) -> None:
        await client.send_and_wait(topic, key=key.encode(), value=value)

    await client.start()
    try:
        yield send
    finally:
        await client.stop()
