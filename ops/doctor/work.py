"""What can be wrong with the work itself: changelogs, lag, agents that went silent, clocks that disagree."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping

from aiokafka import TopicPartition

from ops.changelogs import ChangelogState, ahead_of_inputs, read_changelog
from ops.codecs import load_codecs
from ops.doctor.cluster import Site, inputs_of
from ops.doctor.finding import Finding, counted, error, ok, some, warning
from ops.views.agents import AgentsFold
from ops.views.tasks import instant
from schemas.agents import AgentCommand, AgentCommandKind, AgentState
from schemas.codec import Codecs
from schemas.errors import DecodeError, UnknownSchemaId
from schemas.topics import AGENT_COMMANDS, AGENT_REGISTRY, DEAD_LETTERS, inbox_name

LONG_LAG = 10_000
CLOCK_S = 1.0
HEADER = "changelog.header-value"
_WINDOW_S = 60.0  # of heartbeats; longer for agents that beat more seldom


async def changelog_findings(site: Site) -> list[Finding]:
    """What the next owner of each table would find in its changelog."""
    codecs = await load_codecs(site.settings, site.topology, (HEADER,))
    decode = codecs.of(HEADER).decode
    findings: list[Finding] = []
    records = 0
    for spec in site.topology.processors:
        for place in site.places(spec.changelog.name):
            state = await read_changelog(site.log.consumer, place, decode, site.limit_s)
            inputs = {topic.name: TopicPartition(site.real(topic.name), place.partition) for topic in spec.reads}
            ends = await site.log.ends(inputs.values())
            findings += _changelog(state, {name: ends[at] for name, at in inputs.items()})
            records += state.records
    return findings or [ok("changelogs", f"{records} rows, every batch at its place and under its header")]


def _changelog(state: ChangelogState, ends: dict[str, int]) -> list[Finding]:
    place = f"{state.topic}.{state.partition}"
    findings = []
    for name, reached, end in ahead_of_inputs(state, ends):
        what = f"{place} has the effects of {name} up to {reached}, which ends at {end}: the topic was emptied or made anew"
        findings.append(error("changelogs", what, "delete the changelog too, or use another kafka.topic_prefix"))
    if state.end > state.start and state.header is None:
        what = f"{place} has records and no header row that counts: no coordinator can start on it"
        findings.append(
            error("changelogs", what, "use another kafka.topic_prefix; keep the topic for whoever looks into it")
        )
    if state.stray_count and not state.claimed:
        what = f"{place} has {state.stray_count} stray batches, and {len(state.overwritten)} keys end with a record of them"
        findings.append(warning("changelogs", what, "restart the coordinator: its claim writes what counts once more"))
    elif state.stray_count:
        last = state.strays[-1]
        by = last.instance or "somebody unknown"
        what = f"{place} has {state.stray_count} stray batches, the last at {last.first} by {by}; they are ignored"
        findings.append(ok("changelogs", what))
    return findings


async def group_findings(site: Site) -> list[Finding]:
    """Whether somebody reads what is written, and how far behind."""
    return [*await _coordinators(site), *await _hosts(site), *await _letters(site)]


async def _coordinators(site: Site) -> list[Finding]:
    group = site.real("coordinator")
    members = (await _members(site, [group]))[group]
    lag = await _lag(site, group, inputs_of(site))
    if not members:
        what = (
            f"no coordinator is running, and {counted(lag, 'record')} to be decided"
            if lag
            else "no coordinator is running"
        )
        return [(error if lag else warning)("lag", what, "troupe up")]
    what = f"{counted(members, 'coordinator')}, {counted(lag, 'record')} behind"
    if lag > LONG_LAG:
        return [warning("lag", what, "run `troupe doctor` again: does it fall? Else start another coordinator")]
    return [ok("lag", what)]


async def _hosts(site: Site) -> list[Finding]:
    begin = site.real("actors.")
    known = {name for name, *_ in await site.admin.list_consumer_groups()}
    groups = sorted(name for name in known if name.startswith(begin))
    commits = {group: await _commits(site, group) for group in groups}
    # An agent with a group of its own may have been in its host's before: the group is its inbox's name without the end.
    inboxes = {place.topic for each in commits.values() for place in each}
    own = sorted(known & {topic.removesuffix(".inbox") for topic in inboxes})
    commits |= {group: await _commits(site, group) for group in own}
    members = await _members(site, [*commits])
    waiting = await _waiting(site, commits, members)
    findings = []
    for group in groups:
        host, lag = group.removeprefix(begin), waiting[group]
        if lag and not members[group]:
            what = f"the host of agents '{host}' is not running, and {counted(lag, 'assignment')} wait in its inboxes"
            findings.append(warning("lag", what, "start it again: `troupe up`, or `troupe run FILE`"))
        elif lag > LONG_LAG:
            what = f"the host of agents '{host}' is {lag} assignments behind"
            findings.append(warning("lag", what, f"start another process of it: `troupe run FILE --host {host}`"))
    running = [group.removeprefix(begin) for group in groups if members[group]]
    if not running:
        findings.append(warning("lag", "no host of agents is running", "troupe up, or troupe run FILE"))
    return findings or [ok("lag", f"{counted(len(running), 'host')} of agents: {some(running)}, none far behind")]


async def _letters(site: Site) -> list[Finding]:
    places = await site.log.partitions(site.real(DEAD_LETTERS.name))
    begin, end = await site.log.beginnings(places), await site.log.ends(places)
    count = sum(end[place] - begin[place] for place in places)
    if not count:
        return [ok("dead letters", "none")]
    what = f"{count} since the topic begins; each is a task or a record that could not be worked on"
    return [warning("dead letters", what, "troupe topics tail tasks.deadletters")]


async def _members(site: Site, groups: list[str]) -> dict[str, int]:
    found = dict.fromkeys(groups, 0)
    for group in groups:  # one by one: aiokafka 0.14 reads an answer about several groups with the schema before it
        for answer in await site.admin.describe_consumer_groups([group]):
            for described in answer.groups:
                found[described[1]] = len(described[5])
    return found


async def _commits(site: Site, group: str) -> dict[TopicPartition, int]:
    committed = await site.admin.list_consumer_group_offsets(group)
    return {place: each.offset for place, each in committed.items()}


async def _lag(site: Site, group: str, inputs: Iterable[TopicPartition]) -> int:
    """Records between what a group has committed and the ends."""
    committed = await _commits(site, group)
    existing = await site.log.topics()
    places = [place for place in inputs if place.topic in existing]
    begin, end = await site.log.beginnings(places), await site.log.ends(places)
    return sum(max(0, end[place] - max(begin[place], committed.get(place, 0))) for place in places)


async def _waiting(
    site: Site, commits: Mapping[str, Mapping[TopicPartition, int]], members: Mapping[str, int]
) -> Counter[str]:
    """Assignments that wait, by group. Agents move, and each group begins where the one before left off: so an inbox is
    with the group that has come furthest, and of two that have come as far with the one that lives.
    """
    existing = await site.log.topics()
    places = {place for each in commits.values() for place in each if place.topic in existing}
    begin, end = await site.log.beginnings(places), await site.log.ends(places)
    waiting: Counter[str] = Counter()
    for place in places:
        come = {group: each[place] for group, each in commits.items() if place in each}
        reached = {group: offset if offset <= end[place] else 0 for group, offset in come.items()}
        group = max(reached, key=lambda each: (reached[each], members[each] > 0, each))
        waiting[group] += end[place] - max(begin[place], reached[group])
    return waiting


async def agent_findings(site: Site) -> list[Finding]:
    """Agents that nobody hears of, and the clocks of those who are heard."""
    codecs = await load_codecs(site.settings, site.topology, (AGENT_REGISTRY.subject, AGENT_COMMANDS.subject))
    fold = await _registry(site, codecs)
    missed = site.settings.agents.missed_heartbeats
    waits = {each: missed * record.definition.heartbeat_interval_seconds for each, record in fold.records.items()}
    window_s = max([_WINDOW_S, *waits.values()])
    beats = await _heartbeats(site, codecs, time.time() - window_s)
    return [*_silent(fold, waits, beats), *await _inboxes(site, fold), _clock(beats)]


async def _registry(site: Site, codecs: Codecs) -> AgentsFold:
    fold, codec = AgentsFold(), codecs.of(AGENT_REGISTRY.subject)
    places = await site.log.partitions(site.real(AGENT_REGISTRY.name))
    async for record in site.log.read(await site.log.beginnings(places), await site.log.ends(places)):
        try:
            value = None if record.value is None else codec.decode(record.value)
        except (DecodeError, UnknownSchemaId):  # somebody else's record; `troupe topics tail` shows it
            continue
        fold.add_record((record.key or b"").decode(errors="replace"), value)
    return fold


Beats = Mapping[str, tuple[float, float]]
"""By agent: when it was last heard of (s since the epoch, the broker's clock), and by how much its clock is behind that."""


async def _heartbeats(site: Site, codecs: Codecs, since_s: float) -> Beats:
    codec, found = codecs.of(AGENT_COMMANDS.subject), dict[str, tuple[float, float]]()
    places = await site.log.partitions(site.real(AGENT_COMMANDS.name))
    async for record in site.log.read(await site.log.since(places, since_s), await site.log.ends(places)):
        try:
            said = codec.decode(record.value or b"")
        except (DecodeError, UnknownSchemaId):
            continue
        if isinstance(said, AgentCommand) and said.kind is AgentCommandKind.HEARTBEAT:
            at = record.timestamp / 1000
            behind = at - said.occurred_at / 1_000_000
            least = min(behind, found.get(said.agent_id, (0.0, behind))[1], key=abs)
            found[said.agent_id] = at, least
    return found


def _silent(fold: AgentsFold, waits: Mapping[str, int], beats: Beats) -> list[Finding]:
    now = time.time()
    up = [agent for agent, record in sorted(fold.records.items()) if record.state is AgentState.UP]
    quiet = [agent for agent in up if now - beats.get(agent, (0.0, 0.0))[0] > waits[agent]]
    offline = [agent for agent, record in sorted(fold.records.items()) if record.state is AgentState.OFFLINE]
    findings = []
    if quiet:
        what = f"up by the registry, and not heard of for {waits[quiet[0]]} s or more: {some(quiet)}"
        findings.append(warning("agents", what, "is their host running, and a coordinator to notice? see `troupe ps`"))
    if offline:
        since = instant(fold.records[offline[0]].updated_at)
        what = f"offline, the first since {since}: {some(offline)}"
        findings.append(warning("agents", what, "start their host: `troupe up`, or `troupe run FILE`"))
    return findings or [ok("agents", f"{counted(len(fold.records), 'agent')}, {len(up)} of them up and heard of")]


async def _inboxes(site: Site, fold: AgentsFold) -> list[Finding]:
    existing = await site.log.topics()
    missing = [agent for agent in sorted(fold.records) if site.real(inbox_name(agent)) not in existing]
    if not missing:
        return []
    what = f"registered, and without an inbox topic: {some(missing)}"
    return [error("agents", what, "start their host again: it registers them, and the coordinator creates the inboxes")]


def _clock(beats: Beats) -> Finding:
    """Timers run on the broker's clock; a host's own matters for the deadlines that its handlers see."""
    if not beats:
        return ok("clock", "not compared: no agent was heard of lately")
    agent, worst = max(((agent, behind) for agent, (_, behind) in beats.items()), key=lambda each: abs(each[1]))
    if abs(worst) > CLOCK_S:
        where = "behind" if worst > 0 else "ahead of"
        what = f"the clock of the host of '{agent}' is {abs(worst):.1f} s {where} the broker's"
        return warning("clock", what, "let both follow the same time (`timedatectl status` on each machine)")
    return ok("clock", f"hosts and broker agree within {abs(worst) * 1000:.0f} ms, the way included")
