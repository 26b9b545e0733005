"""The client on a real broker; the test plays the coordinator's part where an answer is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from ops.client import Client, NoOutcome, TaskFailed, home_of
from ops.codecs import load_codecs
from ops.commands import command_of
from ops.views.cancel import CancelOutcome
from ops.views.log import open_log
from schemas.base import Record
from schemas.errors import BrokerUnavailable, InvalidInput, OperatorError, PayloadTooLarge
from schemas.settings import Settings
from schemas.tasks import TaskError, TaskEvent, TaskEventKind, TaskResult, TaskState
from schemas.topics import TASK_EVENTS, TASK_RESULTS, Topic
from topology import troupe

Say = Callable[[Topic, Record], Awaitable[None]]


@pytest.fixture
async def say(installed: Settings) -> AsyncIterator[Say]:
    """Writes a record as the coordinator would."""
    codecs = await load_codecs(installed, troupe())
    producer = AIOKafkaProducer(bootstrap_servers=installed.kafka.bootstrap_servers)
    await producer.start()

    async def write(topic: Topic, record: Record) -> None:
        name = installed.kafka.topic_prefix + topic.name
        key = str(getattr(record, topic.key)).encode()
        await producer.send_and_wait(name, codecs.of(topic.subject).encode(record), key=key)

    yield write
    await producer.stop()


def event(task_id: str, version: int, kind: str, state: str, **fields: Any) -> TaskEvent:
    values: dict[str, Any] = {
        "event_id": f"{task_id}.{version}.{kind}", "occurred_at": 1, "source": "coordinator", "task_id": task_id,
        "version": version, "cause": "c", "decided_at": version, "kind": TaskEventKind(kind),
        "to_state": TaskState(state), "agent_id": "a", "attempt": 1,
    }  # fmt: skip
    return TaskEvent(**(values | fields))


def outcome(task_id: str, version: int) -> TaskResult:
    return TaskResult(
        event_id=f"{task_id}.r", occurred_at=1, source="coordinator", task_id=task_id, version=version, cause="c",
        status=TaskState.COMPLETED, result='{"sum": 3}', created_at=1, completed_at=2,
    )  # fmt: skip


@pytest.mark.kafka
async def test_a_submit_lies_at_home_with_its_headers(installed: Settings) -> None:
    async with Client(installed) as client:
        ids = [await client.submit(pattern="sum", payload={"n": number}) for number in range(8)]
    name = installed.kafka.topic_prefix + "tasks.requests"
    codecs = await load_codecs(installed, troupe())
    found = {}
    async with open_log(installed) as log:
        partitions = await log.partitions(name)
        async for record in log.read(await log.beginnings(partitions), await log.ends(partitions)):
            command = codecs.of("tasks.requests-value").decode(record.value)
            assert record.key.decode() == command.task_id
            assert record.partition == home_of(command.task_id, partitions).partition
            assert dict(record.headers)["ce_id"].decode() == command.event_id
            assert dict(record.headers)["ce_type"] == b"troupe.v1.TaskCommand"
            found[command.task_id] = command.payload
    assert found == {task_id: f'{{"n":{number}}}' for number, task_id in enumerate(ids)}


@pytest.mark.kafka
async def test_waiting_ends_with_the_outcome(installed: Settings, say: Say) -> None:
    async with Client(installed) as client:
        task_id = await client.submit(watched=True, pattern="sum")
        waiting = asyncio.create_task(client.wait(task_id, 20))
        await say(TASK_EVENTS, event(task_id, 1, "assigned", "assigned"))
        await say(TASK_EVENTS, event(task_id, 2, "completed", "completed"))
        await say(TASK_EVENTS, event(task_id, 2, "completed", "completed"))
        await say(TASK_RESULTS, outcome(task_id, 2))
        found = await waiting
        again = await client.status(task_id)
    assert found is not None
    assert (found.status, found.result, found.agent) == (TaskState.COMPLETED, '{"sum": 3}', "a")
    assert again is not None
    assert [each.kind for each in again.history] == [TaskEventKind.ASSIGNED, TaskEventKind.COMPLETED]


async def coordinator_commits(settings: Settings, task_id: str) -> None:
    """Say, as the coordinator's group would, that the one request of this id was processed."""
    async with open_log(settings) as log:
        home = home_of(task_id, await log.partitions(settings.kafka.topic_prefix + "tasks.requests"))
    group = f"{settings.kafka.topic_prefix}coordinator"
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap_servers, group_id=group, enable_auto_commit=False
    )
    await consumer.start()
    consumer.assign([home])
    await consumer.commit({home: 1})
    await consumer.stop()


@pytest.mark.kafka
async def test_a_repeat_is_answered_by_what_was_before_once_it_was_processed(installed: Settings, say: Say) -> None:
    await say(TASK_EVENTS, event("mine", 1, "completed", "completed"))
    await say(TASK_RESULTS, outcome("mine", 1))
    async with Client(installed) as client:
        await client.submit(watched=True, pattern="sum", task_id="mine")
        assert await client.wait("mine", 1.0) is None, "what was before is no answer to a submit nobody has read"
        await coordinator_commits(installed, "mine")
        found = await client.wait("mine", 20)
    assert found is not None
    assert found.completed


@pytest.mark.kafka
async def test_a_conflict_is_not_covered_up_by_what_was_before(installed: Settings, say: Say) -> None:
    await say(TASK_EVENTS, event("mine", 1, "completed", "completed"))
    await say(TASK_RESULTS, outcome("mine", 1))
    async with Client(installed) as client:
        await client.submit(watched=True, pattern="other", task_id="mine")
        waiting = asyncio.create_task(client.wait("mine", 20))
        await asyncio.sleep(1.0)
        assert not waiting.done()
        async with open_log(installed) as log:
            home = home_of("mine", await log.partitions(installed.kafka.topic_prefix + "tasks.requests"))
        conflict = TaskError(code="task_conflict", message="Task 'mine' already exists with another body")
        cause = f"{home.topic}.{home.partition}.0"
        await say(TASK_EVENTS, event("mine", 1, "refused", "completed", cause=cause, error=conflict))
        found = await waiting
    assert found is not None
    assert (found.status, found.error) == (TaskState.REFUSED, conflict)


@pytest.mark.kafka
async def test_the_refusal_of_this_very_submit_is_its_answer(installed: Settings, say: Say) -> None:
    await say(TASK_EVENTS, event("mine", 1, "completed", "completed"))
    await say(TASK_RESULTS, outcome("mine", 1))
    async with Client(installed) as client:
        await client.submit(pattern="other", task_id="mine")
        async with open_log(installed) as log:
            home = home_of("mine", await log.partitions(installed.kafka.topic_prefix + "tasks.requests"))
        conflict = TaskError(code="task_conflict", message="Task 'mine' already exists with another body")
        position = f"{home.topic}.{home.partition}.0"
        await say(TASK_EVENTS, event("mine", 1, "refused", "completed", cause=position, error=conflict))
        found = await client.status("mine")
    assert found is not None
    assert found.status is TaskState.REFUSED
    assert found.error == conflict


@pytest.mark.kafka
async def test_foreign_bytes_on_the_topics_are_passed_over(installed: Settings, say: Say) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=installed.kafka.bootstrap_servers)
    await producer.start()
    await producer.send_and_wait(installed.kafka.topic_prefix + "tasks.events", b"nonsense", key=b"mine")
    await producer.send_and_wait(installed.kafka.topic_prefix + "tasks.events", b"\0\0\0\x27\x0fx", key=b"mine")
    await producer.stop()
    await say(TASK_EVENTS, event("mine", 1, "assigned", "assigned"))
    async with Client(installed) as client:
        found = await client.status("mine")
        assert await client.status("unknown") is None
        assert [each async for each in client.events("unknown", live=False)] == []
    assert found is not None
    assert found.status is TaskState.ASSIGNED


@pytest.mark.kafka
async def test_a_result_is_the_value_or_an_error_that_says_why(installed: Settings, say: Say) -> None:
    failed = TaskError(code="agent_error", message="it broke", agent_id="a", attempt=1)
    await say(TASK_EVENTS, event("good", 1, "completed", "completed"))
    await say(TASK_RESULTS, outcome("good", 1))
    await say(TASK_EVENTS, event("bad", 1, "failed", "failed", error=failed))
    await say(TASK_RESULTS, outcome("bad", 1).model_copy(update={"status": TaskState.FAILED, "result": None}))
    await say(TASK_EVENTS, event("slow", 1, "assigned", "assigned"))
    async with Client(installed) as client:
        assert await client.result("good", 20) == {"sum": 3}
        with pytest.raises(TaskFailed, match=r"^it broke$") as caught:
            await client.result("bad", 20)
        for task_id in ("slow", "unknown"):
            with pytest.raises(NoOutcome, match=f"^Task '{task_id}' has no outcome after 0.3 s$") as late:
                await client.result(task_id, 0.3)
            assert late.value.hint == f"troupe explain {task_id}"
    assert (caught.value.code, caught.value.status.task_id) == ("agent_error", "bad")


@pytest.mark.kafka
async def test_events_come_once_those_that_are_there_and_then_live(installed: Settings, say: Say) -> None:
    first = event("mine", 1, "assigned", "assigned")
    await say(TASK_EVENTS, first)
    await say(TASK_EVENTS, first)
    seen: list[TaskEventKind] = []
    begun = asyncio.Event()
    async with Client(installed) as client:
        assert [each.kind async for each in client.events("mine", live=False)] == [TaskEventKind.ASSIGNED]

        async def follow() -> None:
            async for each in client.events("mine", timeout_s=20):
                seen.append(each.kind)
                begun.set()

        following = asyncio.create_task(follow())
        await asyncio.wait_for(begun.wait(), 20)
        assert not following.done()
        await say(TASK_EVENTS, first)
        await say(TASK_EVENTS, event("other", 1, "completed", "completed"))
        await say(TASK_EVENTS, event("mine", 2, "started", "running"))
        await say(TASK_EVENTS, event("mine", 3, "completed", "completed"))
        await asyncio.wait_for(following, 20)
    assert seen == [TaskEventKind.ASSIGNED, TaskEventKind.STARTED, TaskEventKind.COMPLETED]


@pytest.mark.kafka
async def test_events_of_a_task_that_does_not_end_end_with_an_error(installed: Settings, say: Say) -> None:
    await say(TASK_EVENTS, event("mine", 1, "assigned", "assigned"))
    async with Client(installed) as client:
        with pytest.raises(NoOutcome):
            async for _ in client.events("mine", timeout_s=0.5):
                pass


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("kind", "code", "found"),
    [
        ("cancelled", None, CancelOutcome.CANCELLED),
        ("refused", "task_finished", CancelOutcome.ALREADY_FINISHED),
        ("refused", "task_not_found", CancelOutcome.NOT_FOUND),
        ("refused", "unauthorized", CancelOutcome.REFUSED),
        (None, None, CancelOutcome.ALREADY_CANCELLED),
    ],
)
async def test_a_cancel_is_answered_by_what_it_led_to(
    installed: Settings, say: Say, kind: str | None, code: str | None, found: CancelOutcome
) -> None:
    before = event("mine", 1, "cancelled", "cancelled")
    await say(TASK_EVENTS, before)  # what was before is no answer
    async with Client(installed) as client:
        asking = asyncio.create_task(client.cancel("mine", "enough", timeout_s=20))
        await asyncio.sleep(0.5)
        assert not asking.done()
        if kind is None:
            await coordinator_commits(installed, "mine")
        else:
            async with open_log(installed) as log:
                home = home_of("mine", await log.partitions(installed.kafka.topic_prefix + "tasks.requests"))
            cause = f"{home.topic}.{home.partition}.0"
            error = TaskError(code=code, message="no") if code else None
            await say(TASK_EVENTS, event("mine", 2, kind, "cancelled", cause=cause, error=error))
        answer = await asking
    assert answer.outcome is found
    assert answer.done is (found in (CancelOutcome.CANCELLED, CancelOutcome.ALREADY_CANCELLED))


@pytest.mark.kafka
async def test_the_command_behind_an_event_can_be_read(installed: Settings) -> None:
    async with Client(installed) as client:
        position = (await client.ask_cancel("mine", "enough")).position
        topic, partition, offset = position.rsplit(".", 2)
        found = await client.cause(event("mine", 2, "cancelled", "cancelled", cause=position))
        assert found is not None
        assert (found.task_id, found.reason) == ("mine", "enough")
        assert (
            await client.cause(event("mine", 2, "cancelled", "cancelled", cause=f"elsewhere.{partition}.{offset}"))
            is None
        )
        producer = AIOKafkaProducer(bootstrap_servers=installed.kafka.bootstrap_servers)
        await producer.start()
        sent = await producer.send_and_wait(topic, b'{"task_id": "mine"}', partition=int(partition))
        await producer.stop()
        assert (
            await client.cause(event("mine", 3, "cancelled", "cancelled", cause=f"{topic}.{partition}.{sent.offset}"))
            is None
        )


@pytest.mark.kafka
async def test_a_cancel_that_nobody_decides_says_so(installed: Settings) -> None:
    async with Client(installed) as client:
        answer = await client.cancel("mine", timeout_s=0.5)
        assert (answer.outcome, answer.done) == (CancelOutcome.UNDECIDED, False)
        with pytest.raises(InvalidInput, match="task_id"):
            await client.cancel("no id")


@pytest.mark.kafka
async def test_too_large_is_refused_before_anything_is_written(installed: Settings) -> None:
    limit = installed.limits.max_record_bytes
    name = installed.kafka.topic_prefix + "tasks.requests"
    async with Client(installed) as client:
        with pytest.raises(PayloadTooLarge, match=rf"^Payload of \d+ bytes exceeds {limit} bytes$"):
            await client.submit(pattern="sum", payload={"x": "y" * limit})
        with pytest.raises(PayloadTooLarge):  # the value fits, headers and value together do not
            await client.submit(pattern="sum", payload={"x": "y" * (limit - 200)})
    async with open_log(installed) as log:
        partitions = await log.partitions(name)
        assert set((await log.ends(partitions)).values()) == {0}


@pytest.mark.kafka
async def test_a_system_without_topics_is_named(settings: Settings, installed: Settings) -> None:
    other = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"topic_prefix": "absent."})})
    with pytest.raises(OperatorError, match=r"Topic 'absent\.tasks\.requests' does not exist") as caught:
        async with Client(other):
            pass
    assert "troupe topology apply" in caught.value.hint


async def test_no_broker() -> None:
    settings = Settings().model_copy(
        update={"kafka": Settings().kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})}
    )
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
        async with Client(settings):
            pass


def test_a_command_of_a_callers_fields() -> None:
    command = command_of("me", {"pattern": "sum", "payload": {"a": "ü"}, "priority": None, "metadata": {"k": 1}})
    assert (command.payload, command.metadata, command.source) == ('{"a":"ü"}', '{"k":1}', "me")
    assert command.task_id != command_of("me", {}).task_id
    assert command_of("me", {"task_id": "x"}).task_id == "x"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"task_id": "a b"}, "task_id"),
        ({"unknown": 1}, "unknown"),
        ({"payload": float("nan")}, "payload"),
        ({"payload": {"x": object()}}, "payload"),
        ({"priority": "high"}, "priority"),
    ],
)
def test_what_makes_no_command_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        command_of("me", fields)
    assert caught.value.code == "invalid_request"


def test_homes_are_those_of_kafkas_own_clients() -> None:
    partitions = [TopicPartition("t", number) for number in range(8)]
    # From the Java client: Utils.toPositive(Utils.murmur2(key)) % 8.
    known = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
    for key, hashed in known.items():
        assert home_of(key, partitions).partition == (hashed & 0x7FFFFFFF) % 8
