"""What can be wrong on this machine before any Kafka is asked: settings, processes, disk, Java."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from ops.broker.jars import KAFKA_VERSION, JarCache
from ops.broker.java import find_java
from ops.doctor.finding import Finding, error, ok, raised, some, warning
from ops.running import FAILED, Entry
from schemas.errors import OperatorError
from schemas.failpoint import VARIABLE as FAILPOINT
from schemas.settings import ALIASES, Group, Settings, load_settings

PREFIX = "TROUPE_"
PLAIN_NAMES = ("TROUPE_DATA_DIR", "TROUPE_CACHE", "TROUPE_MAVEN_MIRROR", FAILPOINT)
"""Variables that are read and are not settings of a group."""

LEAST_FREE_BYTES = 512 * 1024**2
FEW_FREE_BYTES = 2 * 1024**3
_GIB = 1024**3


def settings_findings(environ: Mapping[str, str]) -> list[Finding]:
    """Every variable of the environment that looks like a setting and is none, or has a value that cannot be used."""
    found: list[Finding] = []
    for name, value in sorted(environ.items()):
        if (name.startswith(PREFIX) and "__" in name) or name in ALIASES:
            try:
                load_settings({name: value})
            except OperatorError as wrong:
                stop = "" if wrong.hint.endswith("?") else "."
                found.append(error("settings", f"{name}={value}: {wrong}", f"{wrong.hint}{stop} Else `unset {name}`."))
        elif name.startswith(PREFIX) and name not in PLAIN_NAMES:
            near = get_close_matches(name, [*PLAIN_NAMES, *variables()], n=1, cutoff=0.5)
            meant = f"; did you mean {near[0]}?" if near else ""
            found.append(warning("settings", f"{name} is set and nobody reads it{meant}", f"`unset {name}`"))
    if environ.get(FAILPOINT):
        what = f"{FAILPOINT}={environ[FAILPOINT]}: processes will kill themselves there, which is for tests"
        found.append(error("settings", what, f"`unset {FAILPOINT}` and start again"))
    return found or [ok("settings", "every variable of the environment is known and has a value that can be used")]


def variables() -> list[str]:
    """The names of all settings as variables."""
    groups = {name: info.annotation for name, info in Settings.model_fields.items()}
    return [
        f"{PREFIX}{name}__{field}".upper()
        for name, kind in groups.items()
        if isinstance(kind, type) and issubclass(kind, Group)
        for field in kind.model_fields
    ]


def process_findings(entries: Sequence[Entry]) -> list[Finding]:
    """What runs on this machine, and what was left behind by a supervisor that is gone."""
    found: list[Finding] = []
    for entry in entries:
        alive = [member.role for member in entry.members if member.birth.process() is not None]
        left = [member for member in entry.members if member.current_state() == FAILED]
        remedy = f"mend that, then troupe down --data {entry.data} and troupe up --data {entry.data}"
        found += [error("processes", f"{member.role} was given up: {member.why}", remedy) for member in left]
        over = {*alive, *(member.role for member in left)}
        gone = [member.role for member in entry.members if member.role not in over and member.state != "restarting"]
        again = [member.role for member in entry.members if member.current_state() == "restarting"]
        if "supervisor" not in alive:
            what = f"the supervisor of {entry.data} is gone, and {some(alive)} still run without anybody to watch them"
            found.append(error("processes", what, f"troupe down --data {entry.data}"))
        elif gone or again:
            what = f"of {entry.data} {some([*gone, *again])} {'is' if len([*gone, *again]) == 1 else 'are'} not running"
            found.append(warning("processes", what, f"read the logs in {entry.data}/logs"))
        elif not left:
            found.append(ok("processes", f"{entry.data}: {', '.join(alive)}"))
    return found


def disk_finding(data: Path) -> Finding:
    """Whether there is room where tables, logs and the embedded Kafka live."""
    place = data.expanduser().resolve()
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    what = f"{usage.free / _GIB:.1f} of {usage.total / _GIB:.1f} GiB are free at {place}"
    remedy = "free some, choose another --data, or lower retention_days"
    if usage.free < LEAST_FREE_BYTES:
        return error("disk", f"{what}: Kafka stops when a write fails", remedy)
    return warning("disk", what, remedy) if usage.free < FEW_FREE_BYTES else ok("disk", what)


def java_findings() -> list[Finding]:
    """Whether `troupe up` could start its own Kafka here."""
    try:
        java = find_java()
    except OperatorError as missing:
        return [raised("java", missing)]
    cache = JarCache.default()
    if not cache.jars.is_dir():
        what = f"Kafka {KAFKA_VERSION} is not in {cache.root} yet"
        return [warning("java", what, "the first `troupe up` fetches it and needs the network for that")]
    return [ok("java", f"Java {java.major}; Kafka {KAFKA_VERSION} is in {cache.root}")]
