"""The wiring as text, so that every rewiring shows in review; and each fault that `validate` is there to refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.errors import SchemaError
from schemas.settings import Kafka, Retention, Settings
from schemas.tasks import TaskEvent
from schemas.topics import AGENT_REGISTRY, INBOX, TASK_EVENTS, TASK_REPORTS, TASK_REQUESTS, TASK_RESULTS
from topology import Topology, config_of, partitions_of, troupe

ROOT = Path(__file__).resolve().parents[1]
WIRING = Path(__file__).parent / "data" / "topology.txt"
REFRESH = "troupe topology describe > tests/data/topology.txt"


def test_the_wiring_is_the_reviewed_one() -> None:
    assert troupe().describe() == WIRING.read_text(), f"if the change is meant: {REFRESH}"


def test_the_picture_in_the_readme_is_this_wiring() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{troupe().mermaid()}```" in text, "paste: troupe topology describe --mermaid"


def test_the_wiring_is_sound() -> None:
    troupe().validate()


def _topics(wiring: Topology) -> Topology:
    return replace(wiring, topics=(*wiring.topics, TASK_EVENTS))


def _processors(wiring: Topology) -> Topology:
    return replace(wiring, processors=(*wiring.processors, wiring.processors[0]))


def _subject(wiring: Topology) -> Topology:
    other = replace(TASK_REQUESTS, name="tasks.other", record=TaskEvent, subject_name="tasks.requests")
    return replace(wiring, topics=(*wiring.topics, other))


def _key(wiring: Topology) -> Topology:
    return replace(wiring, topics=(*wiring.topics, replace(TASK_EVENTS, name="tasks.other", key="nobody")))


def _of_tasks(**changes: object) -> Callable[[Topology], Topology]:
    def changed(wiring: Topology) -> Topology:
        tasks, *others = wiring.processors
        return replace(wiring, processors=(replace(tasks, **changes), *others))

    return changed


def _unlisted(wiring: Topology) -> Topology:
    return replace(wiring, topics=tuple(topic for topic in wiring.topics if topic is not AGENT_REGISTRY))


FAULTS: dict[str, tuple[Callable[[Topology], Topology], str]] = {
    "topic twice": (_topics, r"topic 'tasks\.events' is listed twice"),
    "processor twice": (_processors, r"'tasks\.wakes' is listed twice|processor 'tasks' is listed twice"),
    "one subject, two records": (_subject, r"subject 'tasks\.requests-value' is used for two records"),
    "key that is no field": (_key, r"topic 'tasks\.other': its key 'nobody' is no field of TaskEvent"),
    "input that is none": (_of_tasks(inputs=(TASK_EVENTS,)), r"'tasks' reads 'tasks\.events', which is not laid out"),
    "input with its own count": (
        _of_tasks(inputs=(replace(TASK_REPORTS, partitions=3),)), r"reads 'tasks\.reports', which is not laid out",
    ),
    "inputs keyed differently": (
        _of_tasks(inputs=(TASK_REQUESTS, replace(TASK_REPORTS, key="agent_id"))), "its inputs are keyed differently",
    ),
    "topic that is not listed": (_unlisted, r"uses 'agents\.registry', which the topology does not list"),
    "view that is not compacted": (_of_tasks(views=(TASK_RESULTS,)), r"'tasks\.results', which is not compacted"),
    "row without a version": (_of_tasks(row=INBOX.record), r"row InboxRecord of 'tasks' has no 'version'"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), FAULTS.values(), ids=FAULTS)
def test_wiring_that_cannot_work_is_refused(change: Callable[[Topology], Topology], words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        change(troupe()).validate()


def test_partition_counts_are_the_installations_unless_fixed() -> None:
    settings = Settings(kafka=Kafka(partitions=5))
    assert partitions_of(TASK_EVENTS, settings) == 5
    assert partitions_of(INBOX, settings) == 1


def test_inputs_and_changelogs_are_stamped_by_the_broker_and_nothing_else_is() -> None:
    stamped = {
        topic.name
        for topic in troupe().all_topics()
        if config_of(topic, Settings()).get("message.timestamp.type") == "LogAppendTime"
    }
    assert stamped == {topic.name for spec in troupe().processors for topic in (*spec.reads, spec.changelog)}


def test_retention_follows_the_class() -> None:
    settings = Settings(retention_days=Retention(e=2))
    assert config_of(TASK_EVENTS, settings)["retention.ms"] == str(2 * 86_400_000)
    assert config_of(AGENT_REGISTRY, settings) == {"cleanup.policy": "compact", "min.compaction.lag.ms": "604800000"}
