"""The maths of anomalies against an oracle that does it the slow and obvious way."""

from __future__ import annotations

import math
import statistics
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.robust import LARGEST, MIN_POINTS, AnomalyRule, Verdict, Window, judge, scan, severity

# Few different values make ties and spreads of 0; wide floats make rounding matter; the last reach the range's edges.
VALUES = st.one_of(
    st.lists(st.integers(-2, 2).map(float), max_size=60),
    st.lists(st.floats(-1e6, 1e6), max_size=60),
    st.lists(st.floats(-LARGEST, LARGEST), max_size=40),
)
SIZES = st.sampled_from([8, 9, 20, 200])


def slow_robust_z(before: list[float], value: float) -> tuple[float, float | None]:
    median = statistics.median(before)
    deviations = [abs(other - median) for other in before]
    mad = statistics.median(deviations)
    if mad > 0:
        return median, min(0.6745 * abs(value - median) / mad, sys.float_info.max)
    mean_deviation = math.fsum(deviations) / len(deviations)
    if value == median:
        return median, 0.0
    if 1.2533 * mean_deviation > 0:
        return median, min(abs(value - median) / (1.2533 * mean_deviation), sys.float_info.max)
    return median, None


@given(VALUES, SIZES)
def test_robust_z_is_that_of_the_definition(values: list[float], size: int) -> None:
    verdicts = list(scan(values, AnomalyRule(window_points=size)))
    assert len(verdicts) == len(values)
    for position, verdict in enumerate(verdicts):
        before = values[max(0, position - size) : position]
        if len(before) < MIN_POINTS:
            assert verdict is None
            continue
        assert verdict is not None
        expected, score = slow_robust_z(before, values[position])
        assert (verdict.expected, verdict.score) == (expected, score)
        assert verdict.anomalous == (score is None or score >= 3.5)


@given(VALUES, SIZES)
def test_zscore_is_that_of_the_definition(values: list[float], size: int) -> None:
    for position, verdict in enumerate(scan(values, AnomalyRule("zscore", window_points=size))):
        before = values[max(0, position - size) : position]
        if verdict is None or len(set(before)) == 1:
            continue
        mean = math.fsum(before) / len(before)
        deviation = math.sqrt(math.fsum((other - mean) ** 2 for other in before) / (len(before) - 1))
        assert verdict.expected == mean
        if deviation > 0:
            assert verdict.score == min(abs(values[position] - mean) / deviation, sys.float_info.max)


@given(VALUES, st.sampled_from(["robust_z", "zscore", "ewma"]), SIZES)
def test_a_verdict_depends_only_on_the_window(values: list[float], method: str, size: int) -> None:
    """What the stream keeps of a series is its last values; it must come to the agent's verdicts."""
    rule = AnomalyRule(method, window_points=size)  # type: ignore[arg-type]
    for position, verdict in enumerate(scan(values, rule)):
        again = Window(values[max(0, position - size) : position], size=size)
        assert judge(again, values[position], rule) == verdict


@given(VALUES, st.sampled_from(["robust_z", "zscore", "ewma"]))
def test_no_score_is_negative_infinite_or_nan(values: list[float], method: str) -> None:
    for verdict in scan(values, AnomalyRule(method)):  # type: ignore[arg-type]
        assert verdict is None or verdict.score is None or 0 <= verdict.score < math.inf


@given(st.floats(-1e9, 1e9), st.integers(8, 30), st.sampled_from(["robust_z", "zscore", "ewma"]))
def test_any_step_from_a_constant_is_critical_without_score(level: float, length: int, method: str) -> None:
    rule = AnomalyRule(method)  # type: ignore[arg-type]
    still = Window([level] * length)
    step = math.nextafter(level, math.inf)
    assert judge(still, level, rule) == Verdict(level, 0.0, None)
    assert judge(still, step, rule) == Verdict(level, None, "critical")


def test_a_value_is_not_in_its_own_window() -> None:
    last = list(scan([1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 4.0], AnomalyRule()))[-1]
    assert last == Verdict(1.5, 0.6745 * 2.5 / 0.5, None)
    assert not last.anomalous


def test_the_limit_itself_is_an_anomaly() -> None:
    before = Window([0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0])
    score = 0.6745 * 4.0 / 1.0
    assert judge(before, 5.0, AnomalyRule(limit=score)) == Verdict(1.0, score, "warning")
    assert judge(before, 5.0, AnomalyRule(limit=math.nextafter(score, 9.0))) == Verdict(1.0, score, None)


def test_no_median_spread_falls_back_to_the_mean_deviation() -> None:
    verdict = judge(Window([1.0] * 7 + [3.0]), 2.0, AnomalyRule())
    assert verdict == Verdict(1.0, 1.0 / (1.2533 * 0.25), None)


def test_the_window_forgets_what_is_older() -> None:
    values = [1000.0] * 50 + [1.0, 2.0] * 100 + [9.0]
    last = list(scan(values, AnomalyRule()))[-1]
    assert last is not None and last.expected == 1.5 and last.severity == "critical"


def test_ewma_follows_a_trend_and_sees_the_jump() -> None:
    ramp = [float(step) for step in range(100)]
    assert not any(verdict and verdict.anomalous for verdict in scan(ramp, AnomalyRule("ewma")))
    jump = list(scan([*ramp, 200.0], AnomalyRule("ewma")))[-1]
    assert jump is not None and jump.anomalous


def test_ewma_in_numbers() -> None:
    verdict = judge(Window([0.0] * 7 + [10.0]), 0.0, AnomalyRule("ewma"))
    # mean 0.3 * 10; seven forecasts, one of them 10 off
    assert verdict == Verdict(3.0, 3.0 / math.sqrt(100.0 / 7), None)


def test_threshold_needs_no_history_and_includes_its_bounds() -> None:
    rule = AnomalyRule("threshold", minimum=0.0, maximum=10.0)
    assert list(scan([0.0, 10.0, -1.0, 11.0], rule)) == [
        Verdict(0.0, None, None),
        Verdict(10.0, None, None),
        Verdict(0.0, None, "critical"),
        Verdict(10.0, None, "critical"),
    ]


@pytest.mark.parametrize(
    ("score", "expected"), [(3.5, "warning"), (4.999, "warning"), (5.0, "critical"), (None, "critical")]
)
def test_severity(score: float | None, expected: str) -> None:
    assert severity(score) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e151])
def test_a_window_refuses_what_it_cannot_measure(value: float) -> None:
    with pytest.raises(ValueError, match="is not a number within"):
        Window([value])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"method": "magic"}, "is not one of robust_z, zscore, ewma, threshold"),
        ({"limit": 0.0}, "must be a finite number above 0"),
        ({"limit": math.nan}, "must be a finite number above 0"),
        ({"minimum": 1.0}, "belong to method 'threshold'"),
        ({"method": "threshold"}, "needs 'min' or 'max'"),
        ({"method": "threshold", "minimum": 2.0, "maximum": 1.0}, "is above 'max'"),
        ({"method": "threshold", "maximum": math.inf}, "must be finite"),
        ({"method": "threshold", "maximum": 1.0, "limit": 3.0}, "takes no 'threshold' score"),
        ({"min_points": 1}, "must be from 2 to window_points"),
    ],
)
def test_a_rule_checks_itself(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        AnomalyRule(**arguments)  # type: ignore[arg-type]
