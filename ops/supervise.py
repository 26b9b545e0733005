"""A whole system under one process: Kafka, the coordinator and the hosts of agents, started in order and stopped.

It is a small thing on purpose. Everything durable is in Kafka, so all it has to do is start what ended. What it starts
ends with it, even if it is killed: roles hold the other end of a pipe, and the broker, which is Java and knows nothing
of pipes, has a shell that waits on one for it. Only where there is no POSIX shell does a broker outlive a killed
supervisor; `troupe ps` shows it then, `troupe up` on the same directory goes on with it and `troupe down` ends it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ops import running
from ops.broker.local import BrokerOptions, LocalKafka
from ops.children import Child, ChildSpec, Restarts
from ops.running import Birth, Entry, Member
from ops.topics import apply
from schemas.errors import OperatorError, TroupeError
from schemas.settings import Settings
from topology import troupe

_SHELL = Path("/bin/sh")
_LAUNCH_POLL_S = 0.02
_BROKER_POLL_S = 0.5


@dataclass(frozen=True)
class Plan:
    """What to run.

    settings: with an absolute `data_dir`; their bootstrap address counts unless `broker` is given.
    broker: the embedded Kafka, None to use another. children: roles, in order of start, made from the settings that
    hold the final address.
    """

    settings: Settings
    broker: BrokerOptions | None
    children: Callable[[Settings], list[ChildSpec]]
    environ: Mapping[str, str]
    tell: Callable[[str], None]
    restarts: Restarts = field(default_factory=Restarts)


class Supervisor:
    """The processes of one system."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._kafka = LocalKafka(plan.broker) if plan.broker else None
        self._bootstrap = plan.settings.kafka.bootstrap_servers
        self._guard: subprocess.Popen[bytes] | None = None
        self._broker_members: tuple[Member, ...] = ()
        self._broker_watch: asyncio.Task[None] | None = None
        self._children: list[Child] = []
        self._started_at = time.time_ns() // 1000

    async def start(self) -> Entry:
        """Start all and return when all are ready. Raises OperatorError or BrokerUnavailable; `stop` follows anyway."""
        if self._kafka is not None and self._plan.broker is not None:
            port = await self._start_broker(self._kafka)
            # From now on this port or none: it is the address that everybody has been told.
            self._kafka = LocalKafka(replace(self._plan.broker, port=port))
        settings = self._plan.settings
        settings = settings.model_copy(
            update={"kafka": settings.kafka.model_copy(update={"bootstrap_servers": self._bootstrap})}
        )
        self._note()
        self._plan.tell(f"Kafka runs at {self._bootstrap}")
        await apply(settings, troupe())
        for spec in self._plan.children(settings):
            self._children.append(Child(spec, self._note, self._plan.tell, self._plan.restarts))
        if self._kafka is not None:
            self._broker_watch = asyncio.create_task(self._keep_broker(self._kafka), name="broker")
        await self._until_ready()
        return self.entry()

    async def stop(self) -> None:
        """Stop all in reverse order, each within its own limit, and forget the system."""
        try:
            hosts = [child for child in self._children if not child.spec.role.startswith("coordinator")]
            await asyncio.gather(*(child.stop() for child in hosts))
            await asyncio.gather(*(child.stop() for child in self._children))
            if self._broker_watch is not None:
                self._broker_watch.cancel()
                await asyncio.wait([self._broker_watch])
            self._release_guard()
            if self._kafka is not None:
                await self._kafka.stop()
        finally:
            running.remove(self._plan.environ, self._plan.settings.data_dir)

    async def until_failed(self) -> None:
        """Wait as long as all is watched over; raises what made a watch end, which nothing should."""
        watches = [asyncio.create_task(child.until_failed()) for child in self._children]
        if self._broker_watch is not None:
            watches.append(self._broker_watch)
        await _first(watches)

    async def _until_ready(self) -> None:
        """Wait for all children; the first that cannot work ends the wait with its error."""
        ready = asyncio.create_task(_all(child.until_ready() for child in self._children))
        await _first([*(asyncio.create_task(child.until_failed()) for child in self._children), ready])
        for child in self._children:
            child.settle()

    def entry(self) -> Entry:
        """The system as it is now."""
        me = Birth.of(os.getpid())
        members = (
            *((Member(role="supervisor", birth=me, state="running"),) if me else ()),
            *self._broker_members,
            *(member for child in self._children if (member := child.member()) is not None),
        )
        return Entry(
            data=self._plan.settings.data_dir,
            bootstrap=self._bootstrap,
            topic_prefix=self._plan.settings.kafka.topic_prefix,
            partitions=self._plan.settings.kafka.partitions,
            started_at=self._started_at,
            members=members,
        )

    def _note(self) -> None:
        try:
            running.write(self._plan.environ, self.entry())
        except OperatorError as error:  # a full disk must not end what runs
            self._plan.tell(f"{error}; {error.hint}")

    # the embedded broker

    async def _start_broker(self, kafka: LocalKafka) -> int:
        starting = asyncio.create_task(kafka.start())
        while not starting.done():  # guarded as soon as it is launched: it takes a second until it is ready
            if pids := kafka.pids():
                self._guard_brokers(pids)
                break
            await asyncio.wait([starting], timeout=_LAUNCH_POLL_S)
        started = await starting
        self._bootstrap = started.bootstrap
        births = [birth for pid in started.pids if (birth := Birth.of(pid))]
        self._broker_members = tuple(
            Member(role="broker", birth=birth, state="running", addresses=tuple(started.bootstrap.split(",")))
            for birth in births
        )
        self._guard_brokers([birth.pid for birth in births])
        return started.port

    async def _keep_broker(self, kafka: LocalKafka) -> None:
        pause_s = self._plan.restarts.pause_s_initial
        while True:
            await asyncio.sleep(_BROKER_POLL_S)
            if kafka.is_alive():
                pause_s = self._plan.restarts.pause_s_initial
                continue
            self._plan.tell(f"broker ended; it is started again in {pause_s:g} s")
            self._broker_members = tuple(
                member.model_copy(update={"state": "restarting"}) for member in self._broker_members
            )
            self._note()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._plan.restarts.pause_s_max)
            try:
                await self._start_broker(kafka)
                self._note()
                self._plan.tell(f"broker is back at {self._bootstrap}")
            except (TroupeError, OSError) as error:
                self._plan.tell(f"broker cannot be started: {error}")

    def _guard_brokers(self, pids: list[int]) -> None:
        """A shell that reads from a pipe of ours and, at its end, asks the brokers to stop."""
        self._release_guard()
        if _SHELL.exists() and pids:
            self._guard = subprocess.Popen(
                [str(_SHELL), "-c", 'read -r _; kill -TERM "$@" 2>/dev/null', "guard", *map(str, pids)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _release_guard(self) -> None:
        # Killed before its pipe is closed: by then the ids may belong to others.
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
            if self._guard.stdin is not None:
                self._guard.stdin.close()
            self._guard = None


async def _all(waits: Iterable[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*waits)


async def _first(tasks: list[asyncio.Task[None]]) -> None:
    """Wait for one task, raise its error, end the others."""
    try:
        done, _waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@asynccontextmanager
async def supervised(plan: Plan) -> AsyncIterator[Supervisor]:
    """A supervisor that is the only one of its data directory, and stopped at the end whatever happens.

    Raises OperatorError if another one has the directory.
    """
    data = plan.settings.data_dir
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(
            f"The directory {data} cannot be made: {error}", hint="choose another with --data"
        ) from error
    lock = FileLock(data / ".supervisor.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise OperatorError(
            f"A system already runs in {data}", hint=f"use it, or stop it with `troupe down --data {data}`"
        ) from None
    try:
        supervisor = Supervisor(plan)
        try:
            yield supervisor
        finally:
            await supervisor.stop()
    finally:
        lock.release()
