"""One check after the other; what one comes upon never keeps the next from being made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from aiokafka.errors import KafkaError

from ops.doctor.cluster import (
    APPLY,
    Site,
    as_installed,
    broker_findings,
    missing_topics,
    schema_findings,
    topic_findings,
)
from ops.doctor.finding import Finding, error, raised, warning
from ops.doctor.work import agent_findings, changelog_findings, group_findings
from ops.topics import admin
from ops.views.log import open_log
from schemas.errors import BrokerUnavailable, TroupeError
from schemas.settings import Settings
from topology import troupe

Check = Callable[[Site], Awaitable[list[Finding]]]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("kafka", broker_findings),
    ("schemas", schema_findings),
    ("topics", topic_findings),
    ("lag", group_findings),
    ("agents", agent_findings),
    ("changelogs", changelog_findings),
)
"""In the order in which a fault explains those after it."""


async def cluster_findings(
    settings: Settings, limit_s: float, tell: Callable[[str], None]
) -> AsyncIterator[list[Finding]]:
    """The findings of each check on a Kafka; `tell` hears its name before. A check may take `limit_s` seconds.

    A Kafka that does not answer is one finding, and the last.
    """
    tell("kafka")
    try:
        async with admin(settings) as client, open_log(settings) as log:
            site = await as_installed(Site(settings, troupe(), log, client, limit_s))
            for name, check in CHECKS:
                tell(name)
                yield await _made(name, check, site, limit_s)
                if name == "topics" and await missing_topics(site):
                    rest = ", ".join(other for other, _ in CHECKS[3:])
                    yield [warning(name, f"as topics are missing, nothing was looked at of: {rest}", APPLY)]
                    return
    except BrokerUnavailable as away:
        yield [raised("kafka", away)]


async def _made(name: str, check: Check, site: Site, limit_s: float) -> list[Finding]:
    try:
        async with asyncio.timeout(limit_s):
            return await check(site)
    except TroupeError as wrong:
        return [raised(name, wrong)]
    except TimeoutError:
        return [error(name, f"looking took longer than {limit_s:g} s", "look again with a longer --limit-seconds")]
    except (KafkaError, OSError) as wrong:
        return [raised(name, BrokerUnavailable(f"{type(wrong).__name__}: {wrong}"))]
