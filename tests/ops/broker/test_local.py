"""The embedded Kafka as its users meet it: real brokers, real kills."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ops.broker.local import LocalKafka
from ops.broker.state import State
from schemas.errors import OperatorError
from tests.ops.broker.conftest import MakeKafka

pytestmark = pytest.mark.kafka

TOPIC = "kept"


async def write(bootstrap: str, *values: bytes) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True) as producer:
        for value in values:
            await producer.send_and_wait(TOPIC, value, partition=0)


async def read(bootstrap: str) -> list[bytes]:
    partition = TopicPartition(TOPIC, 0)
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        values: list[bytes] = []
        while len(values) < end:
            values.append((await consumer.getone()).value)
        return values


async def test_a_broker_is_used_again_survives_kill_9_with_its_data_and_stops(
    make_kafka: MakeKafka, tmp_path: Path
) -> None:
    kafka = make_kafka()
    started = await kafka.start()
    assert started.bootstrap == kafka.bootstrap == f"127.0.0.1:{started.port}"
    assert not started.reused
    assert list(started.pids) == kafka.pids()
    assert kafka.is_alive()
    await write(started.bootstrap, b"one", b"two")

    again = await make_kafka().start()  # as another command would
    assert again.reused
    assert (again.pids, again.bootstrap) == (started.pids, started.bootstrap)

    os.kill(started.pids[0], signal.SIGKILL)
    restarted = await kafka.start()
    assert not restarted.reused
    assert restarted.pids != started.pids
    assert restarted.port == started.port
    assert await read(restarted.bootstrap) == [b"one", b"two"]
    assert session_ms(tmp_path) == "3000"  # it had to wait until the session of the killed one was over

    assert await kafka.stop() == []
    assert kafka.pids() == []
    assert not kafka.is_alive()
    assert not psutil.pid_exists(restarted.pids[0])
    assert await kafka.stop() == []

    await kafka.start()
    assert session_ms(tmp_path) == "20000"  # it was stopped in order, and Kafka itself says so


def session_ms(directory: Path) -> str:
    """How long the controller believes in a silent broker, as the last start has set it."""
    text = (directory / "kafka" / "server-1.properties").read_text()
    return next(line.partition("=")[2] for line in text.splitlines() if line.startswith("broker.session.timeout.ms="))


async def test_two_starts_at_once_end_with_one_broker_which_survives_a_lost_note(
    make_kafka: MakeKafka, tmp_path: Path
) -> None:
    first, second = await asyncio.gather(make_kafka().start(), make_kafka().start())
    assert first.pids == second.pids
    assert [first.reused, second.reused].count(True) == 1

    directory = tmp_path / "kafka"
    State.load(directory).noting(1, None).save(directory)  # as if the starter was killed right after the launch
    assert make_kafka().pids() == []
    adopted = await make_kafka().start()
    assert adopted.reused
    assert adopted.pids == first.pids


async def test_two_directories_get_different_ports(make_kafka: MakeKafka) -> None:
    one, other = await asyncio.gather(make_kafka("one").start(), make_kafka("other").start())
    assert one.port != other.port
    assert one.pids != other.pids


@pytest.mark.long
async def test_of_three_brokers_only_the_killed_one_is_started_again(make_kafka: MakeKafka) -> None:
    kafka = make_kafka(brokers=3, stop_timeout_s=1.0)  # its data is of no use to anybody, so it may be killed
    started = await kafka.start()
    assert len(started.bootstrap.split(",")) == len(set(started.pids)) == 3

    os.kill(started.pids[1], signal.SIGKILL)
    async with asyncio.timeout(5):
        while len(kafka.pids()) == 3:  # noqa: ASYNC110 (a killed process stays visible for a moment)
            await asyncio.sleep(0.01)
    assert not kafka.is_alive()

    again = await kafka.start()
    assert again.bootstrap == started.bootstrap
    assert set(again.pids) & set(started.pids) == {started.pids[0], started.pids[2]}
    assert kafka.is_alive()


async def test_a_port_given_and_taken_is_explained(make_kafka: MakeKafka) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OperatorError, match=f"Port {port} is taken by process {os.getpid()} ") as caught:
            await make_kafka(port=port).start()
    assert f"--broker 127.0.0.1:{port}" in caught.value.hint
    assert "--port" in caught.value.hint


async def test_a_port_lost_between_choice_and_use_is_chosen_anew(
    make_kafka: MakeKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        stolen = other.getsockname()[1]
        kafka = make_kafka()
        honest = kafka._launch
        rounds = 0

        async def robbed(*arguments):  # type: ignore[no-untyped-def]
            """The first round listens where another program has just begun to."""
            nonlocal rounds
            rounds += 1
            with monkeypatch.context() as patch:
                if rounds == 1:
                    patch.setattr("ops.broker.placement._free", lambda _state: (stolen,))
                return await honest(*arguments)

        monkeypatch.setattr(kafka, "_launch", robbed)
        started = await kafka.start()
    assert rounds >= 2  # another program may take the next one too
    assert started.port != stolen


async def test_a_broker_that_ends_while_starting_shows_its_log(make_kafka: MakeKafka) -> None:
    kafka = make_kafka(overrides={"process.roles": "juggler"})
    with pytest.raises(OperatorError, match=r"(?s)ended with code 1 .*juggler"):
        await kafka.start()
    assert kafka.pids() == []


async def test_a_start_that_takes_too_long_leaves_no_process(make_kafka: MakeKafka) -> None:
    kafka = make_kafka(ready_timeout_s=0.2)
    with pytest.raises(OperatorError, match="not ready after") as caught:
        await kafka.start()
    assert caught.value.hint
    assert kafka.pids() == []


async def test_a_cancelled_start_leaves_no_process(make_kafka: MakeKafka) -> None:
    kafka = make_kafka()
    start = asyncio.create_task(kafka.start())
    await _until_launched(kafka)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert kafka.pids() == []


async def _until_launched(kafka: LocalKafka) -> None:
    async with asyncio.timeout(10):
        while not kafka.pids():  # noqa: ASYNC110 (the state file is all there is to see)
            await asyncio.sleep(0.01)


async def test_another_number_of_brokers_for_the_same_data_is_refused(make_kafka: MakeKafka, tmp_path: Path) -> None:
    data = tmp_path / "kafka" / "data-1"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\n")
    with pytest.raises(OperatorError, match="holds a cluster of 1 brokers, 3 were asked for"):
        await make_kafka(brokers=3).start()


async def test_a_path_that_kafka_would_split_is_refused(make_kafka: MakeKafka) -> None:
    with pytest.raises(OperatorError, match="comma"):
        await make_kafka("a,b").start()


def test_an_address_is_not_invented(make_kafka: MakeKafka) -> None:
    with pytest.raises(OperatorError, match="No Kafka was started") as caught:
        _ = make_kafka().bootstrap
    assert caught.value.hint == "troupe up"


async def test_a_spoiled_state_file_names_the_way_out(make_kafka: MakeKafka, tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "state.json").write_text("{half")
    with pytest.raises(OperatorError, match=r"state\.json cannot be read") as caught:
        await make_kafka().start()
    assert "remove" in caught.value.hint
    (tmp_path / "kafka" / "state.json").unlink()
