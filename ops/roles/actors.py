"""The role `actors`: a process that hosts Python actors until it is told to stop.

It reads the schemas itself, so it needs nothing but the broker, and the coordinator's answer to its registrations.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Sequence
from pathlib import Path

import structlog
from aiokafka.errors import KafkaError

from actors.api import Actor
from actors.runtime.kafka import DrainTimeout, run_host
from ops.codecs import NewerSchemas, load_codecs
from schemas.codec import Codecs
from schemas.errors import BrokerUnavailable, OperatorError
from schemas.failpoint import VARIABLE, Failpoints
from schemas.settings import Settings, process_environment
from topology import troupe

CLEAN, KAFKA_FAILED, STOP_TIMEOUT = 0, 70, 75
"""Exit codes: 70 (EX_SOFTWARE) and 75 (EX_TEMPFAIL) ask the supervisor for another start."""


async def run_actors(settings: Settings, actors: Sequence[Actor], ready_file: Path | None) -> int:
    """Host the actors until SIGTERM or SIGINT; returns the exit code. `ready_file` is touched when they are up.

    Raises OperatorError if the process cannot start as things are: no broker, no topics, a refused registration.
    """
    log = structlog.get_logger("actors")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    codecs = await _codecs(settings)

    def ready() -> None:
        gc.collect()
        gc.freeze()  # what is loaded by now stays, and assignments leave no cycles behind: the collector finds nothing
        gc.set_threshold(50_000, 20, 100)
        log.info("ready", agents=[actor.agent_id for actor in actors])
        if ready_file is not None:
            ready_file.touch()

    failpoints = Failpoints(process_environment().get(VARIABLE, ""))
    try:
        newer = NewerSchemas(settings, codecs)
        await run_host(settings, actors, codecs, ready, stop, failpoints=failpoints, refresh=newer)
    except (KafkaError, BrokerUnavailable, TimeoutError) as error:
        log.error("kafka_failed", error=f"{type(error).__name__}: {error}")
        return KAFKA_FAILED
    except DrainTimeout as error:
        log.warning("stop_timeout", error=str(error))
        return STOP_TIMEOUT
    return CLEAN


async def _codecs(settings: Settings) -> Codecs:
    try:
        return await load_codecs(settings, troupe())
    except BrokerUnavailable as error:
        raise OperatorError(str(error), hint=error.hint) from error

