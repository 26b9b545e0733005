"""A view follows the newest life of a key, in whatever order the records and tombstones of several owners come."""

from __future__ import annotations

from typing import Any

import pytest

from ops.memory.installation import memory_codecs
from schemas.agents import AgentDefinition, AgentRecord
from schemas.settings import Settings
from schemas.topics import AGENT_REGISTRY, COMPACT_LAG_MICROS, Topic
from streams.processor import tombstone
from streams.runtime.compacted import Compacted

DEFINITION = AgentDefinition(agent_id="a", agent_type="t")
CODECS = memory_codecs(Settings())
DAY = 86_400_000_000
DAYS = COMPACT_LAG_MICROS // DAY


@pytest.fixture
def views() -> Compacted:
    return Compacted((AGENT_REGISTRY,), CODECS, "", 1)


def published(views: Compacted, version: int, at: int, key: str = "a") -> None:
    record = AgentRecord(
        event_id="e", occurred_at=at, source="coordinator", agent_id=key, definition=DEFINITION,
        registered_at=1, updated_at=at, version=version, cause="c",
    )  # fmt: skip
    put(views, CODECS.of(AGENT_REGISTRY.subject).encode(record), key=key)


def removed(views: Compacted, at: int, key: str = "a") -> None:
    put(views, None, tombstone(AGENT_REGISTRY, key, at).headers, key)


def put(views: Compacted, value: bytes | None, headers: Any = (), key: str = "a") -> None:
    views.apply(AGENT_REGISTRY, 0, 0, key.encode(), value, headers)


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


def test_what_was_removed_is_remembered_as_long_as_the_topic_remembers(views: Compacted) -> None:
    for number in range(3 * DAYS):
        at = number * DAY
        published(views, 2, at + 1, f"a-{number}")
        removed(views, at + 2, f"a-{number}")
    kept = [number for number in range(3 * DAYS) if _stays_away(views, number)]
    assert kept == list(range(2 * DAYS - 1, 3 * DAYS))


def _stays_away(views: Compacted, number: int) -> bool:
    """Whether the record of a life that ended brings nobody back."""
    published(views, 2, number * DAY + 1, f"a-{number}")
    return views.get(AGENT_REGISTRY, f"a-{number}") is None


def test_a_key_that_was_removed_again_is_remembered_anew(views: Compacted) -> None:
    for at in (0, DAYS * DAY):
        published(views, 1, at + 1)
        removed(views, at + 2)
    published(views, 1, (DAYS + 1) * DAY, "b")
    removed(views, (DAYS + 1) * DAY, "b")
    published(views, 2, 3)
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
