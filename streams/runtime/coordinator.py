"""The coordinator process: one Faust app, its processors, the views they share, and a stop that finishes what it began."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import structlog

from schemas.changelog import ChangelogHeader
from schemas.codec import Codecs
from schemas.errors import BrokerUnavailable, OperatorError
from schemas.failpoint import Failpoints
from schemas.settings import Settings
from schemas.topics import Topic
from streams.processor import ProcessorSpec
from streams.runtime.checks import refuse_unsound_topics
from streams.runtime.delivered import Chunk
from streams.runtime.exits import EXIT_BUG, EXIT_FENCED, EXIT_KAFKA, EXIT_OPERATOR, EXIT_REBUILD, EXIT_STOP_TIMEOUT
from streams.runtime.faust_app import App, BatchStream, Table, Tables
from streams.runtime.faust_fetching import Hooks, Replaced
from streams.runtime.kafka import Make, Runner
from streams.runtime.store import REBUILT, discard, sweep
from streams.runtime.views import CompactedViews
from streams.runtime.wakes import Clock
from streams.runtime.wire import Wire

log = structlog.get_logger("coordinator")

REBUILD = "rebuild"
"""A file beside the local stores: they are to be made anew, for the reason that it holds."""

ASK_SECONDS = 1.0
"""How long a stop may take to learn from the group why it is one."""


class Coordinator:
    """Runs processors until told to stop. Made once per process."""

    def __init__(
        self,
        settings: Settings,
        processors: Sequence[tuple[ProcessorSpec, Make]],
        codecs: Codecs,
        admit_schemas: Callable[[int], Awaitable[None]],
        failpoints: Failpoints,
    ) -> None:
        """`admit_schemas` looks for a schema id in `_schemas` and admits what is new into `codecs`."""
        self._settings = settings
        self._admit_schemas = admit_schemas
        self._failpoints = failpoints
        self._wire = Wire(settings, codecs)
        self._specs = [spec for spec, _ in processors]
        topics = tuple({topic.name: topic for spec in self._specs for topic in spec.views}.values())
        self._views = CompactedViews(topics, codecs, settings.kafka.topic_prefix, settings.kafka.partitions)
        self._app = self._new_app(codecs)
        clock = Clock()
        self._runners = [
            Runner(spec, make, self._app, self._wire, self._views, settings, failpoints, clock, self)
            for spec, make in processors
        ]
        self._views.listeners.append(self._view_changed)
        self._app.on_partitions_revoked.connect(self._revoked, weak=False)

    def _new_app(self, codecs: Codecs) -> App:
        kafka, limits = self._settings.kafka, self._settings.coordinator
        header_codec = codecs.of("changelog.header-value")

        def decode_header(value: bytes) -> ChangelogHeader:
            header: ChangelogHeader = header_codec.decode(value)
            return header

        app = App(
            f"{kafka.topic_prefix}coordinator",
            broker=[f"kafka://{address}" for address in kafka.bootstrap_servers.split(",")],
            datadir=self._settings.data_dir / "tables" / f"{kafka.topic_prefix}coordinator" / limits.instance,
            Stream=BatchStream,
            Table=Table,
            TableManager=Tables,
            store="rocksdb://",
            autodiscover=False,
            topic_partitions=kafka.partitions,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            table_standby_replicas=0,
            recovery_consistency_check=False,  # a store that is ahead of its changelog is found by ours, and made anew
            stream_wait_empty=True,
            stream_buffer_maxsize=65536,
            consumer_group_instance_id=limits.instance,
            broker_commit_interval=limits.commit_interval_seconds,
            broker_session_timeout=limits.session_timeout_seconds,
            broker_heartbeat_interval=limits.heartbeat_seconds,
            broker_rebalance_timeout=limits.rebalance_timeout_seconds,
            producer_request_timeout=kafka.request_timeout_seconds,
            producer_linger=0.0,
            producer_max_batch_size=2 * self._settings.limits.max_wrapped_bytes,
        )
        app.hooks = Hooks(
            group_error=self._group_error,
            start_offsets=self._positioned,
            committed=lambda: self._failpoints.hit("committed"),
            deliver=self._deliver,
            is_full=self._is_full,
            decode_header=decode_header,
            store_broken=self._store_broken,
            gather_bytes=limits.gather_bytes,
            gather_ms=limits.gather_ms,
            fetch_max_wait_ms=limits.fetch_max_wait_ms,
            max_request_bytes=2 * self._settings.limits.max_wrapped_bytes,
        )
        return app

    # --- what the app tells

    def _group_error(self, error: BaseException) -> None:
        name = self._settings.coordinator.instance
        if not isinstance(error, Replaced):
            self.die(EXIT_KAFKA, f"group error: {error!r}")
        if error.silent_s > self._settings.coordinator.session_timeout_seconds:
            self.die(EXIT_FENCED, f"{error}; another may own our partitions by now")
        self.die(
            EXIT_OPERATOR,
            f"another coordinator named '{name}' has joined the group and taken our place; each needs a name of its own",
            hint="set coordinator.instance to another name for one of them (`--instance NAME`)",
        )

    def _positioned(self, starts: Mapping[Any, int]) -> None:
        for runner in self._runners:
            runner.positioned(starts)

    def _deliver(self, topic: str, chunk: Chunk) -> None:
        for runner in self._runners:
            if topic in runner.topics:
                runner.delivered.put(chunk)

    def _is_full(self) -> bool:
        limits = self._settings.coordinator
        waiting = [runner.delivered for runner in self._runners]
        return any(each.count >= 10 * limits.batch_records or each.bytes >= limits.queued_bytes for each in waiting)

    def _revoked(self, app: Any, revoked: Any, **kwargs: Any) -> None:
        for runner in self._runners:
            runner.revoked()

    def _view_changed(self, topic: Topic, key: str) -> None:
        for runner in self._runners:
            if runner.owner is not None and topic in runner.spec.views:
                runner.owner.processor.view_changed(topic, key)

    async def refresh_schemas(self, schema_id: int) -> None:
        """Look for a schema that is not known yet."""
        await self._admit_schemas(schema_id)

    def _store_broken(self, why: str) -> NoReturn:
        """Have the next start make the local store anew. All of it: what spoiled one part may have spoiled others."""
        (self._app.conf.datadir / REBUILD).write_text(why)
        self.die(EXIT_REBUILD, f"{why}; the next start rebuilds the local store from the changelog, nothing is lost")

    def _rebuild_if_asked(self) -> None:
        asked = self._app.conf.datadir / REBUILD
        sweep(asked.parent)
        if asked.exists():
            why = asked.read_text()
            try:
                discard(asked.parent)
            except OSError as error:
                raise OperatorError(
                    f"The local store {asked.parent} is to be rebuilt ({why}) and cannot be removed: {error}",
                    hint="remove it by hand and start again; nothing is lost with it",
                ) from error
            log.warning("local_store_discarded", store=str(asked.parent), why=why, meaning=REBUILT)

    async def fenced(self, why: str) -> NoReturn:
        """Stop because somebody else wrote to our changelog. If it bears our name, the group says so when asked."""
        with suppress(Exception):
            async with asyncio.timeout(ASK_SECONDS):
                await self._app.consumer._thread.beat()
        self.die(EXIT_FENCED, why)

    def die(self, code: int, why: str, hint: str = "") -> NoReturn:
        """Stop at once, without a commit; the supervisor starts the process again."""
        log.error("coordinator_stopped", code=code, why=why, **({"hint": hint} if hint else {}))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    # --- life

    async def run(self, stop: asyncio.Event, on_ready: Callable[[], None]) -> int:
        """Start, serve until `stop`, finish the batch in hand, commit and leave; returns the exit code.

        Raises OperatorError for topics that cannot be served, BrokerUnavailable if Kafka does not answer.
        """
        kafka, limits = self._settings.kafka, self._settings.coordinator
        self._rebuild_if_asked()
        self._app.conf.datadir.mkdir(parents=True, exist_ok=True)
        await refuse_unsound_topics(self._settings, self._specs)
        follower = await self._views.fill(kafka.bootstrap_servers, kafka.metadata_timeout_seconds)
        following = asyncio.create_task(self._views.follow(follower))
        following.add_done_callback(self._follower_ended)
        loop = asyncio.get_running_loop()
        self._app.in_worker, self._app.loop = True, loop  # without in_worker Faust does not start agents
        await self._app.start()
        try:
            await self._until_ready(stop)
        except TimeoutError as late:
            raise BrokerUnavailable(f"not ready within {limits.ready_seconds:g} s") from late
        if not stop.is_set() and not self._app.crashed:
            on_ready()
        while not stop.is_set() and not self._app.crashed:
            try:
                async with asyncio.timeout(1.0):
                    await stop.wait()
            except TimeoutError:
                continue
        if self._app.crashed:
            self.die(EXIT_BUG, f"the stream application crashed: {self._app.crash_reason!r}")
        try:
            async with asyncio.timeout(limits.stop_seconds):
                await self._app.stop()
                await asyncio.gather(*(runner.close() for runner in self._runners))
                following.cancel()
                await follower.stop()
        except TimeoutError:
            self.die(EXIT_STOP_TIMEOUT, f"not stopped within {limits.stop_seconds:g} s")
        log.info("coordinator_left", **self.counts())
        return 0

    def counts(self) -> dict[str, Any]:
        """What was done since the last assignment, by processor."""
        return {runner.spec.name: runner.owner.counts.as_dict() for runner in self._runners if runner.owner}

    async def _until_ready(self, stop: asyncio.Event) -> None:
        async with asyncio.timeout(self._settings.coordinator.ready_seconds):
            while not all(runner.recovered.is_set() for runner in self._runners):
                if stop.is_set() or self._app.crashed:
                    return
                await asyncio.sleep(0.02)

    def _follower_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.die(EXIT_KAFKA, f"the views stopped: {task.exception()!r}")
