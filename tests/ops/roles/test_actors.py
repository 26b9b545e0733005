"""The role as a process: what it says when it cannot start, and that it ends when Kafka does."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from pathlib import Path

import pytest

from actors.catalog.builtin import builtin
from ops.broker.local import BrokerOptions, LocalKafka
from ops.roles.actors import KAFKA_FAILED, run_actors
from schemas.errors import OperatorError
from schemas.settings import Kafka, Settings
from tests.actors.killable import agents
from tests.actors.stage import Stage, assignment, outcomes
from tests.actors.test_host_faults import process

pytestmark = pytest.mark.kafka


def _lonely_port() -> int:
    """A free port that no other test looks for while our broker is down, below those that outgoing connections get."""
    while True:
        port = random.randrange(25_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


async def test_a_broker_that_is_not_there(tmp_path: Path) -> None:
    address = f"127.0.0.1:{_lonely_port()}"
    settings = Settings(kafka=Kafka(bootstrap_servers=address, metadata_timeout_seconds=2.0), data_dir=tmp_path)
    with pytest.raises(OperatorError, match=f"Kafka is not reachable at {address}") as raised:
        await run_actors(settings, builtin(), None)
    assert "troupe up" in raised.value.hint


async def test_topics_that_are_not_there(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage:
        kafka = stage.settings.kafka.model_copy(update={"topic_prefix": "nowhere."})
        with pytest.raises(OperatorError, match=r"Topics are missing: nowhere\.agents\.events") as raised:
            await run_actors(stage.settings.model_copy(update={"kafka": kafka}), builtin(), None)
        assert raised.value.hint == "troupe topology apply"


@pytest.mark.faults
async def test_an_idle_host_outlives_a_restart_of_the_broker_and_a_working_one_ends_without_it(tmp_path: Path) -> None:
    kafka = LocalKafka(BrokerOptions(directory=tmp_path / "kafka", port=_lonely_port()))
    started = await kafka.start()
    limits = {"kafka__request_timeout_seconds": 6, "actors__session_timeout_seconds": 3}
    try:
        async with Stage.open(started.bootstrap, tmp_path, **limits) as stage:
            await stage.enrol(*agents())
            async with process(stage) as child:
                await stage.assign("quick", "before", {"n": 1})
                await stage.reports(len)
                await kafka.stop()
                await asyncio.sleep(4)
                assert child.returncode is None
                await kafka.start()
                await stage.assign("quick", "after", {"n": 2})
                await stage.reports(lambda seen: "after" in outcomes(seen), 30)
                await stage.assign_many("nap", [assignment(f"n{n}", {"seconds": 2}) for n in range(3)])
                await stage.reports(lambda seen: len([each for each in seen if each.kind == "started"]) == 3)
                await kafka.stop()
                assert await asyncio.wait_for(child.wait(), 40) == KAFKA_FAILED
            await kafka.start()
            async with process(stage):
                await stage.reports(lambda seen: len(outcomes(seen)) == 5, 40)
    finally:
        await kafka.stop()
