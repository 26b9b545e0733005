"""Faust, driven in batches: the subclasses that make its consumer group, assignment and recovery safe to stand on.

Faust gives groups, co-partitioned assignment, tables with changelogs and recovery. Its path per event is slow, loses
records when a handler raises, and has holes around seeks and rebalances; each class here closes named ones and says which.
Every private name that is touched has a test that fails loudly when the installed version changes it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import faust
import mode
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver

from schemas.plain_requests import send_plainly
from streams.runtime.faust_consumer import Consumer
from streams.runtime.faust_fetching import Hooks
from streams.runtime.store import ChangelogStore


class Producer(driver.Producer):  # type: ignore[misc]
    """An idempotent producer that waits for all in-sync replicas."""

    def _settings_extra(self) -> dict[str, Any]:
        limit = self.app.hooks.max_request_bytes
        return {"acks": "all", "enable_idempotence": True, "max_request_size": limit}

    def _new_producer(self, transactional_id: str | None = None) -> Any:
        producer = super()._new_producer(transactional_id)
        send_plainly(producer.client)
        return producer

    async def flush(self) -> None:
        """Nothing: what a commit speaks of is acked before, and a user's topic that is stuck must not hold it up."""


class Transport(driver.Transport):  # type: ignore[misc]
    """Faust's transport with our consumer and producer."""

    Consumer = Consumer
    Producer = Producer


class App(faust.App):  # type: ignore[misc]
    """Faust's app with our transport; `hooks` must be set before it starts."""

    hooks: Hooks

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)


class SeekFirstRecovery(Recovery):  # type: ignore[misc]
    """Seeks to the committed offsets before the inputs are resumed; Faust does it after, and hides callback errors.

    It also ends where a changelog ends in an offset without a record.
    """

    @mode.Service.task  # type: ignore[untyped-decorator]
    async def _pass_markers(self) -> None:
        """Faust waits for the record at the last offset; the marker of somebody's transaction is one that never comes."""
        async for _ in self.itertimer(1.0, name="changelog-markers"):
            short = [tp for tp, left in self.active_remaining().items() if left > 0] if self.in_recovery else []
            reached = await self.app.consumer._thread.reached(*short) if short else {}
            for tp, (position, last) in reached.items():
                if position > self.active_highwaters[tp] and last <= self.active_offsets[tp]:
                    self.active_offsets[tp] = self.active_highwaters[tp]
            if reached and self.in_recovery and not self.need_recovery():
                self.flush_buffers()
                self._set_recovery_ended()
                self.signal_recovery_end.set()

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        app, consumer, tables = self.app, self.app.consumer, self.tables
        await app.on_rebalance_complete.send()
        self._set_recovery_ended()
        # gather raises what a callback raised; Faust's asyncio.wait does not.
        await asyncio.gather(
            *(
                table.on_recovery_completed(self.actives_for_table[table], self.standbys_for_table[table])
                for table in tables.values()
            )
        )
        if app.consumer_generation_id != generation_id:
            return
        assigned = consumer.assignment()
        if assigned:
            await self._wait(consumer.perform_seek(), timeout=app.conf.broker_request_timeout)
        if app.consumer_generation_id != generation_id:
            return
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_flow()
        consumer.resume_partitions({tp for tp in assigned if not self._is_changelog_tp(tp)})
        await app._fetcher.maybe_start()
        tables.on_actives_ready()
        if not app.assignor.assigned_standbys():
            tables.on_standbys_ready()
        app.on_rebalance_end()


class Tables(TableManager):  # type: ignore[misc]
    """Faust's table manager with our recovery."""

    _recovery: Any

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = SeekFirstRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


class Table(faust.Table):  # type: ignore[misc]
    """Faust's table on our store."""

    def _new_store_by_url(self, url: Any) -> ChangelogStore:
        return ChangelogStore(
            url,
            self.app,
            self,
            decode_header=self.app.hooks.decode_header,
            table_name=self.name,
            key_type=self.key_type,
            value_type=self.value_type,
            key_serializer=self.key_serializer,
            value_serializer=self.value_serializer,
            loop=self.loop,
            options=self.options,
        )


class BatchStream(faust.Stream):  # type: ignore[misc]
    """A stream that only keeps its agent alive: records come in chunks, past it, and nothing is acked for the reader."""

    async def begin(self) -> None:
        """Start without Faust's iterator."""
        await self.maybe_start()
        self._finalized, self.enable_acks = True, False

    def finish(self) -> None:
        """Leave the channel."""
        self._channel_stop_iteration(self.channel)
