from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ops.broker.jars import JarCache, ensure_jars
from ops.broker.java import find_java
from ops.broker.layout import Node, bootstrap, prepare, properties


def nodes(directory: Path, count: int) -> list[Node]:
    return [Node(number, directory, 9000 + number, 9100 + number) for number in range(1, count + 1)]


def meta(node: Node) -> dict[str, str]:
    lines = (node.data / "meta.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_one_broker_keeps_one_copy_and_three_keep_three(tmp_path: Path) -> None:
    alone = properties(*_first(nodes(tmp_path, 1)), {})
    assert (alone["default.replication.factor"], alone["min.insync.replicas"]) == ("1", "1")
    of_three = properties(*_first(nodes(tmp_path, 3)), {})
    assert (of_three["offsets.topic.replication.factor"], of_three["min.insync.replicas"]) == ("3", "2")
    assert of_three["controller.quorum.voters"] == "1@127.0.0.1:9101,2@127.0.0.1:9102,3@127.0.0.1:9103"
    assert bootstrap(nodes(tmp_path, 2)) == "127.0.0.1:9001,127.0.0.1:9002"


def test_nothing_listens_beyond_this_machine(tmp_path: Path) -> None:
    settings = properties(*_first(nodes(tmp_path, 1)), {})
    assert re.findall(r"//([^:]*):", settings["listeners"]) == ["127.0.0.1", "127.0.0.1"]


def test_overrides_win(tmp_path: Path) -> None:
    assert properties(*_first(nodes(tmp_path, 1)), {"num.io.threads": "9"})["num.io.threads"] == "9"


def test_a_session_is_short_only_where_somebody_waits_for_its_end(tmp_path: Path) -> None:
    """Of a broker that was alone and stopped in order nobody does; another start after a crash does, and so do others."""

    def session_s(count: int) -> float:
        return int(properties(*_first(nodes(tmp_path, count)), {})["broker.session.timeout.ms"]) / 1000

    assert session_s(1) == 20  # nothing there yet
    prepare(nodes(tmp_path, 1), nodes(tmp_path, 1)[0], {})
    assert session_s(1) == 3
    (tmp_path / "data-1" / ".kafka_cleanshutdown").touch()
    assert session_s(1) == 20
    assert session_s(3) == 3


def test_formatting_keeps_its_ids_and_all_brokers_share_the_cluster(tmp_path: Path) -> None:
    both = nodes(tmp_path, 2)
    for node in (both[0], both[1], both[0]):
        before = meta(node) if node.data.exists() else None
        prepare(both, node, {})
        assert before in (None, meta(node))
    assert meta(both[0])["cluster.id"] == meta(both[1])["cluster.id"]
    assert meta(both[0])["directory.id"] != meta(both[1])["directory.id"]
    assert both[0].properties_file.stat().st_mode & 0o077 == 0


@pytest.mark.kafka
def test_our_formatting_equals_that_of_kafkas_own_tool(tmp_path: Path) -> None:
    """Everything but ids, times and checksums: a new Kafka version that formats differently fails here."""
    ours, theirs = Node(1, tmp_path / "ours", 9001, 9101), Node(1, tmp_path / "theirs", 9001, 9101)
    for node in (ours, theirs):
        node.directory.mkdir()
    prepare([ours], ours, {})
    theirs.properties_file.write_text(
        "".join(f"{name}={value}\n" for name, value in properties(theirs, [theirs], {}).items())
    )
    class_path = ":".join(map(str, ensure_jars(JarCache.default())))
    tool = [str(find_java().executable), "-XX:TieredStopAtLevel=1", "-cp", class_path, "kafka.tools.StorageTool"]
    subprocess.run(
        [*tool, "format", "-t", meta(ours)["cluster.id"], "-c", str(theirs.properties_file)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert meta(theirs).keys() == meta(ours).keys()
    assert meta(theirs)["version"] == meta(ours)["version"]
    assert sorted(each.name for each in theirs.data.iterdir()) == sorted(each.name for each in ours.data.iterdir())
    assert _records(theirs) == _records(ours)


def _first(all_nodes: list[Node]) -> tuple[Node, list[Node]]:
    return all_nodes[0], all_nodes


def _records(node: Node) -> list[bytes]:
    """The batches of the checkpoint with CRC, times and the header record's own time blanked."""
    raw, batches, at = (node.data / "bootstrap.checkpoint").read_bytes(), [], 0
    while at < len(raw):
        size = 12 + int.from_bytes(raw[at + 8 : at + 12], "big")
        batch = bytearray(raw[at : at + size])
        batch[17:21] = bytes(4)  # CRC
        batch[27:43] = bytes(16)  # first and last append time
        if int.from_bytes(batch[21:23], "big") & 0x20 and at == 0:
            batch = batch[:61]  # the header record holds the time of writing
        batches.append(bytes(batch))
        at += size
    return batches
