"""What a broker finds in its directory before it starts: settings, and a formatted data directory.

Kafka's own formatting tool costs a second JVM start, which would double the time to the first task. For one pinned
version what it writes is constant except for the ids, so it is written here; a test runs the real tool and compares.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.broker.ports import HOST

# The feature levels of a new cluster as the formatting tool of exactly this version records them, without any id:
# metadata 4.3-IV0, eligible leader replicas 1, group 1, share 1, streams 1, transaction 2.
BOOTSTRAP_CHECKPOINT = base64.b64decode(
    "AAAAAAAAAAAAAABHAAAAAAIgIqIWACAAAAAAAAABofsdD5MAAAGh+x0Pk///////////////////AAAAASoAAAAIAAAAAxYAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAQAAAPEAAAAAAnODQw0AAAAAAAUAAAGh+x0PngAAAaH7HQ+e//////////////////8AAAAGOgAAAAEuAQwAEW1ldGFkYXRhLnZl"
    "cnNpb24AHgAAWgAAAgFOAQwAIWVsaWdpYmxlLmxlYWRlci5yZXBsaWNhcy52ZXJzaW9uAAEAADQAAAQBKAEMAA5ncm91cC52ZXJzaW9uAAEAAD"
    "QAAAYBKAEMAA5zaGFyZS52ZXJzaW9uAAEAADgAAAgBLAEMABBzdHJlYW1zLnZlcnNpb24AAQAAQAAACgE0AQwAFHRyYW5zYWN0aW9uLnZlcnNp"
    "b24AAgAAAAAAAAAAAAcAAAA/AAAAAAIcm+tJACAAAAAAAAABofsdD58AAAGh+x0Pn///////////////////AAAAARoAAAAIAAAABAYAAAAA"
)

_CLEAN_STOP = ".kafka_cleanshutdown"
"""Kafka's own mark in a data directory: written at the end of a clean stop, removed before the broker serves again."""

_SHORT_SESSION_MS = 3_000
_CALM_SESSION_MS = 20_000

_INTERNAL_TOPICS = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")


@dataclass(frozen=True)
class Node:
    """One broker, which is also a controller: its number from 1, the directory of the cluster, and its ports."""

    id: int
    directory: Path
    port: int
    controller_port: int

    @property
    def data(self) -> Path:
        return self.directory / f"data-{self.id}"

    @property
    def properties_file(self) -> Path:
        return self.directory / f"server-{self.id}.properties"

    @property
    def log_file(self) -> Path:
        return self.directory / f"broker-{self.id}.log"


def bootstrap(nodes: Sequence[Node]) -> str:
    """The address list that clients are given."""
    return ",".join(f"{HOST}:{node.port}" for node in nodes)


def properties(node: Node, nodes: Sequence[Node], overrides: Mapping[str, str]) -> dict[str, str]:
    """The settings of one broker; `overrides` win."""
    replicas = str(min(3, len(nodes)))
    in_sync = "2" if len(nodes) >= 3 else "1"
    settings = {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(f"{each.id}@{HOST}:{each.controller_port}" for each in nodes),
        "listeners": f"PLAINTEXT://{HOST}:{node.port},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{node.port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(node.data),
        # A misspelt topic must be an error, and ours are created with settings that a default topic would not have.
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "broker.session.timeout.ms": str(_session_ms(node, nodes)),
        "broker.heartbeat.interval.ms": "500",
        # Kafka's half second is two writes to disk a second for nothing, with nobody at work.
        "metadata.max.idle.interval.ms": "5000",
        # A group of one machine need not wait for members that may still come.
        "group.initial.rebalance.delay.ms": "0",
        # Kafka's lower bound of 6 s would make every takeover at least that long.
        "group.min.session.timeout.ms": "2000",
        # A laptop that was closed for two weeks must not begin again at the start of every topic.
        "offsets.retention.minutes": str(365 * 24 * 60),
        # Sizes for one small machine: threads, and the buffers that would otherwise fill a 256 MB heap.
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
        "num.recovery.threads.per.data.dir": "2",
        "log.cleaner.dedupe.buffer.size": str(2 * 1024 * 1024),
        "log.index.size.max.bytes": str(1024 * 1024),
    }
    for topic in _INTERNAL_TOPICS:
        settings[f"{topic}.num.partitions"] = "1"
        settings[f"{topic}.replication.factor"] = replicas
    settings["transaction.state.log.min.isr"] = in_sync
    settings["share.coordinator.state.topic.min.isr"] = in_sync
    return settings | dict(overrides)


def _session_ms(node: Node, nodes: Sequence[Node]) -> int:
    """How long the controller believes in a broker that it does not hear: short only where somebody waits for the end.

    Others wait for it to take over. After a crash the broker itself does, as it may not return while its old session
    lasts; Kafka's 9 s make that 10.6 s. Else a short session only does harm: on a machine that is busy for some seconds
    the broker's heartbeats come too late, and all clients are turned away from a broker that is well.
    """
    crashed = (node.data / "meta.properties").is_file() and not (node.data / _CLEAN_STOP).is_file()
    return _SHORT_SESSION_MS if crashed or len(nodes) > 1 else _CALM_SESSION_MS


def prepare(nodes: Sequence[Node], node: Node, overrides: Mapping[str, str]) -> None:
    """Write the settings of a node and format its data directory if that was not done before."""
    node.properties_file.touch(mode=0o600)  # overrides may hold a password
    text = "".join(f"{name}={_escaped(value)}\n" for name, value in properties(node, nodes, overrides).items())
    node.properties_file.write_text(text, encoding="latin-1")
    _format(node, cluster_id(nodes) or _kafka_id())


def _escaped(value: str) -> str:
    """A value as Java reads it: backslashes doubled, everything beyond ASCII as UTF-16 escapes."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return "".join(chr(code) if 0x20 <= code < 0x7F else f"\\u{code:04x}" for code in codes)


def cluster_id(nodes: Sequence[Node]) -> str | None:
    """The id that all formatted nodes carry; None before the first was formatted."""
    for node in nodes:
        meta = node.data / "meta.properties"
        if meta.is_file():
            for line in meta.read_text(encoding="utf-8").splitlines():
                name, _, value = line.partition("=")
                if name.strip() == "cluster.id":
                    return value.strip()
    return None


def _format(node: Node, own_cluster_id: str) -> None:
    meta = node.data / "meta.properties"
    if meta.is_file():
        return
    node.data.mkdir(parents=True, exist_ok=True)
    (node.data / "bootstrap.checkpoint").write_bytes(BOOTSTRAP_CHECKPOINT)
    scratch = meta.with_suffix(".part")
    lines = ("version=1", f"cluster.id={own_cluster_id}", f"node.id={node.id}", f"directory.id={_kafka_id()}")
    scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")
    scratch.replace(meta)  # last, because its presence is what marks the directory as formatted


def _kafka_id() -> str:
    """A random id in Kafka's form: 22 letters, of which the first may not be a dash."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()).startswith("-"):
        pass
    return text
