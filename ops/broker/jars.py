"""The Apache Kafka jars that the embedded broker runs, pinned byte by byte.

An embedded broker is only worth having if it is the same on every machine, so the lock file names each jar with its
SHA-256 and size, and no file gets its final name before it has been checked against it. A jar that was checked is
given a fixed modification time: that is the mark of "verified", it makes the check of a warm start one `stat` per
jar, and the JVM's ahead-of-time cache, which compares times, survives a copied folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from ops.broker.fetch import FetchLimits, Jar, download
from schemas.errors import OperatorError

KAFKA_VERSION = "4.3.1"
LOCK_FILE = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.lock")

_DEFAULT_LIMITS = FetchLimits()
_VERIFIED_MTIME_S = 1_577_836_800  # 2020-01-01 UTC; any fixed time that no real download has


@dataclass(frozen=True)
class JarCache:
    """Where the jars of one Kafka version lie. `root` may be on a read-only disk if it is complete."""

    root: Path

    @property
    def jars(self) -> Path:
        return self.root / "jars"

    @classmethod
    def default(cls) -> JarCache:
        """`$TROUPE_CACHE`, else the user's cache directory, with one folder per Kafka version."""
        named = os.environ.get("TROUPE_CACHE")
        base = Path(named).expanduser() if named else user_cache_path("troupe")
        return cls(base.resolve() / f"kafka-{KAFKA_VERSION}")


def read_lock(path: Path = LOCK_FILE) -> tuple[Jar, ...]:
    """The jars in class path order."""
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#"))
    return tuple(Jar(coordinate, sha256, int(size)) for coordinate, sha256, size in rows)


def ensure_jars(cache: JarCache, limits: FetchLimits = _DEFAULT_LIMITS) -> list[Path]:
    """The class path of the broker; fetches what is missing or damaged.

    Processes that start at the same time share one download: the others wait up to `limits.lock_wait_s`.

    Raises OperatorError when a jar can neither be found nor fetched, or when the extra `local` is not installed.
    """
    locked = read_lock()
    if _unverified(locked, cache.jars):
        try:
            cache.jars.mkdir(parents=True, exist_ok=True)
            with FileLock(cache.root / ".fetch.lock", timeout=limits.lock_wait_s):
                _complete(locked, cache, limits)
        except Timeout:
            raise OperatorError(
                f"Another process has been fetching the Apache Kafka jars for more than {limits.lock_wait_s:.0f} s",
                hint=f"wait for it, or remove {cache.root / '.fetch.lock'} if no such process runs, and try again",
            ) from None
        except OSError as error:
            if all(jar.matches(cache.jars / jar.filename) for jar in _unverified(locked, cache.jars)):
                return [cache.jars / jar.filename for jar in locked]  # complete, on a disk that takes no mark
            raise OperatorError(
                f"The jar cache {cache.root} cannot be written: {error}",
                hint="set TROUPE_CACHE to a directory that you can write to, with 50 MB free",
            ) from error
    return [cache.jars / jar.filename for jar in locked]


def _complete(locked: Iterable[Jar], cache: JarCache, limits: FetchLimits) -> None:
    missing = [jar for jar in _unverified(locked, cache.jars) if not jar.matches(cache.jars / jar.filename)]
    if missing:
        download(missing, cache.jars, limits, title=f"Apache Kafka {KAFKA_VERSION}")
    for jar in _unverified(locked, cache.jars):
        os.utime(cache.jars / jar.filename, (_VERIFIED_MTIME_S, _VERIFIED_MTIME_S))


def _unverified(locked: Iterable[Jar], folder: Path) -> list[Jar]:
    return [jar for jar in locked if not _verified(jar, folder / jar.filename)]


def _verified(jar: Jar, path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == jar.size and int(status.st_mtime) == _VERIFIED_MTIME_S


def lock_digest() -> str:
    """Names this set of jars; part of the key of everything derived from them."""
    return hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()
