"""Which systems run on this machine, so that no verb has to be told an address.

`up` writes one small file per system into the user's state directory and keeps it true while it runs. A process id
alone may by now belong to another program, so each is kept with its creation time; an entry of which nobody lives is
removed by whoever comes across it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from platformdirs import user_state_path
from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import OperatorError
from schemas.settings import Settings, load_settings

_SAME_BIRTH_S = 1.0

FAILED = "failed"
"""State of a role that is not started again, because somebody must change something first."""


class Birth(BaseModel):
    """A process that cannot be mistaken for a later one with its id: creation time in seconds since the epoch."""

    model_config = ConfigDict(frozen=True)

    pid: int
    created_s: float

    @classmethod
    def of(cls, pid: int) -> Birth | None:
        """The living process of this id, None if there is none."""
        try:
            return cls(pid=pid, created_s=psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    def process(self) -> psutil.Process | None:
        """The process, None if it has ended (a zombie counts as ended)."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.created_s) < _SAME_BIRTH_S
            return found if same and found.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


class Member(BaseModel):
    """One process of a system: `state` is starting, running, restarting or failed; `addresses` are HOST:PORT.

    why: of a failed one, what it said and what to do.
    """

    model_config = ConfigDict(frozen=True)

    role: str
    birth: Birth
    state: str
    addresses: tuple[str, ...] = ()
    why: str = ""

    def current_state(self) -> str:
        """The state as it is now, not as it was last written."""
        ended = self.birth.process() is None
        return "ended" if ended and self.state not in ("restarting", FAILED) else self.state


class Entry(BaseModel):
    """One running system. The first member is the supervisor; `started_at` in microseconds.

    partitions: its `kafka.partitions`; None in a file of an older version.
    """

    model_config = ConfigDict(frozen=True)

    data: Path
    bootstrap: str
    topic_prefix: str = ""
    partitions: int | None = None
    started_at: int
    members: tuple[Member, ...]

    def alive(self) -> bool:
        """Whether any of its processes lives."""
        return any(member.birth.process() is not None for member in self.members)


def state_home(environ: Mapping[str, str]) -> Path:
    """Ours below `$XDG_STATE_HOME`, else in the system's own place for such files."""
    base = environ.get("XDG_STATE_HOME", "")
    return Path(base) / "troupe" if base else user_state_path("troupe")


def directory(environ: Mapping[str, str]) -> Path:
    """Where the entries are."""
    return state_home(environ) / "running"


def entry_file(environ: Mapping[str, str], data: Path) -> Path:
    """The file of the system with this data directory."""
    name = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16]
    return directory(environ) / f"{name}.json"


def write(environ: Mapping[str, str], entry: Entry) -> None:
    """Put an entry in place of the one before, in one step."""
    path = entry_file(environ, entry.data)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(entry.model_dump_json(indent=1), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise OperatorError(
            f"Cannot note the running system in {path.parent}: {error}",
            hint="set XDG_STATE_HOME to a directory that you can write to",
        ) from error


def remove(environ: Mapping[str, str], data: Path) -> None:
    """Forget the system with this data directory."""
    entry_file(environ, data).unlink(missing_ok=True)


def entries(environ: Mapping[str, str]) -> list[Entry]:
    """All running systems, oldest first; files of systems that have ended are removed."""
    found: list[Entry] = []
    for path in sorted(directory(environ).glob("*.json")):
        try:
            entry = Entry.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            continue
        except (ValidationError, OSError):
            entry = None
        if entry is not None and entry.alive():
            found.append(entry)
        else:
            path.unlink(missing_ok=True)
    return sorted(found, key=lambda entry: entry.started_at)


def find(environ: Mapping[str, str], data: Path | None) -> Entry:
    """The running system in `data`, else the only one.

    Raises OperatorError if there is none, or if several could be meant.
    """
    running = entries(environ)
    if data is not None:
        wanted = data.expanduser().resolve()
        for entry in running:
            if entry.data == wanted:
                return entry
        raise OperatorError(f"No system runs in {wanted}", hint=f"troupe up --data {data}")
    if not running:
        raise OperatorError("No system runs on this machine", hint="troupe up, or name a Kafka with --broker HOST:PORT")
    if len(running) > 1:
        listed = ", ".join(f"{entry.data} ({entry.bootstrap})" for entry in running)
        raise OperatorError(f"Several systems run: {listed}", hint="choose one with --data DIR or --broker HOST:PORT")
    return running[0]


def settings_here(
    environ: Mapping[str, str],
    data: Path | None = None,
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings with the address, directory, prefix and partition count of the system that is meant.

    That is the Kafka which the settings name, unless `data` is given; else the system running in `data`; else the only
    one on this machine. Raises OperatorError if none or several run, or for settings that are unknown or wrong.
    """
    settings, given = load_settings(environ, config, overrides), dict(overrides or {})
    if data is None and "bootstrap_servers" in settings.kafka.model_fields_set:
        return settings
    entry = find(environ, data)
    found: dict[str, Any] = {"kafka.bootstrap_servers": entry.bootstrap, "data_dir": str(entry.data)}
    if "topic_prefix" not in settings.kafka.model_fields_set:
        found["kafka.topic_prefix"] = entry.topic_prefix
    if "partitions" not in settings.kafka.model_fields_set and entry.partitions is not None:
        found["kafka.partitions"] = entry.partitions
    return load_settings(environ, config, given | found)
