"""The commits of other groups on a real Kafka: whose count, whose do not, and what a host that meets them does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from structlog.testing import capture_logs

from actors.api import Actor, Context
from actors.runtime import inboxes
from actors.runtime.commits import Committed, read_commits
from ops.broker.local import BrokerOptions, LocalKafka
from schemas.errors import BrokerUnavailable
from schemas.settings import Settings, load_settings
from schemas.topics import inbox_name
from tests.actors.stage import Stage, assignment, outcomes

pytestmark = pytest.mark.kafka


class Note:
    """A handler that notes the tasks that it has begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.actor = Actor("echo", self.work)

    async def work(self, payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        self.begun.append(ctx.task_id)
        return {}


async def commit(stage: Stage, group: str, agent_id: str, offset: int, metadata: str = "") -> None:
    """As somebody who reads the inbox in this group, and is gone."""
    async with AIOKafkaConsumer(
        bootstrap_servers=stage.settings.kafka.bootstrap_servers, group_id=group, enable_auto_commit=False
    ) as reader:
        place = TopicPartition(stage.name(inbox_name(agent_id)), 0)
        reader.assign([place])
        await reader.commit({place: OffsetAndMetadata(offset, metadata)})


async def test_only_groups_that_do_an_agents_work_are_asked(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(Actor("echo", Note().work), Actor("other", Note().work))
        inbox = TopicPartition(stage.name(inbox_name("echo")), 0)
        said = {
            "actors.main": (3, "1;1+1"), "actors.one": (4, "1;2+1"), "agents.echo": (5, ""), "agents.other": (6, ""),
            "looker": (9, ""),
        }  # fmt: skip
        for group, (offset, metadata) in said.items():
            await commit(stage, stage.name(group), "echo", offset, metadata)
        await commit(stage, f"x{stage.name('actors.main')}", "echo", 8)
        await commit(stage, stage.name("actors.one"), "other", 7)
        main = stage.name("actors.main")
        assert await read_commits(stage.settings, main, {inbox: "echo"}) == Committed(
            {inbox: (3, "1;1+1")}, {inbox: [(4, "1;2+1"), (5, "")]}
        )
        assert await read_commits(stage.settings, main, {}) == Committed({inbox: (3, "1;1+1")}, {})
        assert await read_commits(stage.settings, stage.name("actors.new"), {}) == Committed({}, {})


async def test_all_are_asked_where_they_are_more_than_are_asked_at_once(broker: str, tmp_path: Path) -> None:
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(Actor("echo", Note().work))
        inbox = TopicPartition(stage.name(inbox_name("echo")), 0)
        for start in range(0, 120, 20):
            names = [stage.name(f"actors.h{number}") for number in range(start, start + 20)]
            await asyncio.gather(*(commit(stage, each, "echo", 1) for each in names))
        found = await read_commits(stage.settings, stage.name("actors.main"), {inbox: "echo"})
        assert found == Committed({}, {inbox: [(1, "")] * 120})


async def test_a_group_that_is_deleted_says_nothing(broker: str, tmp_path: Path) -> None:
    note = Note()
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(note.actor)
        await stage.assign("echo", "t")
        await commit(stage, stage.name("actors.gone"), "echo", 1)
        admin = AdminClient({"bootstrap.servers": broker})
        for deleted in admin.delete_consumer_groups([stage.name("actors.gone")]).values():
            await asyncio.to_thread(deleted.result, 20)
        async with stage.host(note.actor, enrol=False):
            await stage.reports(outcomes)
        assert note.begun == ["t"]


async def test_an_inbox_that_was_made_anew_is_read_from_its_beginning(broker: str, tmp_path: Path) -> None:
    """Kafka forgets what was committed for a topic that is deleted, so the old offsets hide nothing of the new one."""
    note = Note()
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(note.actor)
        await stage.assign("echo", "old")
        await commit(stage, stage.name("actors.gone"), "echo", 1)
        admin = AdminClient({"bootstrap.servers": broker})
        for deleted in admin.delete_topics([stage.name(inbox_name("echo"))]).values():
            await asyncio.to_thread(deleted.result, 20)
        await stage.enrol(note.actor)
        await stage.assign("echo", "t")
        await stage.assign("echo", "u")
        async with stage.host(note.actor, enrol=False):
            await stage.reports(lambda seen: len(outcomes(seen)) == 2)
        assert note.begun == ["t", "u"]


@pytest.mark.parametrize(
    ("commits", "begun"),
    [
        ({"agents.echo": 2}, ["t2"]),
        ({"looker": 3, "agents.other": 3}, ["t0", "t1", "t2"]),
        ({"actors.gone": 4}, ["t0", "t1", "t2"]),
        ({"actors.main": 4, "actors.gone": 1}, ["t1", "t2"]),
    ],
    ids=["an agent in another language", "strangers", "of another log", "ours is of another log"],
)
async def test_a_host_begins_where_others_left_off(
    broker: str, tmp_path: Path, commits: Mapping[str, int], begun: list[str]
) -> None:
    note = Note()
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(note.actor)
        await stage.assign_many("echo", [assignment(f"t{number}") for number in range(3)])
        for group, offset in commits.items():
            await commit(stage, stage.name(group), "echo", offset)
        async with stage.host(note.actor, enrol=False):
            await stage.reports(lambda seen: "t2" in outcomes(seen))
            await stage.reports(lambda seen: len(outcomes(seen)) == len(begun))
        assert note.begun == begun
        assert await stage.committed("echo") == (3, "")


async def test_others_are_asked_once_and_not_at_each_rebalance(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def noted(settings: Settings, group: str, new: Mapping[TopicPartition, str]) -> Committed:
        asked.append(len(new))
        return await read_commits(settings, group, new)

    monkeypatch.setattr(inboxes, "read_commits", noted)
    note = Note()
    async with Stage.open(broker, tmp_path) as stage:
        await stage.enrol(note.actor)
        await stage.assign("echo", "t")
        await commit(stage, stage.name("actors.gone"), "echo", 1)
        async with stage.host(note.actor, enrol=False):
            async with AIOKafkaConsumer(
                stage.name(inbox_name("echo")), bootstrap_servers=broker, group_id=stage.name("actors.main"),
                enable_auto_commit=False,
            ):  # fmt: skip
                await asyncio.sleep(0.5)
            await stage.assign("echo", "u")
            await stage.reports(outcomes)
        assert asked[0] == 1
        assert len(asked) > 1
        assert not any(asked[1:])
        assert note.begun == ["u"]


async def test_an_answer_that_does_not_come_in_time_is_no_answer(broker: str) -> None:
    hasty = load_settings({}, overrides={"kafka.bootstrap_servers": broker, "kafka.metadata_timeout_seconds": 0.001})
    with pytest.raises(BrokerUnavailable, match="what is done of the inboxes"):
        await read_commits(hasty, "actors.main", {})


async def test_groups_that_kafka_does_not_show_are_left_out(tmp_path: Path) -> None:
    """And named in the log: what was done there may be done again."""
    rights = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    kafka = LocalKafka(BrokerOptions(directory=tmp_path / "kafka", overrides=rights))
    broker = (await kafka.start()).bootstrap
    try:
        async with Stage.open(broker, tmp_path) as stage:
            note = Note()
            await stage.enrol(note.actor)
            await stage.assign_many("echo", [assignment(f"t{number}") for number in range(3)])
            await commit(stage, stage.name("actors.hidden"), "echo", 2)
            await commit(stage, stage.name("actors.shown"), "echo", 1)
            await asyncio.to_thread(_hide, broker, stage.name("actors.hidden"))
            with capture_logs() as logs:
                async with stage.host(note.actor, enrol=False):
                    await stage.reports(lambda seen: len(outcomes(seen)) == 2)
            told = [each["groups"] for each in logs if each["event"] == "commits_not_shown"]
            assert told == [[stage.name("actors.hidden")]]
            assert note.begun == ["t1", "t2"]
    finally:
        await kafka.stop()


def _hide(broker: str, group: str) -> None:
    """Let nobody look at a group."""
    nobody = AclBinding(
        ResourceType.GROUP,
        group,
        ResourcePatternType.LITERAL,
        "User:*",
        "*",
        AclOperation.DESCRIBE,
        AclPermissionType.DENY,
    )
    admin = AdminClient({"bootstrap.servers": broker})
    for answer in admin.create_acls([nobody]).values():
        answer.result(20)
