"""A header whose name is no UTF-8: Kafka takes it and aiokafka cannot read it, and no record may be lost for it."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED
from aiokafka.errors import CorruptRecordException

from schemas.partitioning import home
from schemas.topics import AGENT_REGISTRY, TASK_REQUESTS
from streams.runtime.fetched import _Kept, _Records
from tests.contract.kafka_stage import KafkaStage
from tests.contract.processor_stage import as_json
from tests.streams.runtime.spoilt import CODECS, GZIP, PLAIN, READABLE, Builder, Spoilt, send

ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"


def batch(base: int, names: Sequence[str], codec: int = PLAIN, producer: int = -1, marker: bytes = b"") -> bytes:
    """One record for each header name, from this offset on; the producer's are of a transaction."""
    builder = Builder(codec, transactional=producer >= 0, producer=producer)
    builder.marker = bool(marker)
    for number, name in enumerate(names):
        key, headers = marker or f"key-{base + number}".encode(), [("first", None), (name, b"\xff"), ("last", b"")]
        assert builder.append(number, 1000 + number, key, b"v" * 20, [] if marker else headers)
    raw = bytearray(builder.build())
    struct.pack_into(">q", raw, 0, base)
    return bytes(raw)


def log_of(name: str, codec: int) -> tuple[bytes, int]:
    """A fetch with batches of all kinds and its end; `name` in some of them."""
    batches = [
        batch(0, ["a", "b"], codec),
        batch(2, ["a", name], producer=7),
        batch(4, ["a", name, "b"], codec),
        batch(7, ["-"], producer=7, marker=ABORT),
        batch(8, [name, "a"], codec, producer=7),
        batch(10, ["-"], producer=7, marker=COMMIT),
        batch(20, ["a", "b", name, name, "c"], codec),
        batch(25, ["a", "b"], codec, producer=8),
        batch(27, ["-"], producer=8, marker=ABORT),
        batch(28, ["a", "b"]),
    ]
    return b"".join(batches), 30


def read(fetched: bytes, offset: int, isolation: int) -> tuple[list[Any], int]:
    """The records, and where the next fetch begins."""
    records = _Records(TopicPartition("t", 0), _Kept(fetched), [(8, 25), (7, 2)], offset, None, None, True, isolation)
    return list(records), records.next_fetch_offset


@pytest.mark.parametrize("isolation", [READ_COMMITTED, READ_UNCOMMITTED])
@pytest.mark.parametrize("codec", CODECS)
def test_the_same_records_are_read_as_with_a_readable_name(codec: int, isolation: int) -> None:
    (good, end), (bad, _) = log_of(READABLE, codec), log_of(Spoilt("?"), codec)
    flat = lambda each: (each.offset, each.timestamp, each.key, each.value, [*each.headers])  # noqa: E731
    for offset in range(end + 1):
        (wanted, next_wanted), (found, next_found) = read(good, offset, isolation), read(bad, offset, isolation)
        assert [flat(each) for each in found] == [flat(each) for each in wanted]
        assert next_found == next_wanted == end
    assert sum(len(read(bad, 0, each)[0]) for each in (READ_COMMITTED, READ_UNCOMMITTED)) == 14 + 18


def test_a_batch_that_is_broken_stays_an_error() -> None:
    raw = bytearray(batch(0, [Spoilt("?")]) + batch(1, ["a"]))
    raw[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="CRC"):
        read(bytes(raw), 0, READ_COMMITTED)


def test_it_is_so_without_the_compiled_parser() -> None:
    this = f"{__file__}::{test_the_same_records_are_read_as_with_a_readable_name.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", this]
    done = subprocess.run(command, env={**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"}, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout.decode()


def request(task: str) -> tuple[str, bytes, bool]:
    """A record for a task, with a spoilt header if it is called bad; `worthless` has no value."""
    return task, b"no request" if "worthless" in task else as_json(task, hold=True), "bad" in task


@pytest.mark.kafka
def test_every_record_gets_its_outcome(broker: str, tmp_path: Path) -> None:
    """Plain and compressed, before and after a restart; one that is worth a dead letter has its header there. A topic that
    is read whole may hold such a record too."""
    stage = KafkaStage(broker, tmp_path)
    try:
        topic, bootstrap = stage.name(TASK_REQUESTS), stage.settings.kafka.bootstrap_servers
        for round_, codec in enumerate((PLAIN, GZIP, PLAIN)):
            good, bad = ([f"{kind}-{round_}-{n}" for n in range(200)] for kind in ("good", "bad"))
            (a, b, c, d), (x, y) = (
                [task for task in tasks if home(task, 2) == 0][:count] for tasks, count in ((good, 4), (bad, 2))
            )
            for tasks in ([a], [b, x, c], [f"worthless-bad-{round_}"], [y, d]):
                asyncio.run(send(bootstrap, topic, [request(task) for task in tasks], codec))
            stage.until(lambda: all(stage.kinds(task) == ["accepted"] for task in (a, b, c, d, x, y)))  # noqa: B023
            letters = stage.until(lambda: len(found := stage.letters()) > round_ and found)  # noqa: B023
            assert [pair.key for pair in letters[-1].headers] == [READABLE]
            if round_ == 0:
                asyncio.run(send(bootstrap, stage.name(AGENT_REGISTRY), [("k", b"no record", True)]))
                stage.until(lambda: '"event": "view_record_unreadable"' in stage._role.log())
                stage.crash(keeps_store=True)
        assert stage._role.exits == {-signal.SIGKILL: 1}, "when it was killed, and at no other time"
        assert stage._role.log().count('"event": "header_name_not_utf8"') >= 3
    finally:
        stage.close()
