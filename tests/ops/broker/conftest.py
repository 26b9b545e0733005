"""Brokers for tests: real ones, each in a directory of its own, and none left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.broker.local import BrokerOptions, LocalKafka

MakeKafka = Callable[..., LocalKafka]


@pytest.fixture
def make_kafka(tmp_path: Path) -> Iterator[MakeKafka]:
    """Builds a LocalKafka for `<tmp>/<name>`; whatever runs at the end of the test is stopped."""
    made: list[LocalKafka] = []

    def make(name: str = "kafka", **options: object) -> LocalKafka:
        kafka = LocalKafka(BrokerOptions(tmp_path / name, **options))  # type: ignore[arg-type]
        made.append(kafka)
        return kafka

    yield make

    async def stop_all() -> None:
        for kafka in made:
            await kafka.stop()

    asyncio.run(stop_all())
