"""How the roles of a system are started: their commands, environments, logs and limits."""

from __future__ import annotations

import hashlib
import re
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ops.children import ChildSpec
from schemas.settings import ALIASES, Settings, environment_of

ROLES = ("coordinator", "actors")
"""Roles that `up` can start besides the broker."""

READY_FILES = "run"
LOGS = "logs"
_MARGIN_S = 5.0  # a role's own limit of a clean stop, and what the interpreter needs after it


def troupe_command(*arguments: str) -> tuple[str, ...]:
    """The command line of this very installation; -P because a user's directory may have packages named like ours."""
    return (sys.executable, "-P", "-m", "ops.cli.main", *arguments)


def environ_with_sources(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which `troupe_command` finds our packages, from a checkout that is not installed too."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        return dict(environ)
    paths = [str(root), *filter(None, [environ.get("PYTHONPATH")])]
    return {**environ, "PYTHONPATH": ":".join(paths) if sys.platform != "win32" else ";".join(paths)}


def role_environ(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The environment of a role: exactly these settings, whatever this process was told."""
    kept = {name: value for name, value in environ.items() if not _is_setting(name)}
    return environ_with_sources(kept | environment_of(settings))


def _is_setting(name: str) -> bool:
    return name in ALIASES or name == "TROUPE_DATA_DIR" or (name.startswith("TROUPE_") and "__" in name)


def host_of(file: Path) -> str:
    """The name of the host of a file of agents: readable, the same at every start, another for another file."""
    path = file.expanduser().resolve()
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem)[:48]
    return f"{readable}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def with_instance(settings: Settings, embedded: bool) -> Settings:
    """Settings with a member name of the coordinator that no other system's coordinator on the same Kafka has."""
    if embedded or "instance" in settings.coordinator.model_fields_set:
        return settings
    place = hashlib.sha256(f"{socket.gethostname()}:{settings.data_dir}".encode()).hexdigest()[:8]
    named = settings.coordinator.model_copy(update={"instance": f"coordinator-{place}"})
    return settings.model_copy(update={"coordinator": named})


def children(
    settings: Settings, environ: Mapping[str, str], only: Iterable[str], agent_files: Sequence[Path]
) -> list[ChildSpec]:
    """The roles of one system: the coordinators, a host of the built-in agents, one host for each file of agents."""
    wanted = tuple(only)
    found: list[ChildSpec] = []
    if "coordinator" in wanted:
        limit_s = settings.coordinator.stop_seconds + _MARGIN_S
        for number in range(1, settings.coordinator.replicas + 1):
            role = "coordinator" if number == 1 else f"coordinator:{number}"
            own = _replica(settings, number)
            named = ("coordinator", "--instance", own.coordinator.instance)
            found.append(_child(role, named, own, environ, limit_s))
    if "actors" in wanted:
        found.append(_host("actors", settings.actors.host, (), settings, environ))
    for file in agent_files:
        host = host_of(file)
        found.append(_host(f"actors:{host}", host, ("--agents", str(file)), settings, environ))
    return found


def _replica(settings: Settings, number: int) -> Settings:
    """Settings of one of several coordinators: each is a member of the group under a name of its own."""
    if number == 1:
        return settings
    named = settings.coordinator.model_copy(update={"instance": f"{settings.coordinator.instance}.{number}"})
    return settings.model_copy(update={"coordinator": named})


def _host(
    role: str, host: str, arguments: tuple[str, ...], settings: Settings, environ: Mapping[str, str]
) -> ChildSpec:
    own = settings.model_copy(update={"actors": settings.actors.model_copy(update={"host": host})})
    limit_s = settings.actors.drain_seconds + _MARGIN_S
    return _child(role, ("actors", *arguments), own, environ, limit_s)


def _child(
    role: str, arguments: tuple[str, ...], settings: Settings, environ: Mapping[str, str], grace_s: float
) -> ChildSpec:
    name = role.replace(":", "-")
    return ChildSpec(
        role=role,
        command=troupe_command("role", *arguments, "--ready-file", "{ready}", "--lifeline"),
        environ=role_environ(environ, settings),
        log_file=settings.data_dir / LOGS / f"{name}.log",
        ready_file=settings.data_dir / READY_FILES / f"{name}.ready",
        ready_s=settings.coordinator.ready_seconds,
        grace_s=grace_s,
    )
