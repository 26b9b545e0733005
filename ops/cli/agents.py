"""`troupe agents`: who is there, and what each is doing."""

from __future__ import annotations

import asyncio

from aiokafka import ConsumerRecord

from ops.cli.options import AsJson, Broker, Config, Data, Sets, running_settings
from ops.cli.show import print_json, print_table, say
from ops.codecs import load_codecs
from ops.logs import quiet_libraries
from ops.views.agents import AgentsFold, AgentView
from ops.views.log import open_log
from schemas.codec import Codecs
from schemas.errors import DecodeError, UnknownSchemaId
from schemas.settings import Settings
from schemas.topics import AGENT_HEALTH, AGENT_REGISTRY, TASK_EVENTS, Topic
from streams.routing.rules import BUILTIN_RULES
from topology import troupe

SOURCES = (AGENT_REGISTRY, AGENT_HEALTH, TASK_EVENTS)


def agents(
    broker: Broker = None, data: Data = None, config: Config = None, sets: Sets = None, as_json: AsJson = False
) -> None:
    """List the agents with state, load, last outcome, capabilities and patterns."""
    quiet_libraries()
    found = asyncio.run(read_agents(running_settings(broker, data, config, sets)))
    if as_json:
        print_json([each.document() for each in found])
    elif not found:
        say("No agent is registered. `troupe up` hosts the built-in ones, `troupe run FILE` yours.")
    else:
        rows = [
            (
                each.agent_id, each.state, each.breaker, each.in_flight, each.last_outcome,
                _words(each.capabilities), _words(each.patterns),
            )
            for each in found
        ]  # fmt: skip
        print_table(("agent", "state", "breaker", "in flight", "last outcome", "capabilities", "patterns"), rows)


async def read_agents(settings: Settings) -> list[AgentView]:
    """All registered agents. Raises BrokerUnavailable, or OperatorError if the topics are not there."""
    codecs = await load_codecs(settings, troupe(), tuple(topic.subject for topic in SOURCES))
    fold = AgentsFold()
    async with open_log(settings) as log:
        for topic in SOURCES:
            partitions = await log.partitions(settings.kafka.topic_prefix + topic.name)
            async for record in log.read(await log.beginnings(partitions), await log.ends(partitions)):
                _take(fold, topic, record, codecs)
    return fold.views(BUILTIN_RULES)


def _take(fold: AgentsFold, topic: Topic, record: ConsumerRecord, codecs: Codecs) -> None:
    key = (record.key or b"").decode(errors="replace")
    try:
        value = None if record.value is None else codecs.of(topic.subject).decode(record.value)
    except (DecodeError, UnknownSchemaId):  # somebody else's record; `troupe topics tail` shows it
        return
    if topic is AGENT_REGISTRY:
        fold.add_record(key, value)
    elif topic is AGENT_HEALTH:
        fold.add_health(key, value)
    elif value is not None:
        fold.add_event(value)


def _words(words: tuple[str, ...]) -> str:
    return ", ".join(words)
