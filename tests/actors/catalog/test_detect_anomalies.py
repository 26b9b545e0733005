"""What the anomaly agent makes of points: order, series, limits, and the words for what it cannot judge."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from actors.api import Context
from actors.catalog.datasets import DataRef, DatasetWriter
from actors.catalog.detect_anomalies import DetectInput, DetectResult, agent, detect
from actors.catalog.ingest_data import agent as ingestion_agent
from actors.catalog.ingest_data import ingest
from actors.catalog.ingest_form import IngestInput
from schemas.errors import InvalidInput

CALM = [10.0, 11.0, 10.0, 11.0, 10.0, 11.0, 10.0, 11.0, 10.0, 11.0]


def run(ctx: Context, **request: Any) -> DetectResult:
    return detect(DetectInput.model_validate(request), ctx)


def points(values: list[float], **more: Any) -> list[dict[str, Any]]:
    return [{"value": value, **more} for value in values]


def test_a_spike_is_found_and_explained(ctx: Context) -> None:
    result = run(ctx, points=points([*CALM, 25.0, 10.0]))
    assert result.model_dump() == {
        "anomalies": [
            {
                "index": 10,
                "series": "default",
                "value": 25.0,
                "timestamp": None,
                "expected": 10.5,
                "score": 0.6745 * 14.5 / 0.5,
                "method": "robust_z",
                "severity": "critical",
            }
        ],
        "count": 1,
        "method": "robust_z",
        "insufficient_data": False,
        "degraded": False,
        "notes": [],
    }


@pytest.mark.parametrize("values", [[], [1.0, 900.0], [1.0] * 7 + [900.0]])
def test_too_few_points_are_not_judged(ctx: Context, values: list[float]) -> None:
    result = run(ctx, points=points(values))
    assert (result.anomalies, result.count, result.insufficient_data) == ([], 0, True)
    assert result.notes == ["Too few points to judge any: a point needs 8 before it"]


def test_series_are_judged_apart(ctx: Context) -> None:
    mixed = [
        point
        for low, high in zip([*CALM, 10.0], [*[1000 + value for value in CALM], 2000.0], strict=True)
        for point in ({"value": low, "series": "low"}, {"value": high, "series": "high", "labels": {"unit": "m"}})
    ]
    result = run(ctx, points=[*mixed, {"value": 5.0, "series": "new"}])
    assert [(anomaly.index, anomaly.series) for anomaly in result.anomalies] == [(21, "high")]
    assert not result.insufficient_data
    assert result.notes == ["Too few points to judge any in the series 'new': a point needs 8 before it"]


def test_points_are_judged_in_the_order_of_their_times(ctx: Context) -> None:
    spike = {"value": 25.0, "timestamp": "2020-01-20T00:00:00+01:00"}
    calm = [{"value": value, "timestamp": f"2020-01-{day:02d}"} for day, value in enumerate(CALM, 1)]
    result = run(ctx, points=[spike, *calm])
    assert [(anomaly.index, anomaly.timestamp) for anomaly in result.anomalies] == [(0, "2020-01-19T23:00:00Z")]
    assert result.notes == ["Points were put in the order of their times in the series 'default'"]


def test_microseconds_are_times_too(ctx: Context) -> None:
    given = [{"value": value, "timestamp": second * 1_000_000} for second, value in enumerate([*CALM, 25.0])]
    assert run(ctx, points=given).anomalies[0].timestamp == "1970-01-01T00:00:10Z"


def test_a_step_from_a_constant_has_no_score(ctx: Context) -> None:
    (anomaly,) = run(ctx, points=points([5.0] * 8 + [5.5])).anomalies
    assert (anomaly.expected, anomaly.score, anomaly.severity) == (5.0, None, "critical")


@pytest.mark.parametrize("method", ["zscore", "ewma"])
def test_other_methods(ctx: Context, method: str) -> None:
    result = run(ctx, points=points([*CALM, 25.0]), method=method)
    assert [(anomaly.index, anomaly.method) for anomaly in result.anomalies] == [(10, method)]
    assert run(ctx, points=points([*CALM, 25.0]), method=method, threshold=1e6).count == 0


def test_bounds_need_no_history(ctx: Context) -> None:
    result = run(ctx, points=points([5.0, 11.0, -1.0]), method="threshold", min=0, max=10)
    assert [(anomaly.index, anomaly.expected, anomaly.score) for anomaly in result.anomalies] == [
        (1, 10, None),
        (2, 0, None),
    ]
    assert not result.insufficient_data


def test_the_list_is_bounded_and_the_count_is_not(ctx: Context, progress: list[tuple[float, str]]) -> None:
    both = [{"value": 1.0, "series": name} for name in ("b", "a") for _ in range(12_000)]
    result = run(ctx, points=both, method="threshold", max=0)
    assert (result.count, len(result.anomalies)) == (24_000, 1_000)
    assert [anomaly.index for anomaly in result.anomalies] == list(range(1_000))
    assert result.notes == ["24000 anomalies were found; the 1000 with the lowest index are listed"]
    assert progress == [(20_000 / 24_000, "point 20000 of 24000")]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({}, "Give 'points', or 'data_ref' with 'field'"),
        ({"points": [], "data_ref": {"path": "x"}}, "not both"),
        ({"points": [], "field": "x"}, "belong to 'data_ref'"),
        ({"data_ref": {"path": "datasets/x.jsonl"}}, "needs 'field'"),
        ({"data_ref": {"path": "datasets/x.jsonl"}, "field": "x"}, "does not exist here; ingest it first"),
        ({"points": points([math.nan])}, r"points\[0\].value nan is not a finite number"),
        ({"points": points([1.0, -math.inf])}, r"points\[1\].value -inf is not a finite number"),
        ({"points": points([1e200])}, r"points\[0\].value 1e\+200"),
        ({"points": [{"value": 1.0, "timestamp": "yesterday"}]}, r"points\[0\].timestamp: 'yesterday' is not an ISO"),
        ({"points": [{"value": 1.0, "timestamp": 10**19}]}, "outside of the years"),
        ({"points": [{"value": 1.0, "timestamp": 1}, {"value": 1.0}]}, "either all or none of the points of series"),
        ({"points": [{"value": 1.0}, {"value": 1.0, "timestamp": 1}]}, "either all or none of the points of series"),
        ({"points": [], "min": 1.0}, "The rule cannot be applied: 'min' and 'max' belong to method 'threshold'"),
        ({"points": [], "method": "threshold"}, "needs 'min' or 'max'"),
        ({"points": [], "threshold": 0.0}, "must be a finite number above 0"),
    ],
)
def test_what_the_caller_must_change(ctx: Context, request_: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        run(ctx, **request_)


def test_operations(ctx: Context) -> None:
    assert run(ctx, operation="RunAnomalyDetection", points=[]).count == 0
    with pytest.raises(InvalidInput, match="'Guess' is not one of") as caught:
        run(ctx, operation="Guess", points=[])
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(
    "request_",
    [
        {"points": [{"value": "1"}]},
        {"points": [{"value": True}]},
        {"points": [{"value": 1, "timestamp": True}]},
        {"points": [{"value": 1, "serie": "x"}]},
        {"points": [], "method": "magic"},
        {"data_ref": {"path": "x", "format": "parquet"}},
    ],
)
def test_input_of_the_wrong_shape(request_: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DetectInput.model_validate(request_)


def test_a_data_set_says_which_row(ctx: Context) -> None:
    with DatasetWriter(ctx.data_dir, "t") as dataset:
        for day, value in enumerate([*CALM, None, 25.0], 1):
            dataset.add({"at": f"2020-01-{day:02d}", "x": value})
        ref = dataset.commit()
    result = run(ctx, data_ref=ref.model_dump(), field="x", time_field="at")
    assert [(a.index, a.series, a.timestamp) for a in result.anomalies] == [(11, "x", "2020-01-12T00:00:00Z")]
    assert result.notes == ["1 rows without a value in 'x' were left out"]
    with pytest.raises(InvalidInput, match="has changed"):
        run(ctx, data_ref=DataRef(path=ref.path, sha256="0" * 64).model_dump(), field="x")


def test_the_worst_months_of_the_great_recession(ctx: Context) -> None:
    """The example of the demo, from file to anomalies, with the figures that its README states."""
    folder = Path(__file__).parents[3] / "ops" / "examples" / "data"
    (ctx.sources_root / "us-employment.csv").write_bytes((folder / "us-employment.csv").read_bytes())
    data_ref = ingest(IngestInput(source_url="us-employment.csv"), ctx).data_ref
    result = run(ctx, data_ref=data_ref.model_dump(), field="nonfarm_change", time_field="month")
    rows = [
        f"| {a.timestamp[:7]} | {a.value:.0f} | {a.expected} | {a.score:.2f} | {a.severity} |" for a in result.anomalies
    ]
    assert [row[2:9] for row in rows] == ["2008-11", "2008-12", "2009-01", "2009-02", "2009-03", "2009-04"]
    assert "\n".join(rows) in (folder / "README.md").read_text()


def test_the_agents_offer_what_the_catalogue_says() -> None:
    assert (agent().agent_id, agent().agent_type) == ("anomaly_detection_agent", "anomaly_detection")
    assert agent().capabilities == ["detect_anomalies", "anomaly_detection"]
    assert (ingestion_agent().agent_id, ingestion_agent().agent_type) == ("data_ingestion_agent", "data_ingestion")
    assert ingestion_agent().capabilities == ["ingest_data", "data_ingestion"]
