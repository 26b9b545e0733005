"""Decide, before a start, which brokers a directory has and on which ports they will listen.

The directory is believed in this order: its state file, the data in it, the options of this start. A running broker is
never moved; one that does not run gets its old port back if that is possible, and another if it was not asked for by
number.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from ops.broker import ports, process
from ops.broker.layout import Node
from ops.broker.state import NodeState, State
from schemas.errors import OperatorError

_POLL_S = 0.05
_PORT_GRACE_S = 5.0  # a killed broker keeps its port for some milliseconds, on a loaded machine for longer


def remembered(directory: Path, brokers: int) -> State:
    """The brokers of a directory, with those of its processes that run, or `brokers` new ones.

    Raises OperatorError if the directory holds another number of them, or a broker that nobody can address any more.
    """
    state = State.load(directory)
    if not state.nodes:
        count = len(list(directory.glob("data-*/meta.properties"))) or brokers
        state = State(nodes=tuple(NodeState(id=number) for number in range(1, count + 1)))
    if len(state.nodes) != brokers:
        raise OperatorError(
            f"{directory} holds a cluster of {len(state.nodes)} brokers, {brokers} were asked for",
            hint=f"give --brokers {len(state.nodes)}, or use another directory",
        )
    alive = state.alive(directory)
    for each, node in zip(state.nodes, state.placed(directory), strict=True):
        if each.id not in alive and each.process is None:
            state = state.noting(each.id, _unnoted(node))
    return state


def _unnoted(node: Node) -> process.Birth | None:
    """A broker whose starter was killed in the moment between the launch and the note of it."""
    birth = process.find_unnoted(node)
    if birth is not None and not node.port:
        raise OperatorError(
            f"The Kafka of {node.directory} runs as process {birth.pid}, but its state file is gone",
            hint=f"end it with `kill {birth.pid}`, then start again; its data stays",
        )
    return birth


async def with_ports(state: State, directory: Path, port: int) -> State:
    """The state with ports on which every broker that does not run can be started; `port` 0 means any.

    Raises OperatorError if `port` is taken, or the directory's Kafka already runs on another one.
    """
    if state.alive(directory):
        # Those that run know the ports of the others, so nothing may move.
        if port and port != state.nodes[0].port:
            raise OperatorError(
                f"The Kafka of {directory} already runs on port {state.nodes[0].port}",
                hint="leave --port out, or run `troupe down` first",
            )
        return state
    await _own_ports_freed(state)
    clients = _asked_for(port, len(state.nodes)) if port else _free(state)
    controllers = ports.choose(len(state.nodes), avoid=clients)
    pairs = zip(state.nodes, clients, controllers, strict=True)
    return State(nodes=tuple(NodeState(id=each.id, port=client, controller_port=own) for each, client, own in pairs))


def _asked_for(first: int, count: int) -> tuple[int, ...]:
    wanted = tuple(range(first, first + count))
    for port in wanted:
        if not ports.is_free(port):
            raise ports.taken(port)
    return wanted


def _free(state: State) -> tuple[int, ...]:
    count = len(state.nodes)
    before = tuple(each.port for each in state.nodes if each.port)
    return ports.choose(count, preferred=before or tuple(range(ports.FIRST_CHOICE, ports.FIRST_CHOICE + count)))


async def _own_ports_freed(state: State) -> None:
    deadline = time.monotonic() + _PORT_GRACE_S
    for each in state.nodes:
        killed = each.process is not None  # a clean stop leaves no process in the state
        while killed and not ports.is_free(each.port) and time.monotonic() < deadline:  # noqa: ASYNC110 (no event)
            await asyncio.sleep(_POLL_S)
