"""A broker that hangs keeps nobody: what is under way is given up within the limit, and the client is left."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from ops.broker.local import BrokerOptions, LocalKafka
from ops.client import Client
from ops.topics import apply
from ops.views.log import open_log
from schemas.errors import BrokerUnavailable
from schemas.settings import Kafka, Settings
from topology import troupe

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

LIMIT_S = 2.0
KEPT_S = 60.0
"""As long as a hang takes here: the broker goes on after it."""


async def test_a_client_is_left_while_its_broker_hangs(tmp_path: Path) -> None:
    kafka = LocalKafka(BrokerOptions(directory=tmp_path / "kafka"))
    started = await kafka.start()
    limits = {"metadata_timeout_seconds": LIMIT_S, "request_timeout_seconds": 5.0}
    try:
        settings = Settings(kafka=Kafka(bootstrap_servers=started.bootstrap, partitions=2, **limits))
        patient = Settings(kafka=Kafka(bootstrap_servers=started.bootstrap, partitions=2))
        await apply(patient, troupe())
        async with open_log(settings) as log, Client(settings) as client:
            await client.submit(agent_id="nobody", payload={})
            _signal(kafka, signal.SIGSTOP)
            under_way = asyncio.create_task(client.submit(agent_id="nobody", payload={}))
            await asyncio.sleep(0.5)
            under_way.cancel()
            asyncio.get_running_loop().call_later(KEPT_S, _signal, kafka, signal.SIGCONT)
            with pytest.raises(BrokerUnavailable):
                await log.topics()
            begun = time.monotonic()
        assert time.monotonic() - begun < KEPT_S / 2
        with pytest.raises(BrokerUnavailable):
            await Client(settings).__aenter__()
    finally:
        _signal(kafka, signal.SIGCONT)
        await kafka.stop()


def _signal(kafka: LocalKafka, number: int) -> None:
    for pid in kafka.pids():
        os.kill(pid, number)
