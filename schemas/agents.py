"""The records of an agent: its definition, the commands about it, and what the registry says of it."""

from __future__ import annotations

from pydantic import Field

from schemas.base import Enum, Envelope, Int, Json, Micros, Record
from schemas.policies import RateLimit, RetryPolicy

AGENT_ID = r"^[A-Za-z0-9_-]{1,64}$"
"""An agent id is part of a topic name: no dot, no tilde, at most 64 characters."""


class AgentState(Enum):
    """Stored state of an agent."""

    REGISTERED = "registered"
    UP = "up"
    STOPPED = "stopped"
    OFFLINE = "offline"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Desired(Enum):
    """What operators want of an agent."""

    STARTED = "started"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class BreakerState(Enum):
    """State of an agent's circuit breaker."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"
    UNKNOWN = "unknown"


class Health(Enum):
    """What the last check said."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNCHECKED = "unknown"


class Transport(Enum):
    """How an agent is reached: our Python host, an HTTP endpoint behind the bridge, or a program of its own."""

    LOCAL = "local"
    HTTP = "http"
    KAFKA = "kafka"
    UNKNOWN = "unknown"


class Role(Enum):
    """What an agent is for."""

    WORKER = "worker"
    COORDINATOR = "coordinator"
    SPECIALIST = "specialist"
    HUMAN = "human"
    UNKNOWN = "unknown"


class AgentDefinition(Record):
    """What an agent says of itself; two registrations are the same if these are equal."""

    agent_id: str = Field(pattern=AGENT_ID)
    name: str = ""
    agent_type: str
    provider: str | None = None
    role: Role = Role.WORKER
    capabilities: list[str] = []
    domain: str = ""
    config: Json = "{}"
    endpoint: str | None = None
    metadata: Json = "{}"
    brain_config: Json | None = None
    deployment_id: str | None = None
    transport: Transport = Transport.KAFKA
    accepts: Json | None = None
    max_in_flight: Int = Field(default=100, ge=1, le=1_000_000)
    weight: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    rate_limit: RateLimit | None = None
    retry: RetryPolicy | None = None
    timeout_seconds: Int | None = Field(default=None, ge=1)
    heartbeat_interval_seconds: Int = Field(default=10, ge=1, le=3600)
    auto_start: bool = True


class AgentCommandKind(Enum):
    """What may be wished of, or said about, an agent."""

    REGISTER = "register"
    START = "start"
    STOP = "stop"
    UNREGISTER = "unregister"
    HEARTBEAT = "heartbeat"
    OUTCOME = "outcome"
    SESSION_USED = "session_used"
    BREAKER_OPEN = "breaker_open"
    BREAKER_RESET = "breaker_reset"
    SET_WEIGHT = "set_weight"
    UNKNOWN = "unknown"


class AgentCommand(Envelope):
    """A wish or a sign of life; `heartbeat` carries `load` (tasks in hand) and `inbox_lag` (records unread).

    `incarnation` is the process that beats. `goodbye` makes a heartbeat its last one: it has drained, and is gone.
    """

    kind: AgentCommandKind = AgentCommandKind.UNKNOWN
    agent_id: str = Field(pattern=AGENT_ID)
    definition: AgentDefinition | None = None
    replace: bool = False
    mode: str | None = None
    force: bool = False
    load: Int | None = None
    inbox_lag: int | None = None
    ok: bool | None = None
    code: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    weight: float | None = None
    factor: float | None = None
    held: bool = False
    reason: str | None = None
    goodbye: bool = False
    incarnation: str | None = None


class AgentEventKind(Enum):
    """What became of an agent."""

    REGISTERED = "registered"
    REPLACED = "replaced"
    UP = "up"
    DRAINING = "draining"
    STOPPED = "stopped"
    OFFLINE = "offline"
    UNREGISTERED = "unregistered"
    BREAKER_CHANGED = "breaker_changed"
    WEIGHT_CHANGED = "weight_changed"
    SESSION_OPENED = "session_opened"
    SESSION_ENDED = "session_ended"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class AgentFault(Record):
    """Why a command was refused."""

    code: str
    message: str


class Session(Record):
    """Continuous use of one agent under one session id."""

    session_id: str
    user_id: str | None = None
    state: str = "active"
    started_at: Micros
    last_used_at: Micros
    ended_at: Micros | None = None


class AgentEvent(Envelope):
    """A fact about an agent: a change of state, or the refusal of a command."""

    kind: AgentEventKind = AgentEventKind.UNKNOWN
    agent_id: str
    version: int
    cause: str
    from_state: AgentState | None = None
    to_state: AgentState = AgentState.UNKNOWN
    breaker: BreakerState | None = None
    session: Session | None = None
    reason: str | None = None
    error: AgentFault | None = None


class AgentRecord(Envelope):
    """What routing needs to know of an agent; compacted on `agents.registry`."""

    agent_id: str
    definition: AgentDefinition
    state: AgentState = AgentState.UNKNOWN
    desired: Desired = Desired.STARTED
    draining: bool = False
    sessions: list[Session] = []
    registered_at: Micros
    updated_at: Micros
    version: int
    cause: str


class AgentHealth(Envelope):
    """Breaker, health and weight of an agent; compacted on `agents.health`."""

    agent_id: str
    breaker: BreakerState = BreakerState.CLOSED
    consecutive_failures: Int = 0
    health: Health = Health.UNCHECKED
    last_check: Micros | None = None
    effective_weight: float = 1.0
    reason: str | None = None
    version: int
    cause: str


class AgentRow(Record):
    """What the registry processor remembers of an agent."""

    version: int
    cause: str
    agent_id: str
    definition: AgentDefinition
    state: AgentState = AgentState.UNKNOWN
    from_state: AgentState | None = None
    event: AgentEventKind = AgentEventKind.UNKNOWN
    desired: Desired = Desired.STARTED
    draining: bool = False
    leaving: bool = False
    breaker: BreakerState = BreakerState.CLOSED
    consecutive_failures: Int = 0
    opened_at: Micros | None = None
    open_until: Micros | None = None
    trial_successes: Int = 0
    held: bool = False
    health: Health = Health.UNCHECKED
    effective_weight: float = 1.0
    reason: str | None = None
    sessions: list[Session] = []
    told_to_stop: bool = False
    last_heartbeat: Micros | None = None
    load: Int | None = None
    inbox_lag: int | None = None
    registered_at: Micros
    updated_at: Micros
    incarnation: str | None = None
