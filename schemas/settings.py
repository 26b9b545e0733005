"""Settings: grouped frozen values, each with a sentence, a unit and a default, read from outside once and passed down.

Order: command line over environment over `config.yaml` over default. The environment name of a key is
`TROUPE_` and its path in capitals joined by two underscores: `TROUPE_ROUTING__GRACE_SECONDS`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import OperatorError
from schemas.policies import RetryPolicy


class Group(BaseModel):
    """A frozen group of settings that knows no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(Group):
    """The cluster and how topics are laid out on it."""

    bootstrap_servers: str = Field("localhost:9092", description="HOST:PORT, several by comma")
    topic_prefix: str = Field("", description="in front of every topic, group and changelog, e.g. `prod.`")
    replication_factor: int | None = Field(None, ge=1, description="copies; unset: 1 on one broker, else 3")
    partitions: int = Field(
        8, ge=1, le=1000, description="of processor inputs, fixed at creation; `up` takes 2 with its own Kafka"
    )
    reply_topics: tuple[str, ...] = Field(("replies.*",), description="patterns of topics that `reply_to` may name")
    request_timeout_seconds: float = Field(30.0, gt=0, description="s; a produce that takes longer has failed for good")
    reply_timeout_seconds: float = Field(2.0, gt=0, description="s; a user's `reply_to` that takes longer has refused")
    metadata_timeout_seconds: float = Field(10.0, gt=0, description="s; longest wait for metadata and admin answers")


class Retention(Group):
    """Days that records of a class stay."""

    l: int = Field(7, ge=1, description="days; requests, reports, inboxes")  # noqa: E741 - the class is called L
    e: int = Field(30, ge=1, description="days; events, results")
    d: int = Field(90, ge=1, description="days; dead letters")


class Routing(Group):
    """How a task finds its agent."""

    grace_seconds: float = Field(5.0, ge=0, description="s; an unknown target may still register")


class ErrorRecovery(Group):
    """What follows a failure."""

    max_retries: int = Field(3, ge=0, le=1000, description="attempts after the first")
    retry_delay: float = Field(1.0, ge=0, description="s before the first retry")
    backoff_multiplier: float = Field(2.0, ge=1, description="factor from one delay to the next")
    max_delay: float = Field(60.0, ge=0, description="s; longest delay")
    dead_letter: bool = Field(True, description="keep tasks that ran out of retries")
    max_lost: int = Field(10, ge=0, description="agents a task may lose before it is given up")

    def policy(self) -> RetryPolicy:
        """The default policy, B unless changed."""
        return RetryPolicy(
            max_retries=self.max_retries, retry_delay=self.retry_delay,
            backoff_multiplier=self.backoff_multiplier, max_delay=self.max_delay,
        )  # fmt: skip


class Queue(Group):
    """Bounds of what waits."""

    max_queue_size: int = Field(10_000, ge=1, description="tasks; `reject` refuses above")
    max_backlog: int = Field(1_000_000, ge=1, description="tasks; `wait` fails above")


class Tasks(Group):
    """Life of a task and of its row."""

    timeout_seconds: int = Field(300, ge=1, description="s; one attempt")
    ttl_seconds: int = Field(86_400, ge=1, description="s; longest life until an outcome")
    keep_finished_seconds: int = Field(3600, ge=0, description="s; window in which an id is known after its end")
    keep_finished_rows: int = Field(1_000_000, ge=1, description="rows per partition; the oldest leave first")


class Limits(Group):
    """Sizes."""

    max_record_bytes: int = Field(1_000_000, ge=1024, description="B; value and headers of a request")
    max_wrapped_bytes: int = Field(4 * 1024 * 1024, ge=1024, description="B; records that wrap a request")


class Agents(Group):
    """Agents and their heartbeats."""

    missed_heartbeats: int = Field(3, ge=1, description="intervals without a heartbeat until offline")
    builtin: tuple[str, ...] | None = Field(None, description="built-in agents to host; unset: all")


class Actors(Group):
    """A host process of Python actors."""

    host: str = Field("main", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="name of the host and its group")
    session_timeout_seconds: float = Field(6.0, gt=0, description="s until a silent host loses its partitions")
    drain_seconds: float = Field(10.0, ge=0, description="s that running handlers get at a stop")
    goodbye_seconds: float = Field(1.0, ge=0, description="s to learn that nobody else hosts its agents, and to say so")
    commit_interval_seconds: float = Field(0.5, gt=0, description="s between commits")
    report_after_seconds: float = Field(0.25, ge=0, description="s; a handler that takes longer reports `started`")
    progress_interval_seconds: float = Field(1.0, gt=0, description="s; progress is sent at most this often")
    max_records: int = Field(2000, ge=1, description="records taken at once, and waiting in one host")
    fetch_max_wait_ms: int = Field(500, ge=1, description="ms that the broker may hold an empty fetch")
    max_starts: int = Field(3, ge=1, description="starts of one assignment before it is failed")
    remembered: int = Field(20_000, ge=0, description="assignments remembered after their end, against repeats")
    held_seconds: float = Field(1.0, gt=0, description="s that a handler may hold the host's loop until that is logged")
    stuck_seconds: float = Field(30.0, gt=0, description="s that a cancelled handler may go on and keep its slot")
    overdue_seconds: float = Field(30.0, ge=0, description="s past its deadline until a handler is ended unasked")
    frozen_seconds: float = Field(30.0, gt=0, description="s without a turn of the interpreter until a role ends itself")
    memory_limit_mb: int | None = Field(None, ge=64, description="MiB of data a host may allocate; unset: the system's")


class Coordinator(Group):
    """The coordinator process: group, batches, commits."""

    instance: str = Field(
        "coordinator-1", pattern=r"^[A-Za-z0-9._-]{1,120}$", description="static member name; no two may have one"
    )
    replicas: int = Field(1, ge=1, le=64, description="coordinators that `up` starts; they share the partitions")
    session_timeout_seconds: float = Field(6.0, gt=0, description="s until a silent coordinator loses its partitions")
    heartbeat_seconds: float = Field(1.0, gt=0, description="s between group heartbeats")
    rebalance_timeout_seconds: float = Field(20.0, gt=0, description="s that members get to join")
    commit_interval_seconds: float = Field(0.5, gt=0, description="s between commits")
    batch_records: int = Field(2000, ge=1, description="records per step batch")
    queued_bytes: int = Field(67_108_864, ge=1, description="B that wait for the rules until nothing more is delivered")
    turn_seconds: float = Field(0.05, gt=0, description="s of work on a batch until heartbeats and acks have their turn")
    batch_bytes: int = Field(900_000, ge=10_000, description="B; largest batch for a partition; a larger record goes alone")
    gather_bytes: int = Field(65_536, ge=1, description="B that a fetch waits for while records flow")
    gather_ms: int = Field(4, ge=1, description="ms that it waits for them; they flow when one more is expected within it")
    fetch_max_wait_ms: int = Field(500, ge=1, description="ms that the broker may hold an empty fetch")
    idle_seconds: float = Field(0.1, gt=0, description="s between looks at timers when nothing arrives")
    silence_seconds: float = Field(5.0, gt=0, description="s without a record until log ends are asked for")
    wake_again_seconds: float = Field(1.0, gt=0, description="s until an unanswered wake is sent again")
    look_seconds: float = Field(10.0, gt=0, description="s between looks at idle partitions that keep finished rows")
    copy_seconds: float = Field(120.0, gt=0, description="s until a record that was sent home has surely come there")
    stop_seconds: float = Field(15.0, gt=0, description="s for a clean stop")
    ready_seconds: float = Field(60.0, gt=0, description="s until recovered and ready")
    expire_per_flush: int = Field(200, ge=1, le=500, description="finished rows that may leave with one flush")


class Monitoring(Group):
    """Logs, and what commands tell."""

    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="lowest level written")
    tell_after_seconds: float = Field(3.0, ge=0, description="s until `submit --wait` says what the task waits for")


class Settings(Group):
    """All settings of an installation."""

    kafka: Kafka = Kafka()
    retention_days: Retention = Retention()
    routing: Routing = Routing()
    error_recovery: ErrorRecovery = ErrorRecovery()
    priority_queue: Queue = Queue()
    tasks: Tasks = Tasks()
    limits: Limits = Limits()
    agents: Agents = Agents()
    actors: Actors = Actors()
    coordinator: Coordinator = Coordinator()
    monitoring: Monitoring = Monitoring()
    data_dir: Path = Field(Path("data"), description="tables, datasets, logs")
    sources_root: Path | None = Field(None, description="folder of file sources; unset: `<data_dir>/sources`")

    @property
    def sources(self) -> Path:
        """Folder that file sources must lie under."""
        return self.sources_root or self.data_dir / "sources"


ALIASES = {"KAFKA_BOOTSTRAP_SERVERS": "kafka.bootstrap_servers", "LOG_LEVEL": "monitoring.log_level"}
"""Names of the sources that work too."""


def load_settings(
    environ: Mapping[str, str], config: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Settings from file, environment and overrides (dotted keys), later ones winning.

    Raises OperatorError naming an unknown key with the nearest known one, or a wrong value with its reason.
    """
    tree: dict[str, Any] = {}
    if config is not None:
        _merge(tree, _read_yaml(config))
    for name, value in sorted(environ.items()):
        if name in ALIASES:
            _put(tree, ALIASES[name], value)
    for name, value in sorted(environ.items()):
        if name.startswith("TROUPE_") and "__" in name:
            _put(tree, ".".join(name.removeprefix("TROUPE_").lower().split("__")), value)
    if data_dir := environ.get("TROUPE_DATA_DIR"):
        _put(tree, "data_dir", data_dir)
    for key, value in (overrides or {}).items():
        _put(tree, key, value)
    _refuse_unknown(tree)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise OperatorError(f"Setting '{where}': {first['msg']}", hint=f"change or remove '{where}'") from error


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings that differ from their defaults as environment variables, to start a child process with them."""
    changed = settings.model_dump(mode="json", exclude_defaults=True)
    out: dict[str, str] = {}
    for key, value in changed.items():
        if isinstance(value, dict):
            out |= {f"TROUPE_{key}__{name}".upper(): _text(item) for name, item in value.items() if item is not None}
        elif value is not None:
            out["TROUPE_DATA_DIR" if key == "data_dir" else f"TROUPE_{key}__".upper()] = str(value)
    return out


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise OperatorError(f"Cannot read settings from {path}: {error}", hint="check the path of --config") from error
    if not isinstance(tree or {}, dict):
        raise OperatorError(f"{path} holds no settings", hint="write `group:` and its keys below")
    return tree or {}


def _merge(into: dict[str, Any], tree: Mapping[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = [part for part in path.split(".") if part]
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value.split(",") if isinstance(value, str) and last in ("reply_topics", "builtin") else value


def _refuse_unknown(tree: Mapping[str, Any]) -> None:
    known = {name: info.annotation for name, info in Settings.model_fields.items()}
    paths = [f"{g}.{f}" for g, t in known.items() if isinstance(t, type) and issubclass(t, Group) for f in t.model_fields]
    paths += [name for name, kind in known.items() if not (isinstance(kind, type) and issubclass(kind, Group))]
    for group, value in tree.items():
        for path in [f"{group}.{name}" for name in value] if isinstance(value, dict) else [group]:
            if path not in paths:
                near = difflib.get_close_matches(path, paths, 1, 0.3)
                hint = f"did you mean '{near[0]}'?" if near else "see the settings in the README"
                raise OperatorError(f"Unknown setting '{path}'", hint=hint)


def process_environment() -> dict[str, str]:
    """A copy of this process's environment; the one place where it is read."""
    return dict(os.environ)
