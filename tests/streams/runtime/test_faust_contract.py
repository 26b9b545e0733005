"""One case per private name of Faust, mode and aiokafka that the runtime replaces or relies on. No broker needed.

A failure means that the installed version changed something we stand on: read that code again before upgrading. Each case
looks for the lines of the original that our replacement reproduces.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import Counter
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import faust
import pytest
import rocksdict
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.consumer.fetcher import Fetcher as KafkaFetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import ConsumerStoppedError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy
from faust.stores.rocksdb import Store
from faust.streams import Stream
from faust.tables.base import Collection
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.conductor import Conductor
from faust.transport.consumer import Consumer as BaseConsumer
from faust.transport.consumer import ConsumerThread as BaseThread
from faust.transport.consumer import Fetcher, ThreadDelegateConsumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.threads import MethodQueue, QueueServiceThread, ServiceThread

from schemas.fetch_sessions import FetchSessions, Session
from streams.runtime.faust_app import App
from streams.runtime.faust_consumer import Consumer
from streams.runtime.faust_fetching import ConsumerTask, Pace

Thread = driver.AIOKafkaConsumerThread


def test_versions_are_the_ones_that_were_read() -> None:
    assert version("faust-streaming") == "0.15.3"
    assert version("aiokafka").startswith("0.14.")
    assert version("mode-streaming").startswith("0.7.")


@pytest.mark.parametrize(
    ("owner", "name", "lines"),
    [
        (BaseConsumer, "_new_offset", ["self._acked[tp]", "self._acked_index[tp]", "self._committed_offset[tp]"]),
        (BaseConsumer, "_filter_committable_offsets", ["self._new_offset(tp)", "self._should_commit"]),
        (BaseConsumer, "perform_seek", ["self._read_offset", "seek_to_committed", "_committed_offset.update"]),
        (BaseConsumer, "on_partitions_revoked", ["self._acked.pop", "_read_offset.pop"]),
        (
            BaseConsumer,
            "_drain_messages",
            ["self.callback", "getmany(timeout=1.0)", "suspend_flow.wait()", "self._read_offset", "acks_enabled_for"],
        ),
        (BaseConsumer, "_drain_messages", ["self.consumer_stopped_errors", "transport.app.should_stop"]),
        (BaseConsumer, "getmany", ["self.flow_active", "generation_id", "tp in active_partitions"]),
        (BaseConsumer, "pause_partitions", ["self._get_active_partitions().difference_update(tpset)"]),
        (BaseConsumer, "_wait_next_records", ["await self._getmany(", "active_partitions=active_partitions"]),
        (BaseConsumer, "_is_changelog_tp", ["changelog_topics"]),
        (BaseConsumer, "wait_empty", ["self._wait_for_ack)(timeout=1)", "commit_and_end_transactions"]),
        (BaseConsumer, "_wait_for_ack", ["self._waiting_for_ack = asyncio.Future"]),
        (BaseConsumer, "_commit_offsets", ["producer.flush()", "self._commit(committable_offsets)"]),
        (BaseConsumer, "_commit_offsets", ["self._committed_offset.update(committable_offsets)", "return did_commit"]),
        (
            BaseConsumer,
            "_filter_tps_with_pending_acks",
            ["for tp in self._acked", "tp in topics or tp.topic in topics"],
        ),
        (BaseConsumer, "force_commit", ["self._filter_tps_with_pending_acks(topics)", "self._commit_tps("]),
        (
            BaseConsumer,
            "commit",
            ["maybe_wait_for_commit_to_finish", "self._commit_fut = asyncio.Future", "notify(fut)"],
        ),
        (BaseConsumer, "_should_commit", ["committed = self._committed_offset[tp]", "committed is None"]),
        (Fetcher, "_fetcher", ["_drain_messages(self)"]),
        (KafkaFetcher, "_get_actions_per_node", ["self._fetch_max_wait_ms", "self._fetch_min_bytes"]),
        (KafkaFetcher, "fetched_records", ["if partitions and tp not in partitions:", "return drained"]),
        (KafkaFetcher, "_fetch_requests_routine", ["self._proc_fetch_request(assignment, node_id, request)"]),
        (KafkaFetcher, "_proc_fetch_request", ["records = MemoryRecords(part_data[-1])", " = PartitionRecords("]),
        (PartitionRecords, "__init__", ["self._records = records", "self._records_iterator = self._unpack_records()"]),
        (PartitionRecords, "_unpack_records", ["records = self._records", "tp = self._tp", "records.next_batch()"]),
        (PartitionRecords, "_unpack_records", ["record.offset < self.next_fetch_offset", "yield consumer_record"]),
        (PartitionRecords, "_unpack_records", ["for record in next_batch:", " = next_batch.next_offset"]),
        (_MemoryRecordsPy, "next_batch", ["next_slice = self._next_slice", "self._cache_next()", "magic >= 2"]),
        (_DefaultRecordBatchPy, "_read_msg", ["buffer = self._buffer", 'h_key_len].decode("utf-8")']),
        (_DefaultRecordBatchPy, "__next__", ["self._read_msg()", "except (ValueError, IndexError) as err", "from err"]),
        (KafkaFetcher, "seek_to", ["self._subscriptions.seek(tp, offset)", "del self._records[tp]"]),
        (ServiceThread, "__init__", ["self.thread_loop = thread_loop or", "self.Worker = Worker"]),
        (ServiceThread, "__init__", ["super().__init__(loop=self.thread_loop"]),
        (ServiceThread, "start", ["self._thread = self.Worker(self)", "self._thread.start()"]),
        (ServiceThread, "stop", ["await super().stop()", "self._thread.stop()"]),
        (ServiceThread, "_serve", ["await self._shutdown_thread()", "await self._gather_remaining_tasks()"]),
        (ServiceThread, "_gather_remaining_tasks", ["task.cancel()"]),
        (QueueServiceThread, "call_thread", ["self.parent_loop.create_future()", "await promise"]),
        (MethodQueue, "_process_enqueued", ["await maybe_async(method(*args, **kwargs))"]),
        (Thread, "getmany", ["self._fetch_records,", "timeout=timeout", "max_records=_consumer._max_poll_records"]),
        (Thread, "_fetch_records", ["return await fetcher.fetched_records(", "self.consumer.flow_active"]),
        (Thread, "_ensure_consumer", ["return self._consumer"]),
        (Thread, "seek_wait", ["self.call_thread(self._seek_wait, consumer, partitions)"]),
        (Thread, "seek_to_committed", ["self.call_thread(self._ensure_consumer().seek_to_committed)"]),
        (Thread, "_seek_wait", ["consumer.seek(tp, offset)", "del self.consumer._read_offset[tp]"]),
        (Thread, "_highwaters", ["consumer.end_offsets(partitions)"]),
        (
            Thread,
            "_create_worker_consumer",
            ["fetch_max_wait_ms=1500", "enable_auto_commit=False", "group_instance_id"],
        ),
        (Thread, "on_start", ["self._consumer = self._create_consumer", "await self._consumer.start()"]),
        (ThreadDelegateConsumer, "__init__", ["self._thread = self._new_consumer_thread()"]),
        (ThreadDelegateConsumer, "_getmany", ["self._thread.getmany(active_partitions, timeout)"]),
        (ThreadDelegateConsumer, "seek_to_committed", ["self._thread.seek_to_committed()"]),
        (BaseThread, "on_partitions_assigned", ["threadsafe_partitions_assigned"]),
        (BaseThread, "on_partitions_revoked", ["threadsafe_partitions_revoked"]),
        (driver.Consumer, "_new_consumer_thread", ["AIOKafkaConsumerThread(self, loop=self.loop, beacon=self.beacon)"]),
        (driver.Consumer, "_to_message", ["timestamp_s = timestamp / 1000.0"]),
        (driver.Producer, "_new_producer", ["_settings_extra()"]),
        (driver.Producer, "on_start", ["self._producer = self._new_producer()"]),
        (AIOKafkaConsumer, "start", ["self._fetch_min_bytes", "self._fetch_max_wait_ms", "self._coordinator"]),
        (AIOKafkaConsumer, "start", ["self._max_partition_fetch_bytes"]),
        (AIOKafkaConsumer, "seek_to_committed", ["if offset and offset > 0"]),
        (GroupCoordinator, "check_errors", []),
        (GroupCoordinator, "_heartbeat_routine", ["await self._do_heartbeat()"]),
        (GroupCoordinator, "_do_heartbeat", ["await self._send_req(request)", "self.member_id"]),
        (GroupCoordinator, "_send_req", ["return resp"]),
        (TableManager, "recovery", ["self._recovery", "Recovery("]),
        (
            Recovery,
            "on_recovery_completed",
            ["resume_partitions", "perform_seek", "_fetcher.maybe_start", "on_actives_ready", "actives_for_table"],
        ),
        (Recovery, "on_recovery_completed", ["standbys_for_table", "_set_recovery_ended", "on_rebalance_end"]),
        (Recovery, "_restart_recovery", ["_build_highwaters", "active_offsets[tp] > active_highwaters[tp]"]),
        (Recovery, "_build_offsets", ["destination[tp] = max(last_value, new_value)"]),
        (Recovery, "_build_highwaters", ["value - 1"]),
        (Recovery, "_add", ["table.persisted_offset(tp)", "offsets[tp] = persisted_offset"]),
        (Recovery, "_slurp_changelogs", ["table.apply_changelog_batch(buf)", "offset > seen_offset"]),
        (Collection, "_new_store_by_url", ["table_name=self.name", "options=self.options"]),
        (Collection, "on_recovery_completed", ["call_recover_callbacks"]),
        (Store, "apply_changelog_batch", ["WriteBatch(raw_mode=True)", "set_persisted_offset"]),
        (Store, "set_persisted_offset", ["self.offset_key, str(offset).encode()"]),
        (Store, "_db_for_partition", ["self._dbs[partition]"]),
        (Store, "persisted_offset", ["self.offset_key"]),
        (Stream, "_channel_stop_iteration", ["channel"]),
        (faust.App, "_on_partitions_revoked", ["stop_flow", "flow_control.clear", "_consumer_wait_empty"]),
        (faust.App, "_on_partitions_revoked", ["on_partitions_revoked.send"]),
    ],
)
def test_the_code_that_is_replaced_or_relied_on(owner: Any, name: str, lines: list[str]) -> None:
    found = inspect.getattr_static(owner, name)
    function = found.fget if isinstance(found, property) else getattr(found, "fun", None) or getattr(owner, name)
    text = inspect.getsource(function)
    for line in lines:
        assert line in text, f"{owner.__name__}.{name} no longer contains {line!r}"


def test_attributes_of_instances() -> None:
    async def look() -> None:
        app = faust.App("contract", broker="kafka://127.0.0.1:1", web_enabled=False)
        app.loop = asyncio.get_running_loop()
        app.finalize()
        for name in (
            "_read_offset", "_committed_offset", "_waiting_for_ack", "_thread",
            "_buffered_partitions",
            "suspend_flow", "flow_active", "callback", "consumer_stopped_errors",
        ):  # fmt: skip
            assert hasattr(app.consumer, name), name
        assert hasattr(app.consumer._thread, "_serve")
        stream = app.topic("t").stream()
        for name in ("enable_acks", "_finalized", "channel"):
            assert hasattr(stream, name), name
        assert hasattr(app.flow_control, "is_active")

    asyncio.run(look())


def test_a_method_can_be_given_other_names() -> None:
    method = KafkaFetcher._proc_fetch_request
    assert method.__closure__ is method.__defaults__ is None
    assert {"MemoryRecords", "PartitionRecords"} <= method.__globals__.keys()


def test_names_of_stores_and_batches() -> None:
    assert Store.offset_key == b"__faust\0offset__"
    batch = rocksdict.WriteBatch(raw_mode=True)
    batch.put(b"k", b"v")
    batch.delete(b"k")
    for name in ("append", "record_count", "size", "close"):
        assert hasattr(BatchBuilder, name)
    for name in ("create_batch", "send_batch"):
        assert hasattr(AIOKafkaProducer, name)
    assert "on_message" in inspect.getsource(Conductor)


def test_a_fetch_that_a_seek_overtook_gives_its_records_back(monkeypatch: pytest.MonkeyPatch) -> None:
    early, sought = TP("t", 0), TP("t", 1)
    back: list[Any] = []
    live: set[Any] = set()
    thread = object.__new__(ConsumerTask)
    thread.seeks, thread.last, thread.given_back, thread.sessions = Counter(), {}, 0, FetchSessions(AsyncMock())
    thread.sessions._sessions = {1: Session(7, 3, {("t", 0): (3, 100)})}
    thread._pace = Pace(SimpleNamespace(gather_bytes=1, gather_ms=1, fetch_max_wait_ms=1))  # type: ignore[arg-type]

    async def fetch(self: Any, consumer: Any, active: Any, timeout: Any = None, max_records: Any = None) -> Any:
        assert early not in active  # an empty set must mean none, and not all
        live.add(early)
        assert early in active  # and it is read while the fetch waits
        self._sought([sought])
        record = SimpleNamespace
        return {early: [record(offset=3), record(offset=4)], sought: [record(offset=7), record(offset=8)]}

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_fetch_records", fetch)
    seek = lambda *place: back.append(place)  # noqa: E731
    consumer = SimpleNamespace(_fetcher=SimpleNamespace(), assignment=lambda: {early, sought}, seek=seek)
    taken = asyncio.run(thread._fetch_records(consumer, live, 1.0, 10))
    assert list(taken) == [early]
    assert back == [(sought, 7)]
    assert thread.last == {early: 4}
    assert taken.seeks[sought] != thread.seeks[sought]
    assert thread.sessions._sessions == {1: Session(7)}, "after a seek all partitions are named"


def test_a_coordinator_fetches_in_sessions_and_sends_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    client = SimpleNamespace(send=AsyncMock(), _get_conn=AsyncMock())
    send, connect = client.send, client._get_conn
    made = SimpleNamespace(_client=client)
    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_create_worker_consumer", lambda self, transport: made)
    hooks = SimpleNamespace(fetch_max_wait_ms=5, max_partition_fetch_bytes=6)
    thread = object.__new__(ConsumerTask)
    thread.consumer = SimpleNamespace(app=SimpleNamespace(hooks=hooks))
    assert thread._create_worker_consumer(None) is made
    assert (made._fetch_min_bytes, made._fetch_max_wait_ms, made._max_partition_fetch_bytes) == (1, 5, 6)
    assert client.send == thread.sessions.send and thread.sessions._send is send
    assert client._get_conn is not connect


@pytest.mark.parametrize("fault", [None, ConsumerStoppedError()])
def test_the_consumer_is_a_task_of_the_main_loop_and_ends_nobody_else(
    monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    """No thread is started, calls into it are calls, and its stop, also one that fails, leaves the tasks of others alone."""
    calls: list[Any] = []

    async def noted(name: str) -> str:
        calls.append((name, threading.current_thread() is threading.main_thread()))
        return name

    class Made:
        _client = SimpleNamespace(send=AsyncMock(), _get_conn=AsyncMock())
        _fetcher = SimpleNamespace()
        _coordinator = SimpleNamespace(_do_heartbeat=AsyncMock(), _send_req=AsyncMock())

        async def start(self) -> None:
            await noted("start")

        async def stop(self) -> None:
            await noted("stop")
            if fault is not None:
                raise fault

    async def serve() -> None:
        monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_create_worker_consumer", lambda self, transport: Made())
        monkeypatch.setattr("streams.runtime.faust_fetching.read_any_header_name", lambda fetcher: None)
        app = App("contract", broker="kafka://127.0.0.1:1", web_enabled=False)
        app.loop = asyncio.get_running_loop()
        app.hooks = SimpleNamespace(gather_ms=1, fetch_max_wait_ms=5, max_partition_fetch_bytes=6)  # type: ignore[assignment]
        app.finalize()
        other, threads = asyncio.ensure_future(asyncio.Event().wait()), threading.active_count()
        task = app.consumer._thread
        await task.start()
        assert threading.active_count() == threads
        assert await task.call_thread(noted, "called") == "called"
        with pytest.raises(ConsumerStoppedError):
            await task.call_thread(AsyncMock(side_effect=ConsumerStoppedError()))
        async with asyncio.timeout(10):
            await task.stop()
        assert not other.done()
        other.cancel()
        assert calls == [("start", True), ("called", True), ("stop", True)]

    asyncio.run(serve())


def test_a_refused_commit_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [False, True]
    tried: list[Any] = []

    async def commit(self: Any, offsets: Any, start_new_transaction: bool = True) -> bool:
        tried.append(dict(offsets))
        self._committed_offset.update(offsets)
        return answers.pop(0)

    monkeypatch.setattr(BaseConsumer, "_commit_offsets", commit)
    place, consumer = TP("t", 0), object.__new__(Consumer)
    consumer._committed_offset, consumer._done = {place: 5}, {place: 8}
    for _ in range(2):
        places = consumer._filter_tps_with_pending_acks()
        asyncio.run(consumer._commit_offsets(consumer._filter_committable_offsets(places)))
    assert tried == [{place: 9}, {place: 9}]
    assert consumer._filter_committable_offsets([place]) == {}


def test_what_is_done_while_a_commit_is_under_way_is_committed_before_a_rebalance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []
    answer = asyncio.Event()

    async def commit(self: Any, offsets: Any, start_new_transaction: bool = True) -> bool:
        made.append(dict(offsets))
        self._committed_offset.update(offsets)
        await answer.wait()
        return True

    async def rebalance() -> None:
        app = App("contract", broker="kafka://127.0.0.1:1", web_enabled=False)
        app.loop = asyncio.get_running_loop()
        app.hooks = SimpleNamespace(committed=lambda: None, gather_ms=1)  # type: ignore[assignment]
        app.finalize()
        consumer, place = app.consumer, TP("t", 0)
        consumer.taken_up(2)
        consumer.finished(1, {place: 3})
        regular = asyncio.ensure_future(consumer.commit())
        await asyncio.sleep(0)
        consumer.finished(1, {place: 4})
        empty = asyncio.ensure_future(consumer.wait_empty())
        await asyncio.sleep(0)
        answer.set()
        await asyncio.gather(regular, empty)
        assert made == [{place: 4}, {place: 5}]

    monkeypatch.setattr(BaseConsumer, "_commit_offsets", commit)
    asyncio.run(rebalance())
