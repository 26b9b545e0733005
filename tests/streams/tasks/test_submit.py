"""Taking a task in: what is accepted, what waits, what is refused and with which words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.agents import AgentState
from schemas.policies import RetryPolicy
from schemas.settings import Settings
from schemas.tasks import RoutingDecision, TaskCommand, TaskState
from streams.processor import Note
from streams.tasks.body import examine
from tests.streams.tasks.world import SECOND, World, text_of

INVALID = [
    ({"priority": 0}, "priority must be between 1 and 5"),
    ({"priority": 6}, "priority must be between 1 and 5"),
    ({"ttl_seconds": 0}, "ttl_seconds must be between 1 and 315360000"),
    ({"ttl_seconds": 2**60}, "ttl_seconds must be between 1 and 315360000"),
    ({"timeout_seconds": 0}, "timeout_seconds must be at least 1"),
    ({"reply_partition": -1}, "reply_partition must be at least 0"),
    ({"payload": "[1]"}, "payload: must be a JSON object"),
    ({"payload": "{"}, "payload: not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2"),
    ({"context": "3"}, "context: must be a JSON object"),
    ({"metadata": '{"a": NaN}'}, "metadata: not valid JSON: NaN is not JSON"),
    ({"pattern": "x" * 256}, "pattern: at most 255 characters"),
    ({"required_capabilities": ["x"] * 101}, "required_capabilities: at most 100"),
    (
        {"reply_to": "tasks.requests"},
        "reply_to: topic 'tasks.requests' is not among kafka.reply_topics (replies.*)",
    ),
]


def world(**settings: Any) -> World:
    """A world with one agent, `digger`, which has one slot and offers `dig`."""
    made = World(Settings.model_validate(settings))
    made.agent("digger", "dig", max_in_flight=1)
    return made


@pytest.mark.parametrize(("fields", "message"), INVALID)
def test_an_invalid_body_is_a_failed_outcome(fields: dict[str, Any], message: str) -> None:
    made = world()
    made.command(**({"pattern": "dig"} | fields))
    assert (made.told.kind, made.told.from_state, made.told.to_state) == ("failed", None, "failed")
    (result,) = made.of("tasks.results")
    assert (result.status, result.error.code) == ("failed", "invalid_request")
    assert result.error.message.startswith(message)
    assert made.row().request == b""
    assert made.of("inbox") == []
    assert made.of("<reply_to>") == []
    assert made.command(**({"pattern": "dig"} | fields)) is None, "the same again is a repeat"


@pytest.mark.parametrize(("fields", "message"), INVALID)
def test_an_invalid_body_is_refused(fields: dict[str, Any], message: str) -> None:
    made = world()
    decided = made.command(**({"pattern": "dig", "admission": "reject", "reply_to": "replies.me"} | fields))
    assert isinstance(decided, Note)
    assert (made.told.kind, made.told.from_state, made.told.error.code) == ("refused", None, "invalid_request")
    assert made.told.error.message.startswith(message[:100])
    assert made.rows == {}
    replies = made.of("<reply_to>")
    assert len(replies) == (0 if "reply_to" in fields else 1)
    assert all((reply.status, reply.causation_id) == ("refused", "tasks.requests.0.1") for reply in replies)


def test_a_request_over_the_limit() -> None:
    made = world(limits={"max_record_bytes": 1024})
    made.command(pattern="dig", payload=json.dumps({"a": "x" * 2000}))
    (result,) = made.of("tasks.results")
    assert result.error.code == "payload_too_large"
    assert result.error.message.endswith(" bytes exceeds 1024 bytes")


NO_ROUTE = [
    ({"pattern": "xyz"}, "unknown_pattern", "Unknown pattern 'xyz'"),
    ({"agent_id": "nobody"}, "agent_not_found", "Agent 'nobody' not found"),
    ({"pattern": "cache_data"}, "agent_not_found", "Agent 'caching_agent' not found"),
    ({}, "no_route", "Task 't' names no pattern, agent or capability"),
    ({"type": "fly"}, "no_route", "Task 't' names no pattern, agent or capability"),
]
NO_CAPABILITY = [
    ({"required_capabilities": ["fly", "dig"]}, "dig, fly"),
    ({"pattern": "dig", "required_capabilities": ["a"]}, "a, dig"),
    ({"agent_id": "digger", "required_capabilities": ["a"]}, "a"),
]


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [*NO_ROUTE, *(
            (task, "no_capable_agent", f"No agent offers the capabilities {words}") for task, words in NO_CAPABILITY
        )],
)
def test_no_route(fields: dict[str, Any], code: str, message: str) -> None:
    made = world()
    assert isinstance(made.command("r", admission="reject", **fields), Note)
    assert (made.told.error.code, made.told.error.message) == (code, message.replace("'t'", "'r'"))

    made.command(**fields)
    assert (made.told.kind, made.told.to_state) == ("accepted", "queued")
    decision = RoutingDecision.model_validate_json(made.told.decision)
    assert decision.reason == f"Waits: no route yet ({message})."
    assert text_of(decision) == made.told.decision
    made.pass_time(4.9)
    assert made.row().state is TaskState.QUEUED
    made.pass_time(0.1)
    assert made.row().state is TaskState.FAILED
    assert (made.told.kind, made.told.error.code, made.told.error.message) == ("failed", code, message)


def test_without_grace_no_route_fails_at_once() -> None:
    made = world(routing={"grace_seconds": 0})
    made.command(pattern="xyz")
    assert (made.told.kind, made.told.error.code) == ("failed", "unknown_pattern")


def test_an_agent_that_registers_within_the_grace_gets_the_task() -> None:
    made = world()
    made.command(pattern="xyz")
    made.command("u", pattern="abc")
    assert made.settle_ready() == []
    made.agent("late", "xyz")
    assert made.settle_ready() == ["t"]
    assert (made.row().event, made.row().from_state, made.row().agent_id) == ("assigned", "queued", "late")
    assert made.row("u").state is TaskState.QUEUED


def test_a_route_without_a_free_agent_ends_the_grace() -> None:
    made = world()
    made.command(pattern="xyz")
    made.agent("late", "xyz", state=AgentState.REGISTERED)
    assert made.settle_ready() == ["t"]
    assert (made.told.kind, made.told.from_state, made.told.to_state) == ("queued", "queued", "queued")
    made.pass_time(60)
    assert made.row().state is TaskState.QUEUED
    made.agent("late", "xyz")
    assert made.settle_ready() == ["t"]
    assert made.row().agent_id == "late"


@pytest.mark.parametrize(
    ("state", "breaker", "admission", "expected"),
    [
        (AgentState.UP, "closed", "reject", "assigned"),
        (AgentState.OFFLINE, "closed", "reject", "agent_unavailable"),
        (AgentState.STOPPED, "closed", "reject", "agent_unavailable"),
        (AgentState.REGISTERED, "closed", "reject", "agent_unavailable"),
        (AgentState.UP, "open", "reject", "agent_unavailable"),
        (AgentState.UP, "open", "wait", "queued"),
        (AgentState.OFFLINE, "closed", "wait", "queued"),
    ],
)
def test_unavailable_agents(state: AgentState, breaker: str, admission: str, expected: str) -> None:
    made = world()
    made.agent("digger", "dig", state=state, breaker=breaker)
    made.command(pattern="dig", admission=admission)
    if expected == "agent_unavailable":
        assert made.told.error.message == "Agent 'dig' is currently unavailable"
        assert made.told.error.code == expected
        assert made.rows == {}
    else:
        assert made.told.to_state == expected


def test_busy_agents_let_a_rejecting_submit_wait() -> None:
    made = world()
    made.command("one", pattern="dig")
    made.command(pattern="dig", admission="reject")
    assert (made.told.kind, made.told.to_state) == ("accepted", "queued")


@pytest.mark.parametrize(("admission", "kind"), [("reject", "refused"), ("wait", "failed")])
def test_a_full_queue(admission: str, kind: str) -> None:
    made = world(priority_queue={"max_queue_size": 2, "max_backlog": 2})
    for name in ("one", "two", "three"):
        made.command(name, pattern="dig")
    made.command(pattern="dig", admission=admission)
    assert (made.told.kind, made.told.error.code, made.told.error.message) == (kind, "queue_full", "Queue is full")


def test_same_body_whatever_the_spelling() -> None:
    made = world()
    made.command(pattern="dig", payload='{"a": 1, "b": [1.5, null]}', required_capabilities=[])
    assert made.command(pattern="dig", payload='{"b":[1.50,null],"a":1}', correlation_id="x", actor="me") is None
    assert isinstance(made.command(pattern="dig", payload='{"a": 2, "b": [1.5, null]}'), Note)
    assert (made.told.error.code, made.told.error.message) == (
        "task_conflict",
        "Task 't' already exists with another body",
    )
    for fields in ({"priority": 3}, {"retry": RetryPolicy(max_retries=1)}, {"hold": True}, {"type": "x"}):
        assert isinstance(made.command(pattern="dig", payload='{"a": 1, "b": [1.5, null]}', **fields), Note)


def test_priority_and_timeout_of_rule_task_and_agent() -> None:
    made = World()
    made.agent("caching_agent", timeout_seconds=7)
    made.agent("digger", "dig")
    made.command("rule", pattern="cache_data")
    made.command("type", type="cache_data")
    made.command("own", pattern="cache_data", priority=5, timeout_seconds=9)
    made.command("capability", pattern="dig")
    assert [made.row(name).priority for name in ("rule", "type", "own", "capability")] == [2, 2, 5, 3]
    seconds = {name: (row.due_at - row.assigned_at) // SECOND for name, row in made.rows.items()}
    assert seconds == {"rule": 7, "type": 7, "own": 9, "capability": 300}


def test_not_before_and_hold() -> None:
    made = world()
    made.command(pattern="dig", not_before=made.now + 10 * SECOND)
    assert (made.told.kind, made.told.to_state) == ("accepted", "pending")
    made.pass_time(10)
    assert (made.told.kind, made.told.from_state) == ("assigned", "pending")
    made.command("held", pattern="dig", hold=True, not_before=made.now + SECOND)
    made.pass_time(60)
    assert made.row("held").state is TaskState.PENDING, "not_before does not start what is held"
    made.command("past", pattern="dig", not_before=made.now)
    assert made.row("past").state is TaskState.QUEUED


@pytest.mark.parametrize(("admission", "state"), [("reject", "pending"), ("wait", "queued")])
def test_execute_without_a_route(admission: str, state: str) -> None:
    made = world()
    made.command(pattern="xyz", hold=True, admission=admission)
    made.command(kind="execute", reply_to="replies.me")
    assert made.row().state == state
    assert bool(made.of("<reply_to>")) == (admission == "reject")


def test_due_without_a_route_is_an_outcome_under_reject() -> None:
    made = world()
    made.command(pattern="xyz", not_before=made.now + SECOND, admission="reject")
    made.pass_time(1)
    assert (made.row().state, made.told.error.code) == (TaskState.FAILED, "unknown_pattern")


def test_an_execute_of_a_full_queue_fails_a_waiting_task() -> None:
    made = world(priority_queue={"max_backlog": 1})
    made.command("held", pattern="dig", hold=True)
    for name in ("one", "two"):
        made.command(name, pattern="dig")
    made.command("held", kind="execute")
    assert (made.row("held").state, made.told.error.code) == (TaskState.FAILED, "queue_full")


def test_reply_topics_with_a_prefix() -> None:
    made = world(kafka={"topic_prefix": "prod.", "reply_topics": ["replies.*", "mine"]})
    for name, topic in (("a", "prod.replies.clients"), ("b", "replies.clients"), ("c", "mine")):
        made.command(name, pattern="dig", reply_to=topic, reply_key="me")
        made.command(name, kind="cancel")
        (reply,) = [output for output in made.last if output.topic.name == "<reply_to>"]
        assert (reply.name, reply.key, reply.partition) == (topic, "me", None)
        assert reply.fallback is not None
        spare = reply.fallback.record
        assert (spare.kind, spare.note, spare.to_state) == ("reply_failed", topic, "cancelled")  # type: ignore[union-attr]


def test_the_first_event_carries_the_task_without_its_payload() -> None:
    made = world()
    made.command(pattern="dig", payload='{"secret": 1}', metadata='{"source": "web"}', description="dig it")
    task = json.loads(made.told.task)
    assert task["description"] == "dig it"
    assert task["metadata"] == '{"source": "web"}'
    assert "payload" not in task
    assert "hold" not in task
    assert made.told.payload_hash == made.row().payload_hash
    made.report("completed")
    assert made.told.task is None


def test_headers_and_ids_travel() -> None:
    made = world()
    made.command(pattern="dig", correlation_id="order-7")
    assert {output.record.correlation_id for output in made.last} == {"order-7"}  # type: ignore[union-attr]
    assert {output.headers for output in made.last} == {(("traceparent", b"00-aa-bb-01"),)}
    assert made.told.event_id == "tasks.requests.0.1.0"
    assert made.told.causation_id == made.told.cause == "tasks.requests.0.1"
    made.report("completed")
    assert {output.record.correlation_id for output in made.last} == {"order-7"}  # type: ignore[union-attr]
    assert {output.headers for output in made.last} == {(("traceparent", b"00-aa-bb-01"),)}


def test_a_command_of_a_later_version() -> None:
    made = world()
    made.command(kind="unknown")
    assert (made.told.kind, made.told.error.code) == ("refused", "unsupported")


def test_a_number_beyond_every_field_is_refused_and_still_told() -> None:
    """Only a JSON request can carry one."""
    command = TaskCommand(event_id="e", occurred_at=1, source="json", task_id="t", ttl_seconds=2**70)
    body = examine(command, b"{}", (), 1000)
    assert body.fault is not None and "ttl_seconds must be between" in body.fault.message
    assert json.loads(body.told)["ttl_seconds"] == 2**70
