"""The broker itself dies; what it had acked is there when it is back, and the roles find their way."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.broker.local import BrokerOptions, LocalKafka
from tests.faults.harness import lonely_port, run

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.mark.parametrize(("kills", "away_seconds"), [(2, 0.0), (1, 15.0)])
async def test_a_broker_killed_and_started_again(
    tmp_path: Path, endured: Callable[[dict], None], kills: int, away_seconds: float
) -> None:
    kafka = LocalKafka(BrokerOptions(directory=tmp_path / "kafka", port=lonely_port()))
    started = await kafka.start()
    again = LocalKafka(BrokerOptions(directory=tmp_path / "kafka", port=started.port))
    try:
        async with run(f"broker killed, away {away_seconds:g} s", started.bootstrap, tmp_path / "data") as made:
            await made.system.ready()
            for _ in range(kills):
                load = asyncio.create_task(made.submitter.feed(300, 100))
                await asyncio.sleep(1.0)
                with made.system.without_broker():
                    for pid in kafka.pids():
                        os.kill(pid, signal.SIGKILL)
                    await asyncio.sleep(away_seconds)
                    await again.start()
                    await load
                    await made.done(0.9)
                    await made.system.ready()
            await made.verdict()
            endured(made.row)
    finally:
        await again.stop()
