"""What all tests share: one real Kafka for the whole run, and a topic prefix of its own for each test.

Tests never share topics, so they need no clean-up and no order. The broker is the product's own; without it nothing here
is proven, so a machine that cannot start it fails the run instead of passing it. What the shell says of settings is not
heard, here or in any process that a test starts.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.broker.local import BrokerOptions, LocalKafka
from ops.topics import apply
from schemas.settings import ALIASES, Coordinator, Kafka, Settings
from topology import troupe

pytest_plugins = ("tests.faults.report",)

OF_THE_MACHINE = ("TROUPE_CACHE", "TROUPE_MAVEN_MIRROR")
"""Where Kafka's files come from; no setting of an installation."""


@pytest.fixture(scope="session", autouse=True)
def plain_environment() -> Iterator[None]:
    """The environment without any setting."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name in ALIASES or (name.startswith("TROUPE_") and name not in OF_THE_MACHINE):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a real Kafka that lives as long as the test run."""
    directory = tmp_path_factory.mktemp("kafka")
    kafka = LocalKafka(BrokerOptions(directory=directory))
    started = asyncio.run(kafka.start())
    yield started.bootstrap
    asyncio.run(kafka.stop())


@pytest.fixture
def settings(broker: str, tmp_path: Path) -> Settings:
    """Settings of an installation of its own: fresh topics by prefix, a fresh data directory, short sessions."""
    return Settings(
        kafka=Kafka(bootstrap_servers=broker, topic_prefix=f"t{uuid.uuid4().hex[:8]}.", partitions=2),
        coordinator=Coordinator(session_timeout_seconds=6.0),
        data_dir=tmp_path / "data",
    )


@pytest.fixture
async def installed(settings: Settings) -> Settings:
    """The same, with all topics created and all schemas registered."""
    await apply(settings, troupe())
    return settings
