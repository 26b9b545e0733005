"""What `topology apply` does to a cluster, done to a log in memory: its topics, and the schemas with their ids."""

from __future__ import annotations

from functools import lru_cache

from ops.codecs import codecs_of
from ops.memory.log import MemoryLog
from schemas.avro import avro_schema
from schemas.codec import Codecs
from schemas.registry import SchemaView
from schemas.settings import Limits, Settings
from schemas.topics import TopicClass
from topology import Topology, partitions_of, troupe

_COMPACTED = (TopicClass.COMPACT, TopicClass.CHANGELOG)


def create_topics(log: MemoryLog, settings: Settings, topology: Topology) -> None:
    """Make every topic of the topology; inboxes follow their agents."""
    for topic in topology.all_topics():
        name = settings.kafka.topic_prefix + topic.name
        log.create(name, partitions_of(topic, settings), compacted=topic.retention in _COMPACTED)


def schema_view(topology: Topology) -> SchemaView:
    """The registry as it is after the schemas of this version were registered in an empty one."""
    view = SchemaView()
    for subject, model in topology.models().items():
        key, value, _ = view.next_entry(subject, avro_schema(model))
        view.apply(key, value)
    return view


def memory_codecs(settings: Settings) -> Codecs:
    """The codecs of this version. Nobody admits other schemas to them, so runs with equal limits share them."""
    return _codecs(settings.limits)


@lru_cache(maxsize=8)  # compiling them takes 50 ms, which is most of what a test of an agent takes
def _codecs(limits: Limits) -> Codecs:
    topology = troupe()
    return codecs_of(schema_view(topology), Settings(limits=limits), topology)
