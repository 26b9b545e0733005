"""What the tour does, whatever it runs on: three tasks on published data, and a picture of the answer.

Nothing of it is staged: the data are published figures, and the task that fails really asks for something that nobody
offers. What runs it, a real Kafka or a log in memory, is a `System`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from actors.catalog.datasets import DataRef, read_column
from ops.picture import draw_series
from ops.tour_stage import Stage
from ops.views.tasks import TaskStatus
from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.topics import AGENT_REGISTRY, TASK_EVENTS, TASK_RESULTS

DATA_FILE = Path(__file__).parent / "examples" / "data" / "us-employment.csv"
FIELD, TIME_FIELD = "nonfarm_change", "month"
TITLE = "Monthly change in US jobs"
UNIT = "thousand jobs, seasonally adjusted"
UNKNOWN, INGEST, DETECT = "demo-unknown", "demo-ingest", "demo-detect"
SHOWN = (TASK_EVENTS, TASK_RESULTS, AGENT_REGISTRY)
PICTURE = "anomalies.png"
LAST = 4
"""Records shown of each topic."""

_TASK_S = 60.0  # longest wait for one task; the work itself takes milliseconds


@dataclass(slots=True)
class Tour:
    """What was seen. offline: without a Kafka, then `bootstrap` is empty. seconds: from the start to the end of all."""

    bootstrap: str = ""
    offline: bool = False
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
            "offline": self.offline,
            "tasks": [task.document() for task in self.tasks],
            "anomalies": self.tasks[-1].document()["result"]["anomalies"],
            "picture": str(self.picture),
            "topics": self.topics,
            "left_running": self.left_running,
        }


class System(Protocol):
    """Takes tasks, and says when they have ended; shows their events as they come."""

    async def submit(self, task_id: str, pattern: str, payload: Mapping[str, Any]) -> None:
        """Submit a task."""

    async def ended(self, task_id: str, limit_s: float) -> TaskStatus:
        """The task when it has ended. Raises OperatorError if that takes longer than `limit_s`."""


async def work(system: System, settings: Settings, stage: Stage) -> list[TaskStatus]:
    """Submit the three tasks and follow them; returns them in the order unknown, ingest, detect."""
    _place_data(settings)  # not in a thread, which would go on after an interruption and leave its folder behind
    await _submit(system, stage, UNKNOWN, "xyz", {})
    await _submit(system, stage, INGEST, "ingest_data", {"source_url": DATA_FILE.name})
    ingested = _completed(await system.ended(INGEST, _TASK_S))
    reference = ingested.document()["result"]["data_ref"]
    question = {"data_ref": reference, "field": FIELD, "time_field": TIME_FIELD}
    await _submit(system, stage, DETECT, "detect_anomalies", question)
    detected = _completed(await system.ended(DETECT, _TASK_S))
    stage.waiting(UNKNOWN, settings.routing.grace_seconds)
    unknown = await system.ended(UNKNOWN, _TASK_S + settings.routing.grace_seconds)
    return [unknown, ingested, detected]


async def _submit(system: System, stage: Stage, task_id: str, pattern: str, payload: Mapping[str, Any]) -> None:
    stage.submitting(task_id, pattern, payload)
    await system.submit(task_id, pattern, payload)


def _place_data(settings: Settings) -> None:
    """Put the published file where the ingestion agent may read."""
    settings.sources.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(DATA_FILE, settings.sources / DATA_FILE.name)


def _completed(task: TaskStatus) -> TaskStatus:
    if not task.completed:
        why = task.error.message if task.error else "no reason was given"
        raise OperatorError(f"Task '{task.task_id}' ended as {task.status}: {why}", hint="see the logs of the demo")
    return task


def picture(settings: Settings, tasks: list[TaskStatus], out: Path) -> Path:
    """Draw the series and what stands out in it."""
    ingested, detected = (task.document()["result"] for task in tasks[1:])
    column = read_column(settings.data_dir, DataRef(**ingested["data_ref"]), FIELD, TIME_FIELD)
    places = {row: place for place, row in enumerate(column.rows)}
    path = out / PICTURE
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
