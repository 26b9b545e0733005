"""What a coordinator refuses to start on, each with its cause and the next command."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas.errors import BrokerUnavailable, OperatorError
from schemas.settings import Coordinator, Kafka, Settings
from schemas.topics import TASK_RESULTS
from streams.runtime.checks import refuse_unsound_topics
from tests.faults.by_hand import make_anew, set_config
from topology import troupe

pytestmark = pytest.mark.kafka
SPECS = troupe().processors
(TASKS,) = (spec for spec in SPECS if spec.name == "tasks")


async def refused(settings: Settings) -> tuple[str, str]:
    """Message and hint, without the prefix of the test's topics."""
    with pytest.raises(OperatorError) as caught:
        await refuse_unsound_topics(settings, SPECS)
    prefix = settings.kafka.topic_prefix
    return str(caught.value).replace(prefix, ""), caught.value.hint.replace(prefix, "")


async def test_sound_topics_pass(installed: Settings) -> None:
    await refuse_unsound_topics(installed, SPECS)


async def test_topics_that_are_not_there(settings: Settings) -> None:
    message, hint = await refused(settings)
    assert message.endswith("does not exist") and "troupe topology apply" in hint


@pytest.mark.parametrize(
    "pick",
    [
        lambda: TASKS.inputs[0],
        lambda: TASKS.wakes,
        lambda: TASKS.repartition,
        lambda: TASKS.changelog,
        lambda: TASK_RESULTS,
    ],
)
async def test_another_partition_count(installed: Settings, pick: Callable) -> None:
    name = pick().name
    await make_anew(installed.kafka.bootstrap_servers, installed.kafka.topic_prefix + name, 3, {})
    message, hint = await refused(installed)
    assert message == f"Topic '{name}' has 3 partitions, the settings say 2"
    assert hint == "set kafka.partitions to 3, or use a new kafka.topic_prefix"


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
async def test_a_changelog_that_deletes_by_age(installed: Settings, policy: str) -> None:
    name = TASKS.changelog.name
    await set_config(installed.kafka.bootstrap_servers, installed.kafka.topic_prefix + name, cleanup_policy=policy)
    message, hint = await refused(installed)
    assert message == f"Changelog '{name}' has cleanup.policy={policy}: rows would be deleted by age"
    assert hint.startswith("kafka-configs ") and hint.endswith(
        f"--entity-name {name} --add-config cleanup.policy=compact"
    )


def with_batches(settings: Settings, batch_bytes: int) -> Settings:
    return settings.model_copy(update={"coordinator": Coordinator(batch_bytes=batch_bytes)})


async def test_batches_that_a_topic_does_not_take(installed: Settings) -> None:
    """At the first busy moment the broker would refuse one for good, and again after each start."""
    takes = 1_048_588  # a broker's default, as these topics have no limit of their own
    await refuse_unsound_topics(with_batches(installed, takes), SPECS)
    message, hint = await refused(with_batches(installed, takes + 1))
    assert message == f"Topic 'tasks.wakes' takes {takes} bytes at once (max.message.bytes), " + (
        f"coordinator.batch_bytes is {takes + 1}"
    )
    assert hint.startswith(f"set coordinator.batch_bytes to {takes} or less, or: kafka-configs --bootstrap-server ")
    assert hint.endswith(f"--entity-name tasks.wakes --add-config max.message.bytes={takes + 1}")
    await refuse_unsound_topics(with_batches(installed, takes), SPECS)


async def test_a_topic_that_takes_less_than_a_batch(installed: Settings) -> None:
    kafka, name = installed.kafka, TASK_RESULTS.name
    await set_config(kafka.bootstrap_servers, kafka.topic_prefix + name, max_message_bytes="5000")
    message, hint = await refused(installed)
    assert message == f"Topic '{name}' takes 5000 bytes at once (max.message.bytes), coordinator.batch_bytes is 900000"
    assert hint.startswith("kafka-configs ") and hint.endswith("--add-config max.message.bytes=900000")


async def test_a_changelog_without_room_for_header_rows(installed: Settings) -> None:
    kafka, name = installed.kafka, TASKS.changelog.name
    limits = {"cleanup_policy": "compact", "max_message_bytes": "1000000"}
    await set_config(kafka.bootstrap_servers, kafka.topic_prefix + name, **limits)
    message, hint = await refused(installed)
    assert message.endswith("coordinator.batch_bytes is 900000, and header rows need 120000 besides")
    assert hint.startswith("set coordinator.batch_bytes to 880000 or less, or: kafka-configs ")
    assert hint.endswith(f"--entity-name {name} --add-config max.message.bytes=1020000")
    await refuse_unsound_topics(with_batches(installed, 880_000), SPECS)


async def test_copies_that_are_believed_to_have_come_while_they_may_still_come(installed: Settings) -> None:
    for seconds, sound in ((30.0, False), (30.5, True)):
        changed = installed.model_copy(update={"coordinator": Coordinator(copy_seconds=seconds)})
        if sound:
            await refuse_unsound_topics(changed, SPECS)
        else:
            message, hint = await refused(changed)
            assert message == (
                "coordinator.copy_seconds is 30, and a produce may take 30 s (kafka.request_timeout_seconds)"
            )
            assert hint == "set coordinator.copy_seconds to 120"


async def test_batches_that_inboxes_do_not_take(installed: Settings) -> None:
    message, hint = await refused(with_batches(installed, 4_194_305))
    assert message == (
        "coordinator.batch_bytes is 4194305, inboxes take 4194304 bytes at once (limits.max_wrapped_bytes)"
    )
    assert hint == "set coordinator.batch_bytes to 4194304 or less"


async def test_a_changelog_that_is_empty_while_its_inputs_were_read(installed: Settings) -> None:
    kafka, name = installed.kafka, TASKS.inputs[0].name
    place = TopicPartition(kafka.topic_prefix + name, 1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    await producer.send_and_wait(place.topic, b"{}", partition=1)
    await producer.stop()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, group_id=f"{kafka.topic_prefix}coordinator", enable_auto_commit=False
    )
    await consumer.start()
    consumer.assign([place])
    await consumer.commit({place: 1})
    await consumer.stop()
    message, hint = await refused(installed)
    assert message == (
        f"Changelog '{TASKS.changelog.name}.1' is empty, but records of {name} were processed: its rows are lost"
    )
    assert hint.startswith("restore it, or start over")


async def test_a_broker_that_is_not_there() -> None:
    away = Settings(kafka=Kafka(bootstrap_servers="127.0.0.1:1", metadata_timeout_seconds=1.0))
    with pytest.raises(BrokerUnavailable, match=r"Kafka is not reachable at 127\.0\.0\.1:1"):
        await refuse_unsound_topics(away, SPECS)
