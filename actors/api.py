"""The public API of an agent's author: an `Actor` is a name, a handler and its limits, a `Context` what a handler sees.

A handler is a function of (input, ctx). Its input is annotated with a pydantic model (or whatever pydantic validates),
with `dict`, or with `str` for the payload's JSON text as it came; it returns a pydantic model or a dict. `async def`
handlers run in the host's loop, plain functions in threads. An agent with several operations takes a mapping from
operation to handler; `payload.operation` picks one, the first listed is the default.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from actors.handlers import Handler, Operations, first_error
from schemas.agents import AgentDefinition, Transport
from schemas.policies import RateLimit, RetryPolicy


class Log(Protocol):
    """The part of a structured logger that handlers use."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...

    def error(self, event: str, **fields: Any) -> Any: ...


def _never() -> bool:
    return False


@dataclass(slots=True)
class Context:
    """What a handler may know and do besides its input.

    task_id, attempt, epoch: which attempt this is; an outside effect takes `key` for its receiver to know a repetition
    by. deadline_at: microseconds; after it the result is not waited for. data_dir, sources_root: folders for
    datasets and file sources. send_progress: what `report` calls; safe from a handler's thread too.
    """

    task_id: str
    attempt: int
    epoch: int
    deadline_at: int
    last_attempt: bool
    logger: Log
    data_dir: Path
    sources_root: Path
    send_progress: Callable[[float, str], None]
    pattern: str | None = None
    type: str = ""
    description: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    is_withdrawn: Callable[[], bool] = _never

    @property
    def cancelled(self) -> bool:
        """Whether the attempt was withdrawn, so that its result will not count. A plain handler, which nothing can
        interrupt, asks this now and then and returns.
        """
        return self.is_withdrawn()

    def key(self, effect: str = "") -> str:
        """The idempotency key of an outside effect: the same at every attempt. `effect` names one of several.

        Raises ValueError for a name with a slash in it.
        """
        if "/" in effect:
            raise ValueError(f"effect: '{effect}' may not contain '/'")
        return f"{self.task_id}/{effect}" if effect else self.task_id

    async def report(self, progress: float, note: str = "") -> None:
        """Say how far the work is, 0 to 1; sent at most once a second."""
        self.send_progress(min(1.0, max(0.0, progress)), note)

    def report_now(self, progress: float, note: str = "") -> None:
        """The same from a plain (threaded) handler."""
        self.send_progress(min(1.0, max(0.0, progress)), note)


@dataclass(frozen=True, slots=True)
class Actor:
    """One agent: its id, its handler or handlers by operation, what it offers, and its limits.

    max_in_flight: handlers at once. timeout_seconds: of one attempt. `config`: {"own_group": True} gives it a consumer
    group of its own, {"inbox_partitions": N} lets N processes share it. `capabilities` are the words a task may ask for;
    `troupe submit WORD` finds the agents that offer the word. Raises ValueError or TypeError for what cannot work.
    """

    agent_id: str
    handler: Handler | Mapping[str, Handler]
    agent_type: str = ""
    name: str = ""
    capabilities: Sequence[str] = ()
    domain: str = ""
    max_in_flight: int = 100
    weight: float = 1.0
    rate_limit: RateLimit | None = None
    retry: RetryPolicy | None = None
    timeout_seconds: int | None = None
    heartbeat_interval_seconds: int = 10
    config: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def own_group(self) -> bool:
        """Whether its inbox is read in a group of its own, `agents.<agent_id>`, which hosts of any name join."""
        return self.config.get("own_group") is True

    operations: Operations = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            operations = Operations(self.handler)
            self.definition()
        except ValidationError as error:
            raise ValueError(f"Actor '{self.agent_id}': {first_error(error)}") from error
        except TypeError as error:
            raise TypeError(f"Actor '{self.agent_id}': {error}") from error
        object.__setattr__(self, "operations", operations)

    def definition(self) -> AgentDefinition:
        """What the agent announces of itself. Raises pydantic.ValidationError, a ValueError, for impossible values."""
        return AgentDefinition(
            agent_id=self.agent_id,
            name=self.name or self.agent_id,
            agent_type=self.agent_type or self.agent_id,
            capabilities=list(self.capabilities),
            domain=self.domain,
            config=json.dumps(dict(self.config), sort_keys=True),
            metadata=json.dumps(dict(self.metadata), sort_keys=True),
            transport=Transport.LOCAL,
            max_in_flight=self.max_in_flight,
            weight=self.weight,
            rate_limit=self.rate_limit,
            retry=self.retry,
            timeout_seconds=self.timeout_seconds,
            heartbeat_interval_seconds=self.heartbeat_interval_seconds,
        )
