"""A view follows the newest life of a key, in whatever order the records and tombstones of several owners come."""

from __future__ import annotations

from typing import Any

import pytest

from ops.memory.installation import memory_codecs
from schemas.agents import AgentDefinition, AgentRecord
from schemas.settings import Settings
from schemas.topics import AGENT_REGISTRY, Topic
from streams.processor import tombstone
from streams.runtime.compacted import Compacted

DEFINITION = AgentDefinition(agent_id="a", agent_type="t")


@pytest.fixture
def views() -> Compacted:
    return Compacted((AGENT_REGISTRY,), memory_codecs(Settings()), "", 1)


def published(views: Compacted, version: int, at: int) -> None:
    record = AgentRecord(
        event_id="e", occurred_at=at, source="coordinator", agent_id="a", definition=DEFINITION,
        registered_at=1, updated_at=at, version=version, cause="c",
    )  # fmt: skip
    put(views, memory_codecs(Settings()).of(AGENT_REGISTRY.subject).encode(record))


def removed(views: Compacted, at: int) -> None:
    put(views, None, tombstone(AGENT_REGISTRY, "a", at).headers)


def put(views: Compacted, value: bytes | None, headers: Any = ()) -> None:
    views.apply(AGENT_REGISTRY, 0, 0, b"a", value, headers)


def seen(views: Compacted) -> int | None:
    found = views.get(AGENT_REGISTRY, "a")
    return None if found is None else int(found.version)


def test_the_higher_version_stays(views: Compacted) -> None:
    published(views, 2, 20)
    published(views, 1, 10)
    assert seen(views) == 2


def test_a_record_that_comes_after_its_tombstone_brings_nobody_back(views: Compacted) -> None:
    published(views, 1, 10)
    published(views, 2, 20)
    removed(views, 30)
    published(views, 2, 20)
    published(views, 1, 10)
    assert seen(views) is None


def test_a_new_life_begins_at_its_first_version(views: Compacted) -> None:
    published(views, 5, 20)
    removed(views, 30)
    published(views, 1, 40)
    assert seen(views) == 1
    published(views, 5, 20)
    assert seen(views) == 1, "an old life's late record, with a higher version"


def test_a_tombstone_that_comes_late_leaves_a_new_life_alone(views: Compacted) -> None:
    published(views, 5, 20)
    removed(views, 30)
    published(views, 1, 40)
    removed(views, 30)
    assert seen(views) == 1
    removed(views, 40)
    assert seen(views) is None


def test_a_tombstone_without_a_time_is_believed(views: Compacted) -> None:
    published(views, 5, 20)
    put(views, None, (("removed-at", b"soon"),))
    assert seen(views) is None


def test_the_listeners_hear_only_of_changes(views: Compacted) -> None:
    heard: list[tuple[Topic, str]] = []
    views.listeners.append(lambda topic, key: heard.append((topic, key)))
    removed(views, 5)
    published(views, 1, 10)
    removed(views, 5)
    assert heard == [(AGENT_REGISTRY, "a")]
    assert views.offsets() == '{"agents.registry":[1]}'
    assert views.items(AGENT_REGISTRY).keys() == {"a"}


def test_a_life_may_end_and_begin_within_an_instant(views: Compacted) -> None:
    published(views, 3, 20)
    removed(views, 20)
    published(views, 3, 20)
    assert seen(views) is None
    published(views, 1, 20)
    published(views, 2, 20)
    assert seen(views) == 2
