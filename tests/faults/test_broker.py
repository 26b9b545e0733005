"""The broker itself dies; what it had acked is there when it is back, and the roles find their way."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.broker.local import BrokerOptions, LocalKafka
from streams.runtime.exits import EXIT_FENCED, EXIT_KAFKA
from tests.faults.harness import BRIEF_S, PATIENT_S, lonely_port, run

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.mark.parametrize(("kills", "away_seconds", "session_s"), [(2, 0.0, PATIENT_S), (1, 15.0, BRIEF_S)])
async def test_a_broker_killed_and_started_again(
    tmp_path: Path, endured: Callable[[dict], None], kills: int, away_seconds: float, session_s: float
) -> None:
    """Who has the patience waits for it. A coordinator whose session is over must not send, as another may own its
    partitions; it goes on only if the group, which was away with the broker, hears of it again before that.
    """
    ends = away_seconds > session_s
    kafka = LocalKafka(BrokerOptions(directory=tmp_path / "kafka", port=lonely_port()))
    started = await kafka.start()
    again = LocalKafka(BrokerOptions(directory=tmp_path / "kafka", port=started.port))
    try:
        name = f"broker killed, away {away_seconds:g} s"
        async with run(name, started.bootstrap, tmp_path / "data", session_s=session_s) as made:
            coordinator, actors = made.system.coordinator, made.system.actors
            await made.system.ready()
            for _ in range(kills):
                load = asyncio.create_task(made.submitter.feed(300, 100))
                await asyncio.sleep(1.0)
                # Not heard of for a session, and then no broker at a start.
                with coordinator.may_exit(*((EXIT_FENCED, EXIT_KAFKA, 1) if ends else ())):
                    for pid in kafka.pids():
                        os.kill(pid, signal.SIGKILL)
                    await asyncio.sleep(away_seconds)
                    await again.start()
                    await load
                    await made.done(0.9)
                    await made.system.ready()
            await made.verdict()
            endured(made.row)
            assert actors.deaths == 1 and (ends or coordinator.deaths == 1), made.system.exits()
    finally:
        await again.stop()
