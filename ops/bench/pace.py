"""Submits tasks at given moments, whether or not anything came back: the open loop of a latency run.

A loop that waits for answers slows down with the system and so hides the very stalls that it should show. Here each task
has its moment in a plan, and every time is counted from that moment, however late the submit itself was.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from ops.bench.ledger import Ledger
from ops.bench.work import Work
from ops.commands import cloud_event_headers
from schemas.codec import Codecs
from schemas.errors import OperatorError
from schemas.partitioning import home
from schemas.topics import TASK_REQUESTS

_LEAD_S = 0.1
_MICROS = 1_000_000


def punctual_loop() -> asyncio.AbstractEventLoop:
    """An event loop that sleeps to the microsecond: the usual one rounds every wait up to a whole millisecond."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


class Pacer:
    """Sends the submits of numbered tasks to their home partitions, each at its moment."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partitions: int, codecs: Codecs, work: Work) -> None:
        self._producer, self._topic, self._partitions = producer, topic, partitions
        self._codec = codecs.of(TASK_REQUESTS.subject)
        self._work = work
        self._unconfirmed: set[asyncio.Future[Any]] = set()
        self._errors: list[BaseException] = []

    async def run(self, numbers: range, rate: float, ledger: Ledger, stall_s: float) -> None:
        """Submit all at `rate` per second; return when the last is confirmed.

        Raises OperatorError if a submit is refused, or is sent or confirmed more than `stall_s` seconds late.
        """
        begin = time.time_ns() // 1000 + int(_LEAD_S * _MICROS)
        for place, number in enumerate(numbers):
            due = begin + round(place * _MICROS / rate)
            early_s = (due - time.time_ns() // 1000) / _MICROS
            if early_s > 0:
                await asyncio.sleep(early_s)
            elif early_s < -stall_s:
                raise OperatorError(
                    f"The submitter is {-early_s:.1f} s behind its plan of {rate:g} tasks/s",
                    hint="take a lower --rate; `troupe bench throughput` shows what this machine takes",
                )
            ledger.submitted[number] = due
            await self._send(number, ledger)
            if self._errors:
                raise _refused(len(self._errors), self._errors[0])
        if self._unconfirmed:
            _, pending = await asyncio.wait(self._unconfirmed, timeout=stall_s)
            if pending or self._errors:
                raise _refused(len(pending) + len(self._errors), self._errors[0] if self._errors else None)

    async def _send(self, number: int, ledger: Ledger) -> None:
        command = self._work.command(number)
        ledger.sent[number] = command.occurred_at
        future = await self._producer.send(
            self._topic,
            self._codec.encode(command),
            key=command.task_id.encode(),
            partition=home(command.task_id, self._partitions),
            headers=cloud_event_headers(command),
        )
        self._unconfirmed.add(future)
        future.add_done_callback(partial(self._confirmed, number, ledger))

    def _confirmed(self, number: int, ledger: Ledger, done: asyncio.Future[Any]) -> None:
        self._unconfirmed.discard(done)
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            ledger.mark_acked((number,), time.time_ns() // 1000)
        else:
            self._errors.append(error)


def _refused(count: int, cause: BaseException | None) -> OperatorError:
    why = f"{type(cause).__name__}: {cause}" if isinstance(cause, KafkaError) else "no answer in time"
    return OperatorError(
        f"Kafka did not confirm {count} submits: {why}",
        hint="see the broker's log in DIR/kafka (run it again with --data DIR)",
    )
