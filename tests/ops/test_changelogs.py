"""A changelog partition as its next owner would read it, with what others wrote in between."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from ops.changelogs import ChangelogState, ahead_of_inputs, read_changelog
from ops.codecs import load_codecs
from schemas.changelog import HEADER_KEY, ChangelogHeader, InputOffset
from schemas.codec import Codecs
from schemas.settings import Settings
from topology import troupe

pytestmark = pytest.mark.kafka


class Changelog:
    """Partition 0 of the changelog of tasks, written by hand."""

    def __init__(self, settings: Settings, codecs: Codecs, producer: AIOKafkaProducer) -> None:
        self._settings, self._codec, self._producer = settings, codecs.of("changelog.header-value"), producer
        self.place = TopicPartition(settings.kafka.topic_prefix + troupe().processors[0].changelog.name, 0)

    async def batch(self, base: int, *keys: bytes, asked: int = 0) -> None:
        """Rows and a header row whose writer expected them at `base`."""
        inputs = [InputOffset(topic="tasks.requests", offset=asked)]
        header = ChangelogHeader(base=base, count=len(keys), instance="coordinator-9", seq=1, inputs=inputs)
        await self.rows(*keys)
        await self.send(HEADER_KEY, self._codec.encode(header))

    async def rows(self, *keys: bytes) -> None:
        for key in keys:
            await self.send(key, b"row")

    async def send(self, key: bytes, value: bytes | None) -> None:
        await self._producer.send_and_wait(self.place.topic, value, key=key, partition=0)

    async def read(self) -> ChangelogState:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka.bootstrap_servers, enable_auto_commit=False
        )
        await consumer.start()
        try:
            return await read_changelog(consumer, self.place, self._codec.decode, 20.0)
        finally:
            await consumer.stop()


@pytest.fixture
async def changelog(installed: Settings) -> AsyncIterator[Changelog]:
    producer = AIOKafkaProducer(bootstrap_servers=installed.kafka.bootstrap_servers)
    await producer.start()
    try:
        yield Changelog(installed, await load_codecs(installed, troupe()), producer)
    finally:
        await producer.stop()


async def test_an_empty_changelog_has_no_header(changelog: Changelog) -> None:
    state = await changelog.read()
    assert (state.batches, state.header, state.stray_count, state.claimed) == (0, None, 0, True)


async def test_whole_batches_strays_and_what_a_claim_restores(changelog: Changelog) -> None:
    await changelog.batch(0, b"a", b"b", asked=7)  # 0, 1, header 2
    await changelog.batch(0, b"a", asked=9)  # 3, header 4: late
    await changelog.rows(b"c")  # 5: nobody's
    state = await changelog.read()
    assert (state.batches, state.records, state.end) == (1, 2, 6)
    assert [(each.first, each.last, each.expected, each.instance) for each in state.strays] == [
        (3, 4, 0, "coordinator-9"), (5, 5, None, ""),
    ]  # fmt: skip
    assert state.overwritten == {b"a", b"c", HEADER_KEY} and not state.closed and not state.claimed
    assert state.header is not None and state.header_at == 2 and state.header.inputs[0].offset == 7
    await changelog.batch(6, b"a", b"c", asked=7)
    state = await changelog.read()
    assert state.claimed and state.header_at == 8 and state.stray_count == 2 and state.overwritten == set()


async def test_a_header_ahead_of_its_input_is_named(changelog: Changelog) -> None:
    await changelog.batch(0, b"a", asked=7)
    state = await changelog.read()
    assert ahead_of_inputs(state, {"tasks.requests": 8}) == []
    assert ahead_of_inputs(state, {"tasks.requests": 7}) == [("tasks.requests", 7, 7)]
