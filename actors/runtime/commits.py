"""What was committed for our inboxes, in our group and in those that had them before: read on Kafka, merged elsewhere.

The admin client takes an answer that says nothing but an error (the group is just being loaded, say) for one without
commits, and an inbox would begin at its start; so the answer is read here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest

from actors.handover import Commit, works_for
from schemas.closing import closed
from schemas.errors import BrokerUnavailable
from schemas.settings import Settings

_ASKED = 50
"""Groups asked at once."""

_AGAIN_SECONDS = 0.2
_NOT_YET = (GroupLoadInProgressError, GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError)


class Committed(NamedTuple):
    """By partition: the commit of our group, and those of other groups."""

    own: Mapping[TopicPartition, Commit]
    others: Mapping[TopicPartition, Sequence[Commit]]


async def read_commits(settings: Settings, group: str, inboxes: Mapping[TopicPartition, str]) -> Committed:
    """All that `group` has committed, and what the groups that may have worked before have for `inboxes` (agent ids by
    partition; none asks nobody). Groups that Kafka does not show are warned of and left out. Raises KafkaError, and
    BrokerUnavailable when Kafka has no answer in time.
    """
    limit = settings.kafka.metadata_timeout_seconds
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    others: dict[TopicPartition, list[Commit]] = {}
    hidden: list[str] = []
    try:
        async with asyncio.timeout(limit):
            await client.start()
            own = await _commits(client, group)
            names = await _before(client, settings.kafka.topic_prefix, group, inboxes) if inboxes else []
        for start in range(0, len(names), _ASKED):
            asked = names[start : start + _ASKED]
            async with asyncio.timeout(limit):
                shown = await asyncio.gather(*(_shown(client, each) for each in asked))
            hidden += [name for name, commits in zip(asked, shown, strict=True) if commits is None]
            for name, commits in zip(asked, shown, strict=True):
                for place, commit in (commits or {}).items():
                    if place in inboxes and works_for(name, settings.kafka.topic_prefix, inboxes[place]):
                        others.setdefault(place, []).append(commit)
    except TimeoutError as error:
        raise BrokerUnavailable(f"Kafka does not say what is done of the inboxes, within {limit:g} s") from error
    finally:
        await closed(client.close(), limit)
    if hidden:
        structlog.get_logger("actors").warning("commits_not_shown", groups=hidden)
    return Committed(own, others)


async def _before(
    client: AIOKafkaAdminClient, prefix: str, group: str, inboxes: Mapping[TopicPartition, str]
) -> list[str]:
    """The other groups that may have worked on one of these inboxes."""
    own_groups = {f"{prefix}agents.{agent_id}" for agent_id in inboxes.values()}
    while True:
        try:
            names = {name for name, *_ in await client.list_consumer_groups()} - {group}
            return sorted(name for name in names if name in own_groups or name.startswith(f"{prefix}actors."))
        except _NOT_YET:
            await asyncio.sleep(_AGAIN_SECONDS)


async def _shown(client: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, Commit] | None:
    """The commits of a group; None if we may not see them."""
    try:
        return await _commits(client, group)
    except GroupAuthorizationFailedError:
        return None


async def _commits(client: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, Commit]:
    """All commits of a group; waits for one that is just being loaded or moved. Raises KafkaError."""
    while True:
        try:
            answer = await client._send_request(OffsetFetchRequest(group, None), await client.find_coordinator(group))
            if answer.error_code:
                raise for_code(answer.error_code)(group)
            break
        except _NOT_YET:
            await asyncio.sleep(_AGAIN_SECONDS)
    found: dict[TopicPartition, Commit] = {}
    for topic, parts in answer.topics:
        for partition, offset, metadata, code in parts:
            if code:
                raise for_code(code)(f"{group}: {topic}.{partition}")
            if offset >= 0:
                found[TopicPartition(topic, partition)] = offset, metadata or ""
    return found
