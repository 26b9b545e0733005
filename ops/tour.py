"""The tour behind `troupe demo`: one real piece of work on a real Kafka, shown while it happens, and nothing left.

A newcomer believes what was seen. So nothing here is staged: the system is the one that `troupe up` starts, the data
are published figures, the task that fails really asks for something nobody offers, and every line comes out of the
topics, where any other Kafka tool would find it too.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.catalog.datasets import DataRef, read_column
from ops.client import Client
from ops.picture import draw_series
from ops.registry.schema_log import read_schemas
from ops.running import Birth
from ops.supervise import Plan, supervised
from ops.tour_stage import Stage
from ops.tour_watch import Watch
from ops.views.log import open_log
from ops.views.records import Decoder
from ops.views.tasks import TaskStatus
from ops.views.topics import last_records
from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.topics import AGENT_REGISTRY, TASK_EVENTS, TASK_RESULTS

DATA_FILE = Path(__file__).parent / "examples" / "data" / "us-employment.csv"
FIELD, TIME_FIELD = "nonfarm_change", "month"
TITLE = "Monthly change in US jobs"
UNIT = "thousand jobs, seasonally adjusted"
UNKNOWN, INGEST, DETECT = "demo-unknown", "demo-ingest", "demo-detect"
SHOWN = (TASK_EVENTS, TASK_RESULTS, AGENT_REGISTRY)
_TASK_S = 60.0  # longest wait for one task; the work itself takes milliseconds
_GONE_S = 5.0  # how long the end of the last process may take to show
_POLL_S = 0.05
_LAST = 4  # records shown of each topic


@dataclass(slots=True)
class Tour:
    """What was seen. seconds: from the start of the first process to the end of the last one."""

    bootstrap: str = ""
    tasks: list[TaskStatus] = field(default_factory=list)
    picture: Path = Path()
    topics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    left_running: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "seconds": round(self.seconds, 3),
            "bootstrap": self.bootstrap,
            "tasks": [task.document() for task in self.tasks],
            "anomalies": self.tasks[-1].document()["result"]["anomalies"],
            "picture": str(self.picture),
            "topics": self.topics,
            "left_running": self.left_running,
        }


async def tour(plan: Plan, out: Path, stage: Stage, stay: bool = False) -> Tour:
    """Run the tour on a system of its own and stop it; the picture lies in `out` afterwards.

    stay: after the tour the system runs on until this call is cancelled, and the call returns all the same. Raises
    OperatorError if the system does not start or a task does not end as it should.
    """
    begun, seen = time.monotonic(), Tour()
    async with supervised(plan) as supervisor:
        stage.step("Starting Apache Kafka, the coordinator and the agents")
        await supervisor.start()
        entry = supervisor.entry()
        seen.bootstrap = entry.bootstrap
        stage.started(entry, time.monotonic() - begun)
        kafka = plan.settings.kafka.model_copy(update={"bootstrap_servers": entry.bootstrap})
        settings = plan.settings.model_copy(update={"kafka": kafka})
        seen.tasks = await _work(settings, stage)
        seen.picture = _picture(settings, seen.tasks, out)
        stage.result(seen.tasks[-1].document()["result"], seen.picture)
        seen.topics = await _topics(settings)
        stage.topics(seen.topics)
        stage.other_tools(settings, stay)
        if stay:
            await _until_cancelled()
        stage.step("Stopping everything")
        members = supervisor.entry().members
    seen.left_running = await _left([member.birth for member in members if member.role != "supervisor"])
    seen.seconds = time.monotonic() - begun
    stage.stopped(seen.left_running, seen.seconds)
    return seen


async def _work(settings: Settings, stage: Stage) -> list[TaskStatus]:
    """Submit the three tasks and follow them; returns them in the order unknown, ingest, detect."""
    await asyncio.to_thread(_place_data, settings)
    watch = Watch(stage.event)
    following = asyncio.create_task(watch.follow(settings), name="watch")
    try:
        async with Client(settings, "demo") as client:
            await _submit(client, watch, stage, UNKNOWN, "xyz", {})
            payload = {"source_url": DATA_FILE.name}
            await _submit(client, watch, stage, INGEST, "ingest_data", payload)
            ingested = _completed(await watch.ended(INGEST, following, _TASK_S))
            reference = ingested.document()["result"]["data_ref"]
            question = {"data_ref": reference, "field": FIELD, "time_field": TIME_FIELD}
            await _submit(client, watch, stage, DETECT, "detect_anomalies", question)
            detected = _completed(await watch.ended(DETECT, following, _TASK_S))
            stage.waiting(UNKNOWN, settings.routing.grace_seconds)
            unknown = await watch.ended(UNKNOWN, following, _TASK_S + settings.routing.grace_seconds)
            return [unknown, ingested, detected]
    finally:
        following.cancel()
        await asyncio.wait([following])


async def _submit(
    client: Client, watch: Watch, stage: Stage, task_id: str, pattern: str, payload: Mapping[str, Any]
) -> None:
    stage.submitting(task_id, pattern, payload)
    watch.expect(task_id)
    await client.submit(task_id=task_id, pattern=pattern, payload=dict(payload))


def _place_data(settings: Settings) -> None:
    """Put the published file where the ingestion agent may read."""
    settings.sources.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(DATA_FILE, settings.sources / DATA_FILE.name)


def _completed(task: TaskStatus) -> TaskStatus:
    if not task.completed:
        why = task.error.message if task.error else "no reason was given"
        raise OperatorError(f"Task '{task.task_id}' ended as {task.status}: {why}", hint="see the logs of the demo")
    return task


def _picture(settings: Settings, tasks: list[TaskStatus], out: Path) -> Path:
    """Draw the series and what stands out in it."""
    ingested, detected = (task.document()["result"] for task in tasks[1:])
    column = read_column(settings.data_dir, DataRef(**ingested["data_ref"]), FIELD, TIME_FIELD)
    places = {row: place for place, row in enumerate(column.rows)}
    path = out / "anomalies.png"
    draw_series(
        path,
        title=TITLE,
        times=column.times,
        values=column.values,
        anomalies=[places[anomaly["index"]] for anomaly in detected["anomalies"]],
        y_label=UNIT,
        subtitle="U.S. Bureau of Labor Statistics",
    )
    return path


async def _until_cancelled() -> None:
    """Wait; the cancellation (Ctrl-C, SIGTERM) is the answer and not an error."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if (running := asyncio.current_task()) is not None:
            running.uncancel()


async def _topics(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """The last records of the topics that are shown, decoded, oldest first."""
    view = await read_schemas(settings.kafka.bootstrap_servers, settings.kafka.metadata_timeout_seconds)
    decoder, found = Decoder(view), {}
    async with open_log(settings) as log:
        for topic in SHOWN:
            partitions = await log.partitions(settings.kafka.topic_prefix + topic.name)
            found[topic.name] = [decoder.document(each) for each in await last_records(log, partitions, _LAST)]
    return found


async def _left(births: list[Birth]) -> list[int]:
    """The ids of those that still live a moment after the end."""
    deadline = time.monotonic() + _GONE_S
    while True:
        left = [birth.pid for birth in births if birth.process() is not None]
        if not left or time.monotonic() >= deadline:
            return left
        await asyncio.sleep(_POLL_S)
