"""What the doctor finds on a real Kafka, healthy and broken on purpose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ops.codecs import load_codecs
from ops.doctor.cluster import Site, as_installed, copies, kafka_version, schema_findings, topic_findings
from ops.doctor.examine import CHECKS, cluster_findings
from ops.doctor.finding import Finding, Level
from ops.doctor.work import agent_findings, changelog_findings, group_findings
from ops.registry.schema_log import TOPIC as SCHEMAS
from ops.topics import admin, found_topics
from ops.views.log import open_log
from ops.views.topics import list_topics
from schemas.agents import AgentCommand, AgentCommandKind, AgentDefinition, AgentRecord, AgentState
from schemas.base import Record
from schemas.settings import Settings
from schemas.topics import AGENT_COMMANDS, AGENT_REGISTRY, DEAD_LETTERS, Topic, TopicClass, inbox_name
from topology import troupe

pytestmark = pytest.mark.kafka


@asynccontextmanager
async def looked_at(settings: Settings) -> AsyncIterator[Site]:
    async with admin(settings) as client, open_log(settings) as log:
        yield await as_installed(Site(settings, troupe(), log, client, 20.0))


async def put(settings: Settings, topic: str, value: bytes, key: bytes = b"k") -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(settings.kafka.topic_prefix + topic, value, key=key)


async def say(settings: Settings, topic: Topic, record: Record, key: str) -> None:
    codecs = await load_codecs(settings, troupe())
    await put(settings, topic.name, codecs.of(topic.subject).encode(record), key.encode())


def only(findings: list[Finding], level: Level) -> Finding:
    (found,) = [finding for finding in findings if finding.level is level]
    assert level is Level.OK or found.remedy
    return found


async def all_of(settings: Settings) -> list[Finding]:
    told: list[str] = []
    found = [each async for part in cluster_findings(settings, 20.0, told.append) for each in part]
    assert told[0] == "kafka"
    return found


async def test_a_new_installation_has_everything_but_a_coordinator(installed: Settings) -> None:
    found = await all_of(installed)
    assert {finding.check for finding in found if finding.level is Level.OK} >= {
        "kafka",
        "topics",
        "schemas",
        "changelogs",
    }
    warnings = [finding for finding in found if finding.level is Level.WARNING]
    assert [finding.what for finding in warnings] == ["no coordinator is running", "no host of agents is running"]
    assert all("troupe up" in finding.remedy for finding in warnings)
    assert not [finding for finding in found if finding.level is Level.ERROR]


async def test_records_that_nobody_reads_are_an_error(installed: Settings) -> None:
    await put(installed, "tasks.requests", b"{}")
    async with looked_at(installed) as site:
        found = only(await group_findings(site), Level.ERROR)
    assert found.what == "no coordinator is running, and 1 record to be decided"
    assert found.remedy == "troupe up"


async def test_dead_letters_are_counted(installed: Settings) -> None:
    await put(installed, DEAD_LETTERS.name, b"x")
    async with looked_at(installed) as site:
        letters = [finding for finding in await group_findings(site) if finding.check == "dead letters"]
    assert letters[0].what.startswith("1 since")


@pytest.mark.parametrize(
    ("commits", "living", "told"),
    [
        ({"actors.gone": 1}, None, [("gone", "2 assignments")]),
        ({"actors.gone": 1, "actors.next": 3}, None, []),
        ({"actors.gone": 1, "agents.echo": 3}, None, []),
        ({"actors.gone": 1, "actors.next": 2}, None, [("next", "1 assignment")]),
        ({"actors.gone": 1, "actors.alive": 1}, "actors.alive", []),
        ({"actors.gone": 1, "looker": 3}, None, [("gone", "2 assignments")]),
        ({"actors.gone": 1, "actors.next": 4}, None, [("gone", "2 assignments")]),
    ],
    ids=["left behind", "done under another name", "done in its own group", "moved", "moved and alive", "a stranger",
         "of another log"],
)  # fmt: skip
async def test_what_waits_for_a_host_that_is_gone_is_what_no_other_has_done(
    installed: Settings, commits: dict[str, int], living: str | None, told: list[tuple[str, str]]
) -> None:
    inbox = installed.kafka.topic_prefix + inbox_name("echo")
    async with looked_at(installed) as site, AsyncExitStack() as readers:
        await site.admin.create_topics([NewTopic(inbox, 1, 1)])
        for _ in range(3):
            await put(installed, inbox_name("echo"), b"x")
        for group, offset in commits.items():
            reader = AIOKafkaConsumer(
                bootstrap_servers=installed.kafka.bootstrap_servers, group_id=site.real(group), enable_auto_commit=False
            )
            async with reader:
                reader.assign([TopicPartition(inbox, 0)])
                await reader.commit({TopicPartition(inbox, 0): offset})
        if living is not None:
            servers = installed.kafka.bootstrap_servers
            await readers.enter_async_context(
                AIOKafkaConsumer(inbox, bootstrap_servers=servers, group_id=site.real(living), enable_auto_commit=False)
            )
        found = [each.what for each in await group_findings(site) if "in its inboxes" in each.what]
    assert found == [
        f"the host of agents '{host}' is not running, and {count} wait in its inboxes" for host, count in told
    ]


async def test_without_topics_that_is_said_once_and_the_rest_is_not_tried(settings: Settings) -> None:
    found = await all_of(settings)
    missing = only(found, Level.ERROR)
    assert "topics do not exist" in missing.what and missing.remedy == "troupe topology apply"
    assert only(found, Level.WARNING).what.endswith("lag, agents, changelogs")
    assert found[-1].level is Level.WARNING


async def test_the_partition_count_is_that_of_the_topics_unless_another_one_is_wanted(installed: Settings) -> None:
    kafka = installed.kafka.model_dump(exclude={"partitions"})
    unset = installed.model_copy(update={"kafka": type(installed.kafka)(**kafka)})
    async with looked_at(unset) as site:
        assert site.settings.kafka.partitions == 2
        assert only(await topic_findings(site), Level.OK)
    other = installed.model_copy(update={"kafka": installed.kafka.model_copy(update={"partitions": 3})})
    async with looked_at(other) as site:
        wrong = await topic_findings(site)
    assert {finding.level for finding in wrong} == {Level.ERROR}
    assert "has 2 partitions, wanted are 3" in wrong[0].what and "kafka.partitions=2" in wrong[0].remedy


async def alter(client: AIOKafkaAdminClient, topic: str, **config: str) -> None:
    named = {name.replace("_", "."): value for name, value in config.items()}
    await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, named)])
    deadline = time.monotonic() + 20
    while not named.items() <= (await found_topics(client, [topic]))[topic].config.items():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_settings_of_topics_that_cannot_work_or_keep_less_are_named(installed: Settings) -> None:
    prefix = installed.kafka.topic_prefix
    async with looked_at(installed) as site:
        await alter(site.admin, f"{prefix}tasks.requests", message_timestamp_type="CreateTime")
        await alter(site.admin, f"{prefix}tasks.events", retention_ms="1000")
        await alter(site.admin, f"{prefix}tasks.results", retention_ms="-1")
        found = await topic_findings(site)
    assert "message.timestamp.type=CreateTime, wanted is LogAppendTime" in only(found, Level.ERROR).what
    shorter = only(found, Level.WARNING)
    assert "tasks.events' has retention.ms=1000" in shorter.what and "--add-config retention.ms=" in shorter.remedy


class Newer(Record):
    """A record that no version has registered."""

    task_id: str


async def test_schemas_that_are_missing_or_may_not_follow_are_two_things(installed: Settings) -> None:
    unknown = Topic("newer", Newer, "task_id", TopicClass.E, subject_name=f"newer{time.time_ns()}")
    changed = Topic("tasks.events", Newer, "task_id", TopicClass.E)
    async with looked_at(installed) as site:
        for topic, remedy in ((unknown, "troupe topology apply"), (changed, "another kafka.topic_prefix")):
            wiring = replace(site.topology, topics=(*site.topology.topics, topic))
            found = only(await schema_findings(replace(site, topology=wiring)), Level.ERROR)
            assert topic.subject in found.what
            assert remedy in found.remedy


async def test_a_changelog_that_no_coordinator_can_start_on(installed: Settings) -> None:
    await put(installed, "coordinator-tasks-changelog", b"a row without a header", b"some-task")
    async with looked_at(installed) as site:
        found = await changelog_findings(site)
    assert {finding.level for finding in found} == {Level.ERROR, Level.WARNING}
    assert "no header row that counts" in only(found, Level.ERROR).what
    assert "1 stray batches" in only(found, Level.WARNING).what


def agent(agent_id: str, state: AgentState) -> AgentRecord:
    definition = AgentDefinition(agent_id=agent_id, agent_type="t", heartbeat_interval_seconds=1)
    return AgentRecord(
        event_id="e", occurred_at=1, source="s", agent_id=agent_id, definition=definition, state=state,
        registered_at=1, updated_at=1, version=1, cause="c",
    )  # fmt: skip


async def heard(settings: Settings, agent_id: str, ago_s: float = 0) -> None:
    at = time.time_ns() // 1000 - int(ago_s * 1_000_000)
    beat = AgentCommand(event_id="e", occurred_at=at, source="s", kind=AgentCommandKind.HEARTBEAT, agent_id=agent_id)
    await say(settings, AGENT_COMMANDS, beat, agent_id)


async def with_inbox(site: Site, agent_id: str) -> None:
    await site.admin.create_topics([NewTopic(site.real(inbox_name(agent_id)), 1, 1)])


async def test_topics_are_counted_as_they_are_listed(installed: Settings) -> None:
    """Those of the wiring and the inboxes apart; the list has both, and the topic of the schemas."""
    async with looked_at(installed) as site:
        await with_inbox(site, "one")
        await with_inbox(site, "two")
        listed: list[str] = []
        async with asyncio.timeout(20):
            while sum(name.endswith(".inbox") for name in listed) < 2:
                await asyncio.sleep(0.1)  # Kafka tells nobody when it shows a new topic
                listed = [each.name for each in await list_topics(site.log, site.settings, site.topology)]
        found = only(await topic_findings(site), Level.OK)
    assert SCHEMAS in listed
    count = len(listed) - 3
    assert found.what == f"{count} topics of the wiring, 2 partitions each input; besides them 2 agents with an inbox"


async def test_agents_that_nobody_hears_of(installed: Settings) -> None:
    async with looked_at(installed) as site:
        for agent_id, state in (("loud", AgentState.UP), ("quiet", AgentState.UP), ("away", AgentState.OFFLINE)):
            await say(installed, AGENT_REGISTRY, agent(agent_id, state), agent_id)
        await with_inbox(site, "loud")
        await with_inbox(site, "quiet")
        await put(installed, AGENT_COMMANDS.name, b"nonsense")
        await heard(installed, "loud")
        found = await agent_findings(site)
    texts = [finding.what for finding in found]
    assert any(text == "up by the registry, and not heard of for 3 s or more: quiet" for text in texts)
    assert any(text.startswith("offline") and text.endswith(": away") for text in texts)
    assert only(found, Level.ERROR).what == "registered, and without an inbox topic: away"
    assert "agree within" in only(found, Level.OK).what


@pytest.mark.parametrize(("ago_s", "where"), [(30, "behind"), (-30, "ahead of")])
async def test_a_clock_that_is_wrong_is_named_with_its_host(installed: Settings, ago_s: float, where: str) -> None:
    await heard(installed, "right")
    await heard(installed, "wrong", ago_s)
    async with looked_at(installed) as site:
        found = only(await agent_findings(site), Level.WARNING)
    assert "'wrong'" in found.what and f"s {where} the broker's" in found.what


async def test_one_beat_that_was_long_under_way_is_no_wrong_clock(installed: Settings) -> None:
    await heard(installed, "late", 30)
    await heard(installed, "late", 0)
    async with looked_at(installed) as site:
        assert {finding.level for finding in await agent_findings(site)} == {Level.OK}


async def test_a_kafka_that_is_not_there_is_one_finding() -> None:
    away = Settings().kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1", "metadata_timeout_seconds": 1.0})
    (found,) = await all_of(Settings().model_copy(update={"kafka": away}))
    assert (found.level, found.check) == (Level.ERROR, "kafka")
    assert "127.0.0.1:1" in found.what and "troupe up" in found.remedy


async def test_a_check_that_takes_too_long_does_not_stop_the_others(installed: Settings) -> None:
    found = [each async for part in cluster_findings(installed, 0.001, lambda name: None) for each in part]
    assert {finding.check for finding in found} == {name for name, _ in CHECKS}
    assert all("--limit-seconds" in finding.remedy for finding in found)


def test_partitions_without_a_leader_or_a_copy_are_named() -> None:
    whole = {"partition": 0, "leader": 1, "replicas": [1, 2], "isr": [2, 1]}
    behind, headless = whole | {"partition": 1, "isr": [1]}, whole | {"partition": 2, "leader": -1, "isr": []}
    assert copies([{"topic": "t", "partitions": [whole]}]) == []
    found = copies([{"topic": "t", "partitions": [whole, behind, headless]}])
    assert only(found, Level.ERROR).what.endswith("written: t.2")
    assert only(found, Level.WARNING).what == "1 partition without all copies: t.1"


def test_the_version_is_told_from_what_a_broker_understands() -> None:
    assert kafka_version({1: (4, 18), 80: (0, 0)}) == "4.0 or newer"
    assert kafka_version({1: (0, 17), 75: (0, 0), 65: (0, 0)}) == "3.8 or newer"
    assert kafka_version({1: (0, 11)}) == "older than 3.0"
