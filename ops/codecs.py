"""The codecs of one process, built once at its start from what `_schemas` says.

A process that writes must know the ids of its own schemas, and one that reads those of every version in the logs. Both
come from the registry's topic, read by each process itself, so that no process waits for another.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection

from ops.registry.schema_log import read_schemas
from schemas.codec import Codecs
from schemas.errors import BrokerUnavailable
from schemas.registry import SchemaView
from schemas.settings import Settings
from topology import Topology


async def load_codecs(settings: Settings, topology: Topology, subjects: Collection[str] | None = None) -> Codecs:
    """Read `_schemas` and build a codec for each subject of the topology, or only for the named ones.

    Raises BrokerUnavailable; OperatorError if the topic is missing; SchemaError, with `troupe topology apply` as its
    hint, if a schema of this version is not registered.
    """
    view = await read_schemas(settings.kafka.bootstrap_servers, settings.kafka.metadata_timeout_seconds)
    return codecs_of(view, settings, topology, subjects)


def codecs_of(
    view: SchemaView, settings: Settings, topology: Topology, subjects: Collection[str] | None = None
) -> Codecs:
    """The codecs of the topology's subjects, each with the limit in bytes that its topics have."""
    models = {name: model for name, model in topology.models().items() if subjects is None or name in subjects}
    return Codecs.build(
        models,
        {subject: view.ids(subject) for subject in models},
        settings.limits.max_record_bytes,
        dict.fromkeys(_wrapping(topology), settings.limits.max_wrapped_bytes),
    )


def _wrapping(topology: Topology) -> set[str]:
    """Subjects whose records may hold a whole request, or, as the header row, many small parts."""
    found = {topic.subject for topic in topology.topics if topic.wraps}
    found |= {spec.changelog.subject for spec in topology.processors}
    return found | {"changelog.header-value"}


class NewerSchemas:
    """Admits schemas that were registered after this process began, when a record names one.

    Garbage names ids too, and reading takes some milliseconds: so one id is looked for at most once in `_AGAIN_S`
    seconds, and all of them together at most `_LOOKS` times.
    """

    def __init__(self, settings: Settings, codecs: Codecs, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._codecs, self._clock = settings, codecs, clock
        self._looks: deque[tuple[float, int]] = deque()

    async def __call__(self, schema_id: int) -> None:
        """Look for an id; a broker that is away is waited for. Raises BrokerUnavailable if it stays away for longer than
        `kafka.request_timeout_seconds`.
        """
        now = self._clock()
        while self._looks and self._looks[0][0] <= now - _AGAIN_S:
            self._looks.popleft()
        if len(self._looks) >= _LOOKS or any(known == schema_id for _, known in self._looks):
            return
        self._looks.append((now, schema_id))
        view = await self._read(now + self._settings.kafka.request_timeout_seconds)
        for subject in self._codecs.subjects():
            for each, schema in view.ids(subject).items():
                self._codecs.of(subject).admit(each, schema)

    async def _read(self, deadline: float) -> SchemaView:
        kafka = self._settings.kafka
        while True:
            try:
                return await read_schemas(kafka.bootstrap_servers, kafka.metadata_timeout_seconds)
            except BrokerUnavailable:
                if self._clock() >= deadline:
                    raise
            await asyncio.sleep(_AGAIN_S)


_AGAIN_S = 1.0
_LOOKS = 5
