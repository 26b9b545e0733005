"""A real Apache Kafka inside the product, from pip alone.

Nobody should have to install a broker to see the system work, and a broker that is simulated would prove nothing. So
this runs the real one: fetch and verify the jars, format, start, wait until clients can work, stop. All of it is safe
to repeat: a start finds a running broker and uses it, finds the data of an earlier one and goes on with it, and two
starts at the same time end with one broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ops.broker import placement, ports, process
from ops.broker.jars import JarCache, ensure_jars
from ops.broker.java import aot_flags, command, find_java
from ops.broker.layout import bootstrap, prepare
from ops.broker.process import Launched
from ops.broker.ready import until_ready
from ops.broker.state import State, locked
from schemas.errors import BrokerUnavailable, OperatorError
from schemas.settings import Kafka

_PORT_ATTEMPTS = 3  # how often a start is repeated when another program takes the chosen port before Java does


@dataclass(frozen=True)
class BrokerOptions:
    """How the embedded Kafka is to run.

    `directory` holds data, settings, log and state. `port` 0 means: 9092 if it is free, else another free one; with
    more than one broker the others follow. `aot` uses the ahead-of-time cache if one was trained. `overrides` are
    Kafka's own settings and win over ours. `answer_timeout_s`: longest wait for one answer of a broker.
    """

    directory: Path
    port: int = 0
    brokers: int = 1
    aot: bool = True
    ready_timeout_s: float = 60.0
    stop_timeout_s: float = 20.0
    answer_timeout_s: float = Kafka().metadata_timeout_seconds
    overrides: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Started:
    """What a start came to: where clients connect, who runs it, and the seconds spent on fetching and on starting.

    `port` is that of the first broker; `reused` says that all of them ran already.
    """

    bootstrap: str
    port: int
    pids: tuple[int, ...]
    reused: bool
    fetch_s: float
    start_s: float


class _Vanished(Exception):
    """A running broker that was to be used again ended while it was waited for."""


class _PortLost(Exception):
    """Between our choice of a port and Java's use of it another program took it."""


class LocalKafka:
    """The Kafka of one directory. Several of these objects, in several processes, may look at the same directory."""

    def __init__(self, options: BrokerOptions) -> None:
        self._options = options
        self._directory = options.directory.expanduser().resolve()

    @property
    def bootstrap(self) -> str:
        """The address list for clients.

        Raises OperatorError if no broker was ever started here.
        """
        nodes = State.load(self._directory).placed(self._directory)
        if not nodes:
            raise OperatorError(f"No Kafka was started in {self._directory} yet", hint="troupe up")
        return bootstrap(nodes)

    def pids(self) -> list[int]:
        """The ids of the brokers that are alive."""
        return _pids(State.load(self._directory), self._directory)

    def is_alive(self) -> bool:
        """Whether every broker of the cluster is alive. Says nothing about whether it answers."""
        state = State.load(self._directory)
        return bool(state.nodes) and len(state.alive(self._directory)) == len(state.nodes)

    async def start(self) -> Started:
        """Return when clients can work; starts whatever does not run yet.

        Raises OperatorError, with the next step as its hint, when the jars, Java or a port cannot be had, when a
        broker ends while it starts, or when it is not ready in time. Brokers that this call started are ended then.
        """
        begun_s = time.monotonic()
        self._make_directory()
        launch_command = await asyncio.to_thread(self._launch_command)
        fetched_s = time.monotonic()
        state, reused = await self._start_until(launch_command, fetched_s + self._options.ready_timeout_s)
        return Started(
            bootstrap=bootstrap(state.placed(self._directory)),
            port=state.nodes[0].port,
            pids=tuple(_pids(state, self._directory)),
            reused=reused,
            fetch_s=fetched_s - begun_s,
            start_s=time.monotonic() - fetched_s,
        )

    async def stop(self) -> list[int]:
        """Stop all brokers; their data stays. Returns the ids of those that had to be killed after the timeout.

        Nothing happens if none runs. Raises OperatorError if the directory stays locked by another command.
        """
        if not self._directory.is_dir():
            return []
        async with locked(self._directory, self._options.ready_timeout_s):
            state = State.load(self._directory)
            killed = await process.end(state.alive(self._directory).values(), self._options.stop_timeout_s)
            for each in state.nodes:
                state = state.noting(each.id, None)
            if state.nodes:
                state.save(self._directory)
        return killed

    def _make_directory(self) -> None:
        if "," in str(self._directory):
            raise OperatorError(
                f"The path {self._directory} has a comma, at which Kafka would split it",
                hint="choose another directory with --data",
            )
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OperatorError(
                f"The directory {self._directory} cannot be made: {error}", hint="choose another one with --data"
            ) from error

    def _launch_command(self) -> list[str]:
        java = find_java()  # before the jars, so that nobody waits for a download only to read that Java is missing
        cache = JarCache.default()
        class_path = ensure_jars(cache)
        return command(java, class_path, aot_flags(java, cache) if self._options.aot else [])

    async def _start_until(self, launch_command: Sequence[str], deadline_s: float) -> tuple[State, bool]:
        lost = 0
        while True:
            try:
                return await self._start_once(launch_command, deadline_s)
            except _PortLost as error:
                lost += 1
                state = State.load(self._directory)
                if self._options.port or lost >= _PORT_ATTEMPTS:
                    taken = [node.port for node in state.placed(self._directory) if not ports.is_free(node.port)]
                    raise ports.taken(taken[0] if taken else state.nodes[0].port) from error
            except _Vanished as error:
                if time.monotonic() >= deadline_s:
                    raise self._not_ready(str(error), ()) from error

    async def _start_once(self, launch_command: Sequence[str], deadline_s: float) -> tuple[State, bool]:
        launched: list[Launched] = []

        def check_alive() -> None:
            for each in launched:
                if each.process.poll() is not None:
                    raise _ended(each)
            if len(state.alive(self._directory)) < len(state.nodes):
                raise _Vanished("a running broker ended while it was waited for")

        try:
            async with locked(self._directory, self._options.ready_timeout_s):
                state = await self._launch(launch_command, launched)
            nodes = state.placed(self._directory)
            await until_ready(
                nodes, check_alive, max(0.0, deadline_s - time.monotonic()), self._options.answer_timeout_s
            )
        except BrokerUnavailable as error:
            await self._abandon(launched)
            raise self._not_ready(str(error), launched) from error
        except OSError as error:
            await self._abandon(launched)
            raise OperatorError(
                f"The directory {self._directory} cannot be written: {error}",
                hint="make room or change its owner, or choose another one with --data",
            ) from error
        except BaseException:  # cancelled as well: otherwise nobody would know of the brokers that were begun
            await self._abandon(launched)
            raise
        return state, not launched

    async def _launch(self, launch_command: Sequence[str], launched: list[Launched]) -> State:
        """Launch each broker that does not run and add it to `launched` at once, so that a failure can end it."""
        state = await asyncio.to_thread(placement.remembered, self._directory, self._options.brokers)
        state = await placement.with_ports(state, self._directory, self._options.port)
        state.save(self._directory)  # before the launch: a broker that nobody noted is then found with its port
        alive = state.alive(self._directory)
        nodes = state.placed(self._directory)
        for node in nodes:
            if node.id not in alive:
                await asyncio.to_thread(prepare, nodes, node, self._options.overrides)
                broker = process.launch(node, launch_command)
                launched.append(broker)
                state = state.noting(node.id, broker.birth)
                state.save(self._directory)
        return state

    async def _abandon(self, launched: Sequence[Launched]) -> None:
        """End brokers that were begun in vain, and the notes of them: the next start need not wait for their ports."""
        if not launched:
            return
        found = (process.find(each.birth, each.node) for each in launched)
        await process.end([running for running in found if running], self._options.stop_timeout_s)
        async with locked(self._directory, self._options.ready_timeout_s):
            state = State.load(self._directory)
            for each in state.nodes:
                if any(each.process == broker.birth for broker in launched):
                    state = state.noting(each.id, None)
            state.save(self._directory)

    def _not_ready(self, reason: str, launched: Sequence[Launched]) -> OperatorError:
        tails = "".join(f"\n{tail}" for each in launched if (tail := process.log_tail(each.node, each.log_start)))
        return OperatorError(
            f"{reason}; the log is in {self._directory}{tails}",
            hint="try again with a longer limit, or free memory and processor time on this machine",
        )


def _pids(state: State, directory: Path) -> list[int]:
    return [running.pid for running in state.alive(directory).values()]


def _ended(broker: Launched) -> Exception:
    tail = process.log_tail(broker.node, broker.log_start)
    if "Address already in use" in tail:
        return _PortLost()
    return OperatorError(
        f"Kafka ended with code {broker.process.returncode} while starting. "
        f"The end of {broker.node.log_file}:\n{tail or '(nothing was written)'}",
        hint="the last lines name the cause; a setting of yours, a full disk and a locked directory are the usual ones",
    )
