"""What can be wrong with the Kafka cluster: who answers, which topics are there and how, which schemas are registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import ApiVersionRequest

from ops.doctor.finding import Finding, counted, error, ok, raised, some, warning
from ops.registry.schema_log import read_schemas
from ops.topics import Found, check_topic, found_topics
from ops.views.log import LogReader
from schemas.avro import avro_schema
from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.topics import TASK_REQUESTS, inbox_name
from topology import Topology, config_of, partitions_of

APPLY = "troupe topology apply"
_FETCH, _NO_LEADER = 1, -1
_SINCE = {80: "3.9", 75: "3.8", 69: "3.7", 65: "3.0"}
"""Requests by their number, and the version of Kafka that began to answer them."""


@dataclass(frozen=True)
class Site:
    """An installation that answers. settings: with the partition count that its topics have."""

    settings: Settings
    topology: Topology
    log: LogReader
    admin: AIOKafkaAdminClient
    limit_s: float

    def real(self, name: str) -> str:
        """A topic's or group's name with the prefix of the installation."""
        return self.settings.kafka.topic_prefix + name

    def places(self, name: str) -> list[TopicPartition]:
        """The partitions of an input or changelog, by its name without prefix."""
        return [TopicPartition(self.real(name), number) for number in range(self.settings.kafka.partitions)]


async def as_installed(site: Site) -> Site:
    """The same with the partition count that the topics have; it is fixed when they are created, whatever is set now."""
    if "partitions" in site.settings.kafka.model_fields_set:
        return site
    name = site.real(TASK_REQUESTS.name)
    found = await found_topics(site.admin, [name])
    if name not in found:
        return site
    kafka = site.settings.kafka.model_copy(update={"partitions": found[name].partitions})
    return replace(site, settings=site.settings.model_copy(update={"kafka": kafka}))


async def broker_findings(site: Site) -> list[Finding]:
    """Who answers, and whether there are as many brokers as copies are wanted."""
    cluster = await site.admin.describe_cluster()
    answer = await site.admin._send_request(ApiVersionRequest())
    version = kafka_version({key: (least, most) for key, least, most in answer.api_versions})
    brokers, wanted = len(cluster["brokers"]), site.settings.kafka.replication_factor
    copies = "one broker: one copy of the data" if brokers == 1 else f"{brokers} brokers"
    found = [ok("kafka", f"Kafka {version} answers at {site.settings.kafka.bootstrap_servers}, {copies}")]
    if wanted is not None and wanted > brokers:
        what = f"kafka.replication_factor is {wanted} and there are {brokers} brokers: no topic can be created"
        found.append(error("kafka", what, f"--set kafka.replication_factor={brokers}, or add brokers"))
    if version.startswith("older"):
        found.append(warning("kafka", f"Kafka {version} is older than any that was tried", "take Kafka 3.7 or newer"))
    return found


def kafka_version(requests: Mapping[int, tuple[int, int]]) -> str:
    """The version of a broker by what it understands (its number is in no answer): request to least and most version."""
    if requests.get(_FETCH, (0, 0))[0] >= 4:  # 4.0 gave up the older forms
        return "4.0 or newer"
    return next((f"{since} or newer" for key, since in _SINCE.items() if key in requests), "older than 3.0")


async def topic_findings(site: Site) -> list[Finding]:
    """Topics that are missing, laid out in a way that cannot work, or without a leader or a copy."""
    wanted = {site.real(topic.name): topic for topic in site.topology.all_topics()}
    found = await found_topics(site.admin, list(wanted))
    findings: list[Finding] = []
    missing = [name for name in wanted if name not in found]
    if missing:
        findings.append(error("topics", f"{len(missing)} of {len(wanted)} topics do not exist: {some(missing)}", APPLY))
    for name, present in found.items():
        try:
            check_topic(present, wanted[name], site.settings)
        except OperatorError as wrong:
            findings.append(raised("topics", wrong))
    findings += _retention(found, wanted, site.settings)
    inboxes = site.real(inbox_name("*"))
    described = await site.admin.describe_topics()
    findings += copies([each for each in described if each["topic"] in wanted or fnmatchcase(each["topic"], inboxes)])
    if not findings:
        boxes = [each for each in described if fnmatchcase(each["topic"], inboxes)]
        what = f"{len(wanted)} topics of the wiring, {site.settings.kafka.partitions} partitions each input"
        findings.append(ok("topics", f"{what}; besides them {counted(len(boxes), 'agent')} with an inbox"))
    return findings


async def missing_topics(site: Site) -> list[str]:
    """Topics of the wiring that do not exist."""
    existing = await site.log.topics()
    return [name for topic in site.topology.all_topics() if (name := site.real(topic.name)) not in existing]


def _retention(found: Mapping[str, Found], wanted: Mapping[str, Any], settings: Settings) -> list[Finding]:
    """Compacted too early a stray could take a row away; kept shorter than set is an operator's choice, so only told."""
    findings: list[Finding] = []
    for name, present in found.items():
        for key in ("min.compaction.lag.ms", "retention.ms"):
            asked = config_of(wanted[name], settings).get(key)
            has = present.config.get(key)
            if asked is None or has is None or int(has) < 0 or int(has) >= int(asked):
                continue
            what = f"Topic '{name}' has {key}={has}, less than the {asked} of the settings"
            remedy = (
                f"kafka-configs --bootstrap-server {settings.kafka.bootstrap_servers} --alter "
                f"--entity-type topics --entity-name {name} --add-config {key}={asked}"
            )
            findings.append(warning("topics", what, remedy))
    return findings


def copies(described: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Partitions without a leader or with copies that are behind; topics as the admin client describes them."""
    headless, behind = [], []
    for each in described:
        for part in each["partitions"]:
            place = f"{each['topic']}.{part['partition']}"
            if part["leader"] == _NO_LEADER:
                headless.append(place)
            elif len(part["isr"]) < len(part["replicas"]):
                behind.append(place)
    findings = []
    if headless:
        what = f"{counted(len(headless), 'partition')} without a leader, so neither read nor written: {some(headless)}"
        findings.append(error("topics", what, "start the brokers that are down"))
    if behind:
        what = f"{counted(len(behind), 'partition')} without all copies: {some(behind)}"
        findings.append(warning("topics", what, "start the brokers that are down, and wait until they have caught up"))
    return findings


async def schema_findings(site: Site) -> list[Finding]:
    """Whether every record of this version has its schema registered, or could."""
    kafka = site.settings.kafka
    view = await read_schemas(kafka.bootstrap_servers, kafka.metadata_timeout_seconds)
    models = {subject: avro_schema(model) for subject, model in site.topology.models().items()}
    missing = [subject for subject, schema in models.items() if view.id_of(subject, schema) is None]
    findings: list[Finding] = []
    for subject in missing:
        problems = view.problems(subject, models[subject])
        if problems:
            what = f"the record of this version may not follow the registered ones of '{subject}': {problems[0]}"
            findings.append(
                error("schemas", what, "run the version that registered them, or use another kafka.topic_prefix")
            )
    free = sorted(set(missing) - {finding.what.split("'")[1] for finding in findings})
    if free:
        what = f"{len(free)} of {len(models)} schemas of this version are not registered: {some(free)}"
        findings.append(error("schemas", what, APPLY))
    return findings or [ok("schemas", f"all {len(models)} schemas of this version are registered")]


def inputs_of(site: Site) -> Sequence[TopicPartition]:
    """Every partition that the coordinator reads."""
    return [
        place
        for spec in site.topology.processors
        for topic in spec.reads
        for place in [TopicPartition(site.real(topic.name), n) for n in range(partitions_of(topic, site.settings))]
    ]
