"""The stages of the coordinator's contract: one for each runtime and module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.kafka_stage import KafkaStage
from tests.contract.memory_stage import MemoryStage
from tests.contract.processor_stage import Stage


@pytest.fixture(scope="module", params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An installation with a coordinator that is ready."""
    if request.param == "memory":
        yield MemoryStage()
        return
    made = KafkaStage(request.getfixturevalue("broker"), tmp_path_factory.mktemp("coordinator"))
    yield made
    made.close()
