"""A real Apache Kafka inside the product, from pip alone.

Nobody should have to install a broker to see the system work, and a broker that is simulated would prove nothing. So
this runs the real one: fetch and verify the jars, format, start, wait until clients can work, stop. All of it is safe
to repeat: a start finds a running broker and uses it, finds the data of an earlier one and goes on with it, and two
starts at the same time end with one broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from ops.broker import ports, process
from ops.broker.jars import JarCache, ensure_jars
from ops.broker.java import Flavour, Java, aot_flags, command, find_java
from ops.broker.layout import Node, bootstrap, prepare
from ops.broker.ready import until_ready
from ops.broker.state import NodeState, State
from schemas.errors import BrokerUnavailable, OperatorError

_POLL_S = 0.05
_PORT_GRACE_S = 5.0  # a killed broker of ours keeps its port for some milliseconds, on a loaded machine for longer
_PORT_ATTEMPTS = 3  # how often a start is repeated when another program takes the chosen port before Java does


@dataclass(frozen=True)
class BrokerOptions:
    """How the embedded Kafka is to run.

    `directory` holds data, settings, log and state. `port` 0 means: 9092 if it is free, else another free one; with
    more than one broker the others follow. `overrides` are Kafka's own settings and win over ours.
    """

    directory: Path
    port: int = 0
    brokers: int = 1
    jvm: Flavour = "dev"
    aot: bool = True
    ready_timeout_s: float = 60.0
    stop_timeout_s: float = 20.0
    overrides: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Started:
    """What a start came to: where clients connect, who runs it, and the seconds spent on fetching and on starting."""

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

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.port = port


class LocalKafka:
    """The Kafka of one directory. Several of these objects, in several processes, may look at the same directory."""

    def __init__(self, options: BrokerOptions) -> None:
        self._options = options
        self._directory = options.directory.expanduser().resolve()
        self._lock = FileLock(self._directory / ".lock", thread_local=False)

    @property
    def bootstrap(self) -> str:
        """The address list for clients.

        Raises OperatorError if no broker was ever started here.
        """
        nodes = self._nodes(State.load(self._directory))
        if not nodes:
            raise OperatorError(f"No Kafka was started in {self._directory} yet", hint="troupe up")
        return bootstrap(nodes)

    def pids(self) -> list[int]:
        """The ids of the brokers that are alive."""
        return [running.pid for running in self._alive(State.load(self._directory)).values()]

    def is_alive(self) -> bool:
        """Whether every broker of the cluster is alive. Says nothing about whether it answers."""
        state = State.load(self._directory)
        return bool(state.nodes) and len(self._alive(state)) == len(state.nodes)

    async def start(self) -> Started:
        """Return when clients can work; starts whatever does not run yet.

        Raises OperatorError, with the next step as its hint, when the jars, Java or a port cannot be had, when a
        broker ends while it starts, or when it is not ready in time. Brokers that this call started are ended then.
        """
        begun = time.monotonic()
        self._make_directory()
        java = await asyncio.to_thread(find_java)
        cache = JarCache.default()
        class_path = await asyncio.to_thread(ensure_jars, cache)
        fetched = time.monotonic()
        launch_command = command(java, class_path, self._options.jvm, self._aot_flags(java, cache))
        deadline = fetched + self._options.ready_timeout_s
        attempt = 0
        while True:
            attempt += 1
            try:
                state, reused = await self._start_once(launch_command, deadline)
                break
            except _PortLost as lost:
                if self._options.port or attempt >= _PORT_ATTEMPTS:
                    raise ports.taken(lost.port) from lost
            except _Vanished as gone:
                if time.monotonic() >= deadline:
                    raise self._not_ready(str(gone)) from gone
        nodes = self._nodes(state)
        return Started(
            bootstrap=bootstrap(nodes),
            port=nodes[0].port,
            pids=tuple(running.pid for running in self._alive(state).values()),
            reused=reused,
            fetch_s=fetched - begun,
            start_s=time.monotonic() - fetched,
        )

    async def stop(self) -> list[int]:
        """Stop all brokers; their data stays. Returns the ids of those that had to be killed after the timeout.

        Nothing happens if none runs. Raises OperatorError if the directory stays locked by another command.
        """
        if not self._directory.is_dir():
            return []
        async with self._locked():
            state = State.load(self._directory)
            killed = await process.end(self._alive(state).values(), self._options.stop_timeout_s)
            if state.nodes:
                stopped = tuple(each.model_copy(update={"process": None}) for each in state.nodes)
                State(nodes=stopped).save(self._directory)
        return killed

    # one start

    async def _start_once(self, launch_command: list[str], deadline: float) -> tuple[State, bool]:
        launched: list[process.Launched] = []
        try:
            async with self._locked():
                state = await self._with_ports(await asyncio.to_thread(self._remembered))
                alive = self._alive(state)
                state.save(self._directory)
                nodes = self._nodes(state)
                for node in nodes:
                    if node.id not in alive:
                        await asyncio.to_thread(prepare, nodes, node, self._options.overrides)
                        launched.append(process.launch(node, launch_command))
                        state = _noted(state, launched[-1])
                        state.save(self._directory)

            def check_alive() -> None:
                for each in launched:
                    if each.process.poll() is not None:
                        raise self._ended(each)
                if len(self._alive(state)) < len(nodes):
                    raise _Vanished("a running broker ended while it was waited for")

            await until_ready(nodes, check_alive, max(0.0, deadline - time.monotonic()))
        except BrokerUnavailable as error:
            await self._abandon(launched)
            raise self._not_ready(str(error), launched) from error
        except BaseException:  # cancelled as well: nobody would know of the brokers that were begun
            await self._abandon(launched)
            raise
        return state, not launched

    async def _abandon(self, launched: list[process.Launched]) -> None:
        found = (process.find(each.birth, each.node) for each in launched)
        await process.end([running for running in found if running], self._options.stop_timeout_s)

    def _remembered(self) -> State:
        """The state on disk, completed by brokers that run without a note, or a new one."""
        state = State.load(self._directory)
        if not state.nodes:
            count = len(list(self._directory.glob("data-*/meta.properties"))) or self._options.brokers
            state = State(nodes=tuple(NodeState(id=at, port=0, controller_port=0) for at in range(1, count + 1)))
        if len(state.nodes) != self._options.brokers:
            raise OperatorError(
                f"{self._directory} holds a cluster of {len(state.nodes)} brokers, "
                f"{self._options.brokers} were asked for",
                hint="leave the number out, or use another directory",
            )
        alive = self._alive(state)
        nodes = [
            each if each.id in alive else each.model_copy(update={"process": process.find_unnoted(self._node(each))})
            for each in state.nodes
        ]
        return State(nodes=tuple(nodes))

    # ports

    async def _with_ports(self, state: State) -> State:
        """The state with ports that are free now, for each broker that does not run."""
        if self._alive(state):
            # Those that run know the ports of the others, so nothing may move.
            if self._options.port and self._options.port != state.nodes[0].port:
                raise OperatorError(
                    f"The Kafka of {self._directory} already runs on port {state.nodes[0].port}",
                    hint="leave --port out, or run `troupe down` first",
                )
            return state
        remembered = tuple(each.port for each in state.nodes)
        await self._wait_for_own_ports(remembered)
        count = len(state.nodes)
        if self._options.port:
            wanted = range(self._options.port, self._options.port + count)
            for port in wanted:
                if not ports.is_free(port):
                    raise ports.taken(port)
            clients = tuple(wanted)
        else:
            preferred = tuple(filter(None, remembered)) or tuple(range(ports.FIRST_CHOICE, ports.FIRST_CHOICE + count))
            clients = ports.choose(count, preferred=preferred)
        controllers = ports.choose(count, avoid=clients)
        pairs = zip(state.nodes, clients, controllers, strict=True)
        return State(
            nodes=tuple(each.model_copy(update={"port": own, "controller_port": two}) for each, own, two in pairs)
        )

    async def _wait_for_own_ports(self, remembered: tuple[int, ...]) -> None:
        deadline = time.monotonic() + _PORT_GRACE_S
        for port in filter(None, remembered):
            while not ports.is_free(port) and time.monotonic() < deadline:  # noqa: ASYNC110 (no event tells of a port)
                await asyncio.sleep(_POLL_S)

    # helpers

    def _aot_flags(self, java: Java, cache: JarCache) -> list[str]:
        return aot_flags(java, cache) if self._options.aot else []

    def _make_directory(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OperatorError(
                f"The directory {self._directory} cannot be made: {error}", hint="choose another one with --data"
            ) from error

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Only one command at a time changes this directory; bounded by the ready timeout."""
        deadline = time.monotonic() + self._options.ready_timeout_s
        while True:
            try:
                self._lock.acquire(blocking=False)
                break
            except Timeout:
                if time.monotonic() >= deadline:
                    raise OperatorError(
                        f"Another command has been starting or stopping the Kafka of {self._directory} "
                        f"for more than {self._options.ready_timeout_s:.0f} s",
                        hint="wait for it, then try again",
                    ) from None
            await asyncio.sleep(_POLL_S)
        try:
            yield
        finally:
            self._lock.release()

    def _node(self, state: NodeState) -> Node:
        return state.node(self._directory)

    def _nodes(self, state: State) -> list[Node]:
        return [self._node(each) for each in state.nodes]

    def _alive(self, state: State) -> dict[int, psutil.Process]:
        found = {each.id: process.find(each.process, self._node(each)) for each in state.nodes}
        return {node_id: running for node_id, running in found.items() if running is not None}

    def _ended(self, broker: process.Launched) -> Exception:
        tail = process.log_tail(broker.node, broker.log_start)
        if "Address already in use" in tail:
            return _PortLost(broker.node.port)
        return OperatorError(
            f"Kafka ended with code {broker.process.returncode} while starting. "
            f"The end of {broker.node.log_file}:\n{tail or '(nothing was written)'}",
            hint="troupe doctor",
        )

    def _not_ready(self, reason: str, launched: list[process.Launched] | None = None) -> OperatorError:
        tails = "".join(f"\n{tail}" for each in launched or () if (tail := process.log_tail(each.node, each.log_start)))
        return OperatorError(
            f"{reason}; its log is in {self._directory}{tails}",
            hint="try again with a longer limit, or free memory and processor time on this machine",
        )


def _noted(state: State, broker: process.Launched) -> State:
    return State(
        nodes=tuple(
            each.model_copy(update={"process": broker.birth}) if each.id == broker.node.id else each
            for each in state.nodes
        )
    )
