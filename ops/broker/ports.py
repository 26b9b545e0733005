"""Which TCP ports a broker gets, and who sits on one that is taken.

A port given by the user is a promise: it is used, or the error says who owns it. Without one, 9092 is tried first
because every Kafka tool assumes it. All others lie outside the range from which the system hands out ports for
outgoing connections: a client's socket could otherwise sit on a broker's port while the broker restarts.
"""

from __future__ import annotations

import socket
from collections.abc import Container, Iterator
from pathlib import Path

import psutil

from schemas.errors import OperatorError

HOST = "127.0.0.1"
FIRST_CHOICE = 9092

_CANDIDATES = range(19_092, 65_000)
_EPHEMERAL_SETTING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EPHEMERAL_ELSEWHERE = (49_152, 65_535)  # the registered dynamic range, which the other systems use


def is_free(port: int) -> bool:
    """Whether a server could listen on the port of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: old connections do not count
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def owner(port: int) -> str:
    """Words for the process that listens on the port: its id, name and the end of its command line."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                process = psutil.Process(connection.pid)
                return f"process {process.pid} ({process.name()}: …{' '.join(process.cmdline())[-60:]})"
    except psutil.Error:
        pass
    return "a process that this user may not see"


def taken(port: int) -> OperatorError:
    """The error for a port that was asked for and is not to be had."""
    return OperatorError(
        f"Port {port} is taken by {owner(port)}",
        hint="stop that process, choose another port with --port, leave --port out to get a free one, "
        f"or use what runs there: --broker {HOST}:{port}",
    )


def choose(count: int, *, preferred: tuple[int, ...] = (), avoid: Container[int] = ()) -> tuple[int, ...]:
    """`count` free ports: the preferred ones that are free, then free ones outside the ephemeral range.

    Raises OperatorError if the machine has none left.
    """
    chosen: list[int] = []
    for port in (*preferred, *_outside_ephemeral()):
        if len(chosen) == count:
            break
        if port not in avoid and port not in chosen and is_free(port):
            chosen.append(port)
    if len(chosen) < count:
        raise OperatorError("No free TCP port is left for Kafka", hint="close programs that listen, or give --port")
    return tuple(chosen)


def _outside_ephemeral() -> Iterator[int]:
    low, high = _ephemeral_range()
    return (port for port in _CANDIDATES if not low <= port <= high)


def _ephemeral_range() -> tuple[int, int]:
    try:
        low, high = _EPHEMERAL_SETTING.read_text(encoding="ascii").split()
        return int(low), int(high)
    except (OSError, ValueError):
        return _EPHEMERAL_ELSEWHERE
