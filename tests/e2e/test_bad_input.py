"""Bad input, one kind after the other on one system: each has its named error, and the next good task still runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from tests.e2e.conftest import Visitor, running

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

AGENT = """
from actors import Actor, Context

def broken(payload: dict, ctx: Context) -> dict:
    raise RuntimeError("the lights went out")

def wrong(payload: dict, ctx: Context) -> dict:
    return 7

def agents():
    return [Actor("broken", broken, capabilities=["breaking"]), Actor("wrong", wrong, capabilities=["erring"])]
"""
GOOD = json.dumps({"points": [{"value": 1}]})


def good(system: Visitor) -> None:
    told = system.json("submit", "detect_anomalies", "--payload", GOOD, "--wait")
    assert told["status"] == "completed"


def error_of(told: dict[str, Any]) -> tuple[str, str]:
    return told["error"]["code"], told["error"]["message"]


async def put(system: Visitor, topic: str, value: bytes, key: bytes | None = None) -> None:
    address = next(each["addresses"][0] for each in system.json("ps") if each["role"] == "broker")
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, key=key)
    finally:
        await producer.stop()


def until(look: Callable[[], Any]) -> Any:
    """What `look` finds, as soon as it finds something; each look takes a while by itself."""
    for _ in range(40):
        if found := look():
            return found
    raise AssertionError("nothing was found")


def last(system: Visitor, topic: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(system.troupe("topics", "tail", topic, "--json", "--limit", "1"))
    return found


def test_a_pattern_that_nobody_offers(system: Visitor) -> None:
    told = system.json("submit", "xyz", "--wait", code=1)
    assert (told["status"], *error_of(told)) == ("failed", "unknown_pattern", "Unknown pattern 'xyz'")
    for verb in (("submit", "xyz", "--wait"), ("status", told["task_id"])):
        assert "\nHint: `troupe agents` shows who offers what" in system.troupe(*verb, code=1)
    good(system)


def test_a_capability_that_nobody_offers(system: Visitor) -> None:
    told = system.json("submit", "--capability", "juggling", "--wait", code=1)
    assert error_of(told) == ("no_capable_agent", "No agent offers the capabilities juggling")


def test_an_agent_that_is_not_there(system: Visitor) -> None:
    told = system.json("submit", "--agent", "nobody", "--wait", code=1)
    assert error_of(told) == ("agent_not_found", "Agent 'nobody' not found")


def test_the_same_id_with_another_body(system: Visitor) -> None:
    first = system.json("submit", "detect_anomalies", "--payload", GOOD, "--task-id", "twice", "--wait")
    other = json.dumps({"points": [{"value": 2}]})
    told = system.json("submit", "detect_anomalies", "--payload", other, "--task-id", "twice", "--wait", code=1)
    assert (told["status"], *error_of(told)) == (
        "refused", "task_conflict", "Task 'twice' already exists with another body",
    )  # fmt: skip
    again = system.json("submit", "detect_anomalies", "--payload", GOOD, "--task-id", "twice", "--wait")
    assert (again["status"], again["result"]) == ("completed", first["result"])
    assert system.json("status", "twice")["result"] == first["result"]
    good(system)


def test_a_payload_over_the_limit_is_refused_before_it_is_sent(system: Visitor) -> None:
    (system.root / "large.json").write_text(json.dumps({"text": "x" * 1_100_000}))
    told = system.troupe("submit", "detect_anomalies", "--payload", "@large.json", code=1)
    assert "Payload of " in told and "exceeds 1000000 bytes" in told
    good(system)


@pytest.mark.parametrize("value", [b"\xff\xfe not a record", b"\0\0\0\xff\xffbody", b'{"task_id": '])
async def test_bytes_that_are_no_request_end_as_a_dead_letter(system: Visitor, value: bytes) -> None:
    def letters() -> list[str]:
        return system.troupe("topics", "tail", "tasks.deadletters", "--json", "--limit", "1000").splitlines()

    before = len(letters())
    await put(system, "tasks.requests", value, key=b"bad")
    good(system)
    until(lambda: len(letters()) > before)
    headers = json.loads(letters()[-1])["headers"]
    assert headers["__connect.errors.topic"] == "tasks.requests"
    good(system)


def test_a_handler_that_raises_or_answers_wrongly(system: Visitor) -> None:
    (system.root / "bad_agents.py").write_text(AGENT)
    with running(system, "bad_agents.py"):
        told = system.json("submit", "breaking", "--retries", "0", "--wait", code=1)
        assert (told["status"], told["error"]["code"]) == ("dead_lettered", "agent_error")
        assert "the lights went out" in told["error"]["message"]
        assert last(system, "tasks.deadletters")["value"]["task_id"] == told["task_id"]
        told = system.json("submit", "erring", "--retries", "0", "--wait", code=1)
        assert (told["status"], told["attempts"]) == ("failed", 1)
        assert "the handler returned int" in told["error"]["message"]
    good(system)
