"""Any producer, any consumer: requests and results through `confluent_kafka` alone, wherever its partitioners put them."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from typing import Any

import pytest

from schemas.partitioning import home
from tests.e2e.conftest import Visitor
from tests.e2e.foreign.clients import Foreign, foreign

__all__ = ["foreign"]

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

POINTS = {"points": [{"value": 1}]}
TASKS = 24  # enough that a partitioner which is not ours puts some of them elsewhere


def new_ids(count: int = TASKS) -> list[str]:
    run = uuid.uuid4().hex[:8]
    return [f"foreign-{run}-{number}" for number in range(count)]


def placed(way: str, number: int, task_id: str) -> dict[str, Any]:
    """Key and partition of a record as one kind of client chooses them."""
    return {
        "crc32": {"key": task_id},
        "murmur2": {"key": task_id},
        "no key": {},
        "round robin": {"key": task_id, "partition": number % 2},
        "a key of their own": {"key": "always the same"},
        "a transaction": {"key": task_id},
    }[way]


CONFIG: dict[str, dict[str, Any]] = {
    "crc32": {},
    "murmur2": {"partitioner": "murmur2_random"},
    "no key": {"sticky.partitioning.linger.ms": 0},
    "round robin": {},
    "a key of their own": {},
    "a transaction": {"transactional.id": "somebody"},
}


@pytest.mark.parametrize("way", CONFIG)
def test_requests_complete_once_each_wherever_they_were_put(foreign: Foreign, way: str) -> None:
    ids = new_ids()
    values = [foreign.request(each, pattern="detect_anomalies", payload=json.dumps(POINTS)) for each in ids]
    sent = [{"value": value, **placed(way, n, ids[n])} for n, value in enumerate(values)]
    delivered = foreign.produce("tasks.requests", sent, **CONFIG[way])
    by_value = dict(zip(values, ids, strict=True))
    strays = [each for each in delivered if each.partition() != home(by_value[each.value()], 2)]
    assert (strays == []) == (way == "murmur2")  # or this would prove nothing

    def outcomes() -> list[dict[str, Any]]:
        return foreign.records("tasks.results", lambda each: each["task_id"] in by_value.values())

    foreign.until(lambda: len(outcomes()) >= len(ids))
    foreign.result(_sent_last(foreign))
    assert Counter(each["task_id"] for each in outcomes()) == dict.fromkeys(ids, 1)
    assert {(each["status"], each["attempts"]) for each in outcomes()} == {("completed", 1)}
    events = foreign.records("tasks.events", lambda each: each["task_id"] in by_value.values())
    told = Counter((each["task_id"], each["kind"]) for each in events)
    assert told == {(each, kind): 1 for each in ids for kind in ("assigned", "completed")}


def _sent_last(foreign: Foreign) -> str:
    """A task behind all others, in each partition: what could still come of those came before its result."""
    last = {home(each, 2): each for each in new_ids(20)}
    for number, task_id in last.items():
        value = foreign.request(task_id, pattern="detect_anomalies", payload=json.dumps(POINTS))
        foreign.produce("tasks.requests", [{"value": value, "key": task_id, "partition": number}])
        foreign.result(task_id)
    return last[0]


def test_one_request_sent_in_every_way_is_one_task(foreign: Foreign) -> None:
    (task_id,) = new_ids(1)
    for way, config in CONFIG.items():
        for number in range(2):
            value = foreign.request(task_id, pattern="detect_anomalies", payload=json.dumps(POINTS))
            foreign.produce("tasks.requests", [{"value": value, **placed(way, number, task_id)}], **config)
    foreign.submit_json({"task_id": task_id, "pattern": "detect_anomalies", "payload": POINTS})
    foreign.result(task_id)
    foreign.result(_sent_last(foreign))
    assert len(foreign.records("tasks.results", lambda each: each["task_id"] == task_id)) == 1
    events = foreign.records("tasks.events", lambda each: each["task_id"] == task_id)
    assert [each["kind"] for each in events] == ["assigned", "completed"]


def test_a_result_an_event_and_a_dead_letter_are_read_with_the_stock_deserializer(foreign: Foreign) -> None:
    (task_id,) = new_ids(1)
    value = foreign.request(task_id, pattern="detect_anomalies", payload=json.dumps(POINTS))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    foreign.produce("tasks.requests", [{"value": value, "key": task_id, "headers": {"traceparent": trace}}])
    result = foreign.result(task_id)
    assert json.loads(result["result"])["count"] == 0
    assert result["created_at"].year >= 2026  # a logical type, so a client's own datetime
    (message,) = [each for each in foreign.messages("tasks.results") if each.key() == task_id.encode()]
    headers = {name: text.decode() for name, text in message.headers() or ()}
    for topic in ("tasks.results", "tasks.events", "tasks.reports", "agents.anomaly_detection_agent.inbox"):
        ours = [each for each in foreign.messages(topic) if each.key() == task_id.encode()]
        assert ours and all(dict(each.headers() or ())["traceparent"] == trace.encode() for each in ours), topic
    assert (headers["ce_type"], headers["ce_subject"]) == ("troupe.v1.TaskResult", task_id)
    assigned = foreign.records("tasks.events", lambda each: each["task_id"] == task_id)[0]
    assert json.loads(assigned["decision"])["chosen"] == "anomaly_detection_agent"
    position = foreign.submit_json("{")
    (letter,) = foreign.until(lambda: letters(foreign, position))
    assert letter["original_value"] == b"{"
    assert letter["kind"] == "poison"


def letters(foreign: Foreign, position: str) -> list[dict[str, Any]]:
    return foreign.records("tasks.deadletters", lambda each: each["causation_id"] == position)


def test_a_serializer_that_registers_on_first_use_finds_the_schema_there(foreign: Foreign) -> None:
    latest = foreign.registry.get_latest_version("tasks.requests-value")
    assert foreign.registry.register_schema("tasks.requests-value", latest.schema) == latest.schema_id
    assert foreign.registry.lookup_schema("tasks.requests-value", latest.schema).version == latest.version


def test_the_subjects_are_listed_as_the_registry_tells_them(system: Visitor, foreign: Foreign) -> None:
    listed = system.json("schemas", "list")
    assert sorted({each["subject"] for each in listed}) == foreign.registry.get_subjects()
    latest = foreign.registry.get_latest_version("tasks.results-value")
    assert {"subject": "tasks.results-value", "version": latest.version, "id": latest.schema_id} in listed


@pytest.mark.parametrize(
    "fields",
    [
        {"pattern": "detect_anomalies", "payload": POINTS},
        {"pattern": "detect_anomalies", "payload": json.dumps(POINTS)},
        {"pattern": "detect_anomalies", "task_data": POINTS, "task_type": "check", "timeout": 30},
        {"required_capabilities": ["anomaly_detection"], "input_data": POINTS, "priority": 5, "admission": "wait"},
        {"agent_id": "anomaly_detection_agent", "payload": POINTS, "retry": {"MaxRetries": 1}, "colour": "red"},
        {"kind": "submit", "pattern": "detect_anomalies", "payload": POINTS, "not_before": "2026-01-01T00:00:00Z"},
    ],
    ids=lambda fields: "-".join(fields),
)
@pytest.mark.parametrize("key", [None, "whatever"])
def test_json_with_the_fields_of_a_request_is_one(foreign: Foreign, fields: dict[str, Any], key: str | None) -> None:
    (task_id,) = new_ids(1)
    foreign.submit_json({"task_id": task_id, **fields}, key=key)
    assert foreign.result(task_id)["status"] == "completed"


def test_json_without_an_id_gets_one_from_its_position(foreign: Foreign) -> None:
    position = foreign.submit_json({"pattern": "detect_anomalies", "payload": POINTS})
    task_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"troupe:{position}"))
    assert foreign.result(task_id)["status"] == "completed"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ('{"pattern": "detect_anomalies", "payload": [1]}', "payload: expected an object, not [1]"),
        ('{"pattern": "detect_anomalies", "priority": "high"}', 'priority: expected int, not "high"'),
        ('{"required_capabilities": "x"}', 'required_capabilities: expected an array, not "x"'),
        ('{"kind": "sumbit"}', "kind: expected one of submit, execute, assign, cancel"),
        ('{"retry": {"max": 1}}', "retry.max: no such field"),
        ('{"task_id": "a b"}', "task_id: 1 to 128 letters, digits, dots, underscores and hyphens"),
        ('{"not_before": "2026-11-21T19:00:00"}', "has no zone; end it with Z or an offset"),
        ('{"pattern": "a", "pattern": "b"}', "key 'pattern' is given twice"),
        ('{"payload": {"x": NaN}}', "NaN is not a finite number"),
        (' {"pattern": "detect_anomalies"}', "no schema frame"),
    ],
)
def test_a_wrong_request_is_kept_with_the_reason_in_words(foreign: Foreign, value: str, why: str) -> None:
    position = foreign.submit_json(value)
    (letter,) = foreign.until(lambda: letters(foreign, position))
    assert why in letter["error"]["message"]
    assert letter["original_value"] == value.encode()
    (message,) = [each for each in foreign.messages("tasks.deadletters") if each.key() == position.encode()]
    assert dict(message.headers() or ())["__connect.errors.exception.message"].decode() == letter["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"pattern": "detect_anomalies", "priority": 9}, "priority must be between 1 and 5"),
        ({"pattern": "detect_anomalies", "timeout_seconds": -1}, "timeout_seconds must be at least 1"),
        ({"pattern": "detect_anomalies", "reply_to": "elsewhere"}, "topic 'elsewhere' is not among"),
        ({}, "names no pattern, agent or capability"),
    ],
)
def test_a_value_out_of_range_fails_the_task_with_the_reason(
    foreign: Foreign, fields: dict[str, Any], why: str
) -> None:
    (task_id,) = new_ids(1)
    foreign.submit_json({"task_id": task_id, **fields})
    result = foreign.result(task_id)
    assert result["status"] == "failed"
    assert why in result["error"]["message"]


def test_a_refusal_is_an_event(foreign: Foreign) -> None:
    (task_id,) = new_ids(1)
    foreign.submit_json({"kind": "cancel", "task_id": task_id})
    (event,) = foreign.until(lambda: foreign.records("tasks.events", lambda each: each["task_id"] == task_id))
    assert (event["kind"], event["error"]["message"]) == ("refused", f"Task '{task_id}' not found")
