"""The agents that come with the product; a new one is its own file and one line here."""

from __future__ import annotations

from collections.abc import Sequence

from actors.api import Actor
from actors.catalog import detect_anomalies, generate_tests, ingest_data
from actors.catalog.asking import Ask
from schemas.errors import OperatorError


def builtin(names: Sequence[str] | None = None, ask: Ask | None = None) -> list[Actor]:
    """The built-in agents, or those with these ids (`agents.builtin`); `ask` is for those that have others work for them.

    Raises OperatorError for an unknown id.
    """
    all_actors = [
        ingest_data.agent(),
        detect_anomalies.agent(),
        generate_tests.agent(ask),
    ]
    if names is None:
        return all_actors
    known = {actor.agent_id: actor for actor in all_actors}
    unknown = [name for name in names if name and name not in known]
    if unknown:
        raise OperatorError(f"There is no built-in agent '{unknown[0]}'", hint=f"built in are {', '.join(known)}")
    return [actor for agent_id, actor in known.items() if agent_id in names]
