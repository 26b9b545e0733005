"""Who else reads our inboxes: two groups that read one inbox would each run every assignment of it.

Kafka shares an inbox among the members of a group and knows nothing of what two groups do to each other, so a host
looks before it registers, and once more when it has joined, before it takes any work: of two that come at the same
moment at least the later sees the other. If both do, the process whose name sorts first stays: the other gives way at
once, and the first waits for that, in vain if the other has been at work all along. A process has one name in all its
groups, so that two of them that meet at several agents, in groups of different names, come to the same answer at each.
A member that was killed, or stopped a moment ago, is still listed until its session is over; that is waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, for_code

from schemas.closing import closed
from schemas.errors import BrokerUnavailable, OperatorError
from schemas.settings import Settings
from schemas.topics import inbox_name

_LOOK_SECONDS = 0.5
_SESSIONS = 1.5
"""Sessions that a member which is gone may stay listed, the broker's own delay included."""

_UNSETTLED = ("PreparingRebalance", "CompletingRebalance")
_LISTED = 50
"""Groups asked about at once."""


class _Rival(NamedTuple):
    """Another group that reads the inbox of one of our agents, and the client ids of its members that do."""

    agent_id: str
    group: str
    members: frozenset[str]


async def refuse_rivals(settings: Settings, groups: Mapping[str, str], *, joined_as: str | None) -> None:
    """Return when no living member of another group reads one of these inboxes. `groups`: our group by agent id.

    Members that are gone get the time until Kafka knows it. `joined_as`: the client id with which we are members
    ourselves, None before that; we give way to a member whose client id sorts before it. Raises OperatorError naming agent
    and group, and BrokerUnavailable.
    """
    prefix = settings.kafka.topic_prefix
    ours = {prefix + inbox_name(agent_id): (agent_id, group) for agent_id, group in groups.items()}
    ends = time.monotonic() + _SESSIONS * settings.actors.session_timeout_seconds
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    try:
        async with asyncio.timeout(settings.kafka.metadata_timeout_seconds):
            await client.start()
        told = False
        while found := await _rivals(client, settings, ours):
            gives_way = joined_as is not None and any(min(each.members) < joined_as for each in found)
            if gives_way or time.monotonic() > ends:
                raise _refusal(found, prefix)
            if not told:
                told = True
                inboxes = {each.agent_id: each.group for each in found}
                structlog.get_logger("actors").info("waiting_for_another_host", inboxes=inboxes)
            await asyncio.sleep(_LOOK_SECONDS)
    except GroupAuthorizationFailedError as error:
        structlog.get_logger("actors").warning("groups_not_shown", error=repr(error))
    except (KafkaError, TimeoutError) as error:
        raise BrokerUnavailable(f"Kafka does not say who reads the inboxes: {error!r}") from error
    finally:
        await client.close()


async def last_of(settings: Settings, groups: Iterable[str], name: str, limit_s: float) -> set[str]:
    """Those of our groups in which nobody goes on when we leave; none if Kafka does not say so within `limit_s`.

    `name`: our client id. Who is alone in a group that has removed us goes on with our agents.
    """
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    try:
        async with asyncio.timeout(limit_s):
            await client.start()
            found = await _described(client, groups)
    except (KafkaError, TimeoutError) as error:
        structlog.get_logger("actors").info("goodbye_not_said", error=repr(error))
        return set()
    finally:
        await closed(client.close(), limit_s)
    alone = [name]
    return {group for group, state, members in found if state not in _UNSETTLED and [x[1] for x in members] == alone}


def _refusal(found: Sequence[_Rival], prefix: str) -> OperatorError:
    agent_id, group, _ = found[0]
    others = len({each.agent_id for each in found}) - 1
    more = f" and {others} more" if others else ""
    kind, _, host = group.removeprefix(prefix).partition(".")
    share = f"`--host {host}` shares its work" if kind == "actors" else '`config={"own_group": True}` shares its work'
    return OperatorError(
        f"Agent '{agent_id}'{more} is hosted already, in the consumer group '{group}'; two groups would run each task twice",
        hint=f"stop the other host (its `troupe run` or `troupe up`), or join it: {share}",
    )


async def _rivals(client: AIOKafkaAdminClient, settings: Settings, ours: Mapping[str, tuple[str, str]]) -> list[_Rival]:
    """Those of other groups, an agent and a group at a time."""
    prefix, limit = settings.kafka.topic_prefix, settings.kafka.metadata_timeout_seconds
    async with asyncio.timeout(limit):
        names = [name for name, *_ in await client.list_consumer_groups()]
    hosts = [name for name in names if name.startswith((f"{prefix}actors.", f"{prefix}agents."))]
    mine = {group for _, group in ours.values()}
    if len(mine) == 1:
        hosts = [name for name in hosts if name not in mine]
    found: list[_Rival] = []
    for start in range(0, len(hosts), _LISTED):
        for group, members in (await _readers(client, hosts[start : start + _LISTED], limit)).items():
            for topic in sorted(members.keys() & ours.keys()):
                agent_id, own = ours[topic]
                if group != own:
                    found.append(_Rival(agent_id, group, members[topic]))
    return found


async def _readers(
    client: AIOKafkaAdminClient, groups: Sequence[str], limit: float
) -> dict[str, dict[str, frozenset[str]]]:
    """By group: the topics that living members subscribe to, and the client ids of these. While members join or leave
    Kafka shows none; a group that is not settled within `limit` seconds is passed over, lest a restless one keep all
    others from starting.
    """
    found: dict[str, dict[str, frozenset[str]]] = {}
    waiting, ends = set(groups), time.monotonic() + limit
    while waiting:
        async with asyncio.timeout(limit):
            described = await _described(client, waiting)
        for group, state, members in described:
            if state not in _UNSETTLED:
                found[group] = _topics(members)
                waiting.discard(group)
        if waiting and time.monotonic() > ends:
            structlog.get_logger("actors").warning("groups_not_settled", groups=sorted(waiting))
            break
        if waiting:
            await asyncio.sleep(_LOOK_SECONDS)
    return found


async def _described(client: AIOKafkaAdminClient, groups: Iterable[str]) -> list[tuple[str, str, Sequence[Any]]]:
    """(group, state, members) of each. Raises KafkaError."""
    # One at a time: the client reads an answer of version 3 as one of version 2, which fails after the first.
    asked = [client.describe_consumer_groups([group]) for group in sorted(groups)]
    found = []
    for answer in (answer for answers in await asyncio.gather(*asked) for answer in answers):
        for code, group, state, _, _, members, *_ in answer.groups:
            if code:
                raise for_code(code)
            found.append((group, state, members))
    return found


def _topics(members: Sequence[Any]) -> dict[str, frozenset[str]]:
    """Client ids by topic."""
    found: dict[str, frozenset[str]] = {}
    for _, client_id, _, metadata, _ in members:
        try:
            topics = ConsumerProtocolMemberMetadata.decode(metadata).subscription
        except (ValueError, TypeError, IndexError):  # another protocol than that of consumers
            continue
        found |= {topic: found.get(topic, frozenset()) | {client_id} for topic in topics}
    return found
