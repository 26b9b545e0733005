from __future__ import annotations

import os
import socket
from pathlib import Path

from ops.broker import ports


def test_a_listening_socket_makes_a_port_taken_and_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert not ports.is_free(port)
        assert f"process {os.getpid()} " in ports.owner(port)
    assert ports.is_free(port)


def test_a_listener_on_all_addresses_counts_too() -> None:
    with socket.create_server(("0.0.0.0", 0)) as other:
        assert not ports.is_free(other.getsockname()[1])


def test_preferred_ports_come_first_and_taken_ones_are_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as soon_free:
        taken, free = other.getsockname()[1], soon_free.getsockname()[1]
        soon_free.close()
        chosen = ports.choose(3, preferred=(taken, free))
        assert chosen[0] == free
        assert taken not in chosen
        assert len(set(chosen)) == 3
        assert free not in ports.choose(1, preferred=(free,), avoid={free})


def test_other_ports_lie_where_the_system_hands_out_none() -> None:
    low, high = (int(each) for each in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert all(not low <= port <= high for port in ports.choose(20))
