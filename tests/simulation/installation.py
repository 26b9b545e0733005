"""What a simulated installation stands on: a log that forgets nothing, small times, codecs made once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ops.memory.clock import VirtualClock
from ops.memory.installation import create_topics
from ops.memory.log import MemoryLog, New, Stored
from schemas.settings import Agents, Coordinator, ErrorRecovery, Kafka, Routing, Settings, Tasks
from topology import troupe

SECOND = 1_000_000
PARTITIONS = 2
AGENTS = ("first", "second")


def settings_of(instance: str) -> Settings:
    """Times are short, so that timers matter within a run of some minutes."""
    return Settings(
        kafka=Kafka(partitions=PARTITIONS, topic_prefix="s."),
        coordinator=Coordinator(instance=instance, batch_records=50, wake_again_seconds=1.0),
        tasks=Tasks(timeout_seconds=4, ttl_seconds=60),
        error_recovery=ErrorRecovery(max_retries=1, retry_delay=1.0, max_lost=3),
        routing=Routing(grace_seconds=5.0),
        agents=Agents(missed_heartbeats=3),
    )


class RecordedLog(MemoryLog):
    """A log that keeps beside itself everything that was ever appended, whatever compaction takes."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.history: defaultdict[tuple[str, int], list[Stored]] = defaultdict(list)

    def append(self, topic: str, partition: int, records: Sequence[New]) -> int:
        base = super().append(topic, partition, records)
        self.history[topic, partition] += self.read(topic, partition, base, len(records))
        return base

    def compact_all(self) -> None:
        """What the broker's cleaner does, with the lags that the topology asks for."""
        for topic in self._compacted:
            self.compact(topic, (3_600 if topic.endswith("-changelog") else 7 * 86_400) * SECOND)


def new_log(clock: VirtualClock) -> RecordedLog:
    log = RecordedLog(clock)
    create_topics(log, settings_of("any"), troupe())
    log.create("s.replies.here", 1)
    return log
