"""The anomaly agent: says which points of a batch are unusual, and how it knows.

The judging is `schemas.robust`, the same as in the stream; what is left here is the caller's side of it: points that
come as they are or in a data set, in any order, of many series at once, and an answer that stays small enough for a
record however many anomalies there are. A series is judged in the order of its times, or as given when it has none.
The handler runs in a thread.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

from actors.api import Actor, Context
from actors.catalog.datasets import DataRef, iso, micros, named, read_column, shown
from schemas.errors import InvalidInput
from schemas.robust import LARGEST, AnomalyRule, Method, Severity, Verdict, scan

OPERATIONS = ("DetectAnomalies", "RunAnomalyDetection")
ANOMALIES_LISTED = 1_000
POINTS_PER_REPORT = 20_000


class Point(BaseModel):
    """One measurement; `timestamp` is ISO 8601 text or microseconds since 1970."""

    model_config = ConfigDict(extra="forbid")

    value: StrictFloat
    timestamp: StrictInt | StrictStr | None = None
    series: str = Field(default="default", max_length=256)
    labels: dict[str, Any] = {}


class DetectInput(BaseModel):
    """What to judge: `points`, or `field` (and `time_field`) of the data set `data_ref`; and by which rule.

    `threshold` is the score from which on a point is an anomaly; `min` and `max` belong to the method `threshold`.
    """

    model_config = ConfigDict(extra="forbid")

    operation: str = OPERATIONS[0]
    points: list[Point] | None = None
    data_ref: DataRef | None = None
    field: str | None = None
    time_field: str | None = None
    method: Method = "robust_z"
    threshold: StrictFloat | None = None
    min: StrictFloat | None = None
    max: StrictFloat | None = None


class Anomaly(BaseModel):
    """An unusual point. `index` counts from 0 in the points (or rows) as given, `expected` is in the value's unit,
    `score` in spreads (null where there is no spread to measure with), `timestamp` ISO 8601 in UTC.
    """

    index: int
    series: str
    value: float
    timestamp: str | None
    expected: float
    score: float | None
    method: Method
    severity: Severity


class DetectResult(BaseModel):
    """`anomalies` in the order of their index, at most ANOMALIES_LISTED; `count` is all of them."""

    anomalies: list[Anomaly]
    count: int
    method: Method
    insufficient_data: bool
    degraded: bool = False
    notes: list[str]


@dataclass(slots=True)
class _Series:
    """Points of one series: value, index as given, time in microseconds (of all points or of none)."""

    name: str
    values: array[float] = field(default_factory=lambda: array("d"))
    indexes: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))

    def in_order(self) -> tuple[_Series, bool]:
        """The series in the order of its times (equal times as given), and whether that changed anything."""
        if all(earlier <= later for earlier, later in pairwise(self.times)):
            return self, False
        order = sorted(range(len(self.times)), key=self.times.__getitem__)
        columns = [array(column.typecode, [column[place] for place in order]) for column in (self.indexes, self.times)]
        return _Series(self.name, array("d", [self.values[place] for place in order]), *columns), True


class _Found:
    """All anomalies counted, those with the smallest indexes kept: a bound per million points that all lie outside."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: list[tuple[int, Anomaly]] = []  # a heap with the largest index first

    def add(self, series: _Series, place: int, verdict: Verdict, severity: Severity, method: Method) -> None:
        self.count += 1
        index = series.indexes[place]
        full = len(self._kept) == ANOMALIES_LISTED
        if full and index > -self._kept[0][0]:
            return
        anomaly = Anomaly(
            index=index,
            series=series.name,
            value=series.values[place],
            timestamp=iso(series.times[place]) if series.times else None,
            expected=verdict.expected,
            score=verdict.score,
            method=method,
            severity=severity,
        )
        (heappushpop if full else heappush)(self._kept, (-index, anomaly))

    def listed(self) -> list[Anomaly]:
        return [anomaly for _, anomaly in sorted(self._kept, key=lambda kept: -kept[0])]


def detect(request: DetectInput, ctx: Context) -> DetectResult:
    """Judge every point against those before it in its series. Raises InvalidInput for what the caller must change.

    `insufficient_data` says that not one point could be judged: no series has more than the 8 points that a score
    needs before it.
    """
    if request.operation not in OPERATIONS:
        text = f"Operation '{shown(request.operation)}' is not one of {', '.join(OPERATIONS)}"
        raise InvalidInput(text, code="unsupported")
    rule = _rule(request)
    notes: list[str] = []
    all_series = _of_data_set(request, ctx.data_dir, notes) if request.points is None else _of_points(request)
    found = _Found()
    judged = _judge(all_series, rule, found, ctx, notes)
    if found.count > ANOMALIES_LISTED:
        notes.append(f"{found.count} anomalies were found; the {ANOMALIES_LISTED} with the lowest index are listed")
    return DetectResult(
        anomalies=found.listed(), count=found.count, method=rule.method, insufficient_data=not judged, notes=notes
    )


def agent() -> Actor:
    """The anomaly agent of the catalogue."""
    return Actor(
        "anomaly_detection_agent",
        detect,
        agent_type="anomaly_detection",
        capabilities=["detect_anomalies", "anomaly_detection"],
    )


def _rule(request: DetectInput) -> AnomalyRule:
    try:
        return AnomalyRule(request.method, limit=request.threshold, minimum=request.min, maximum=request.max)
    except ValueError as error:
        raise InvalidInput(f"The rule cannot be applied: {error}") from None


def _of_points(request: DetectInput) -> list[_Series]:
    if request.data_ref is not None:
        raise InvalidInput("Give either 'points' or 'data_ref' with 'field', not both")
    if request.field is not None or request.time_field is not None:
        raise InvalidInput("'field' and 'time_field' belong to 'data_ref'; 'points' carry their value and timestamp")
    by_name: dict[str, _Series] = {}
    for index, point in enumerate(request.points or []):
        if not -LARGEST <= point.value <= LARGEST:
            raise InvalidInput(f"points[{index}].value {point.value} is not a finite number within ±{LARGEST:g}")
        series = by_name.setdefault(point.series, _Series(point.series))
        if series.values and (point.timestamp is None) != (not series.times):
            text = (
                f"points[{index}]: either all or none of the points of series '{shown(point.series)}' have a timestamp"
            )
            raise InvalidInput(text)
        series.values.append(point.value)
        series.indexes.append(index)
        if point.timestamp is not None:
            series.times.append(_instant(point.timestamp, index))
    return list(by_name.values())


def _instant(timestamp: int | str, index: int) -> int:
    try:
        return micros(timestamp)
    except ValueError as error:
        raise InvalidInput(f"points[{index}].timestamp: {error}") from None


def _of_data_set(request: DetectInput, data_dir: Path, notes: list[str]) -> list[_Series]:
    if request.data_ref is None:
        raise InvalidInput("Give 'points', or 'data_ref' with 'field'")
    if not request.field:
        raise InvalidInput("'data_ref' needs 'field', the name of the field with the numbers")
    column = read_column(data_dir, request.data_ref, request.field, request.time_field)
    if column.missing:
        notes.append(f"{column.missing} rows without a value in '{shown(request.field)}' were left out")
    return [_Series(request.field, column.values, column.rows, column.times)]


def _judge(all_series: list[_Series], rule: AnomalyRule, found: _Found, ctx: Context, notes: list[str]) -> int:
    """Put the anomalies of all series into `found`; returns how many points could be judged."""
    total = sum(len(series.values) for series in all_series)
    judged = seen = 0
    unordered: list[str] = []
    short: list[str] = []
    for given in all_series:
        series, moved = given.in_order()
        if moved:
            unordered.append(series.name)
        judged_before = judged
        for place, verdict in enumerate(scan(series.values, rule)):
            if verdict is not None:
                judged += 1
                if verdict.severity is not None:
                    found.add(series, place, verdict, verdict.severity, rule.method)
            seen += 1
            if seen % POINTS_PER_REPORT == 0:
                ctx.report_now(seen / total, f"point {seen} of {total}")
        if judged == judged_before:
            short.append(series.name)
    if unordered:
        notes.append(f"Points were put in the order of their times in the series {named(unordered)}")
    if short or not total:
        which = f" in the series {named(short)}" if len(all_series) > 1 else ""
        notes.append(f"Too few points to judge any{which}: a point needs {rule.min_points} before it")
    return judged
