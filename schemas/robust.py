"""What counts as unusual, in one place, because two readers must never disagree about it.

The anomaly stream judges points as they arrive, the anomaly agent judges a batch that somebody hands it, and streams
and actors may not import each other. So the arithmetic lives below both, as functions of nothing but the window and
the value: no clock, no memory between calls. Every point is measured against the points *before* it and never against
itself: a point inside its own yardstick stretches it, and a lone spike in ten values could then not reach a z of 3
however tall it is.

Median and median absolute deviation are the default since they ignore the spikes already in the window. A window
keeps its values in arrival order (to know which one leaves) and in order of size (so that no median needs a sort).

Severity: a score below 5 is `warning`, from 5 on `critical`. Without a score it is `critical`: the window never
moved, so any step is infinitely many times its spread (the limit of the score as the spread shrinks); and a bound of
`threshold` was drawn by a person.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

Method = Literal["robust_z", "zscore", "ewma", "threshold"]
Severity = Literal["warning", "critical"]

METHODS: tuple[Method, ...] = get_args(Method)
WINDOW_POINTS = 200
MIN_POINTS = 8
CRITICAL_FROM = 5.0
LARGEST = 1e150
"""Largest magnitude of a value: squares of differences, summed over a window, must stay finite."""

_DEFAULT_LIMIT: dict[Method, float] = {"robust_z": 3.5, "zscore": 3.0, "ewma": 3.0}
_MAD_TO_SIGMA = 0.6745  # MAD / sigma of a normal distribution
_MEAN_DEVIATION_TO_SIGMA = 1.2533  # sigma / mean absolute deviation of a normal distribution
_EWMA_ALPHA = 0.3


@dataclass(frozen=True, slots=True)
class AnomalyRule:
    """When a value is an anomaly.

    `limit` is the score from which on it is one (None: the method's own, 3.5 for robust_z, else 3). `minimum` and
    `maximum` belong to `threshold`, which needs at least one of them and has no limit. `window_points` is how many
    earlier points are looked at, `min_points` how many of them there must be before a score is given. Raises
    ValueError when these do not fit together.
    """

    method: Method = "robust_z"
    limit: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    window_points: int = WINDOW_POINTS
    min_points: int = MIN_POINTS

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method '{self.method}' is not one of {', '.join(METHODS)}")
        if not 2 <= self.min_points <= self.window_points:
            raise ValueError(f"min_points {self.min_points} must be from 2 to window_points {self.window_points}")
        bounds = [bound for bound in (self.minimum, self.maximum) if bound is not None]
        if self.method == "threshold":
            self._check_bounds(bounds)
        elif bounds:
            raise ValueError(f"'min' and 'max' belong to method 'threshold', not to '{self.method}'")
        elif self.limit is not None and not (math.isfinite(self.limit) and self.limit > 0):
            raise ValueError(f"threshold {self.limit} must be a finite number above 0")

    def _check_bounds(self, bounds: list[float]) -> None:
        if self.limit is not None:
            raise ValueError("method 'threshold' compares with 'min' and 'max'; it takes no 'threshold' score")
        if not bounds:
            raise ValueError("method 'threshold' needs 'min' or 'max'")
        if not all(math.isfinite(bound) for bound in bounds):
            raise ValueError("'min' and 'max' must be finite numbers")
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            raise ValueError(f"'min' {bounds[0]} is above 'max' {bounds[1]}")

    @property
    def anomalous_from(self) -> float:
        """The score from which on a value is an anomaly; infinite for `threshold`, which scores nothing."""
        return self.limit if self.limit is not None else _DEFAULT_LIMIT.get(self.method, math.inf)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says of one value: `expected` in the value's unit, `score` in spreads (None: no scale), `severity`
    only of an anomaly.
    """

    expected: float
    score: float | None
    severity: Severity | None

    @property
    def anomalous(self) -> bool:
        return self.severity is not None


class Window:
    """The last `size` values of one series; the oldest leaves when a new one enters a full window."""

    def __init__(self, values: Iterable[float] = (), size: int = WINDOW_POINTS) -> None:
        self._size = size
        self._arrived: deque[float] = deque()
        self._sorted: list[float] = []
        for value in values:
            self.push(value)

    def __len__(self) -> int:
        return len(self._arrived)

    def __iter__(self) -> Iterator[float]:
        """The values, oldest first."""
        return iter(self._arrived)

    def push(self, value: float) -> None:
        """Raises ValueError for a value that is not finite or beyond LARGEST."""
        if not -LARGEST <= value <= LARGEST:
            raise ValueError(f"value {value} is not a number within ±{LARGEST:g}")
        if len(self._arrived) == self._size:
            del self._sorted[bisect_left(self._sorted, self._arrived.popleft())]
        self._arrived.append(value)
        insort(self._sorted, value)

    @property
    def constant(self) -> bool:
        return self._sorted[0] == self._sorted[-1]

    def median(self) -> float:
        middle = len(self._sorted) // 2
        if len(self._sorted) % 2:
            return self._sorted[middle]
        return (self._sorted[middle - 1] + self._sorted[middle]) / 2

    def median_deviation(self, centre: float) -> float:
        """Median of the absolute differences to `centre`."""
        half = len(self._sorted) // 2
        if len(self._sorted) % 2:
            return self._nearest(centre, half + 1)
        return (self._nearest(centre, half) + self._nearest(centre, half + 1)) / 2

    def _nearest(self, centre: float, rank: int) -> float:
        """The `rank`-th smallest absolute difference to `centre`, from 1.

        The `rank` nearest values lie side by side in order of size. Sliding such a block upwards, the distance of its
        low end falls and that of its high end rises; where they cross, the larger of the two is smallest.
        """
        low, high = 0, len(self._sorted) - rank
        while low < high:
            start = (low + high) // 2
            if centre - self._sorted[start] > self._sorted[start + rank - 1] - centre:
                low = start + 1
            else:
                high = start
        starts = (low - 1, low) if low else (low,)
        return min(max(centre - self._sorted[start], self._sorted[start + rank - 1] - centre) for start in starts)

    def mean_deviation(self, centre: float) -> float:
        """Mean of the absolute differences to `centre`."""
        return math.fsum(abs(value - centre) for value in self._arrived) / len(self._arrived)

    def mean(self) -> float:
        # A sum of equal values, divided again, can miss the value by one bit, and the deviation would then not be 0.
        return self._sorted[0] if self.constant else math.fsum(self._arrived) / len(self._arrived)

    def standard_deviation(self, mean: float) -> float:
        """Of the sample (n - 1); needs two values."""
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self._arrived) / (len(self._arrived) - 1))

    def exponential(self, alpha: float) -> tuple[float, float]:
        """Exponentially weighted mean, from the oldest value to the newest, and the root mean square of the errors it
        made on the way as a forecast of the next value; needs two values.

        All errors weigh the same: weighted like the mean, with alpha 0.3, the spread would rest on about six of them
        and 4 % of pure noise would lie beyond three of it (measured; so it is 0.3 %).
        """
        values = iter(self._arrived)
        mean, squares = next(values), 0.0
        for value in values:
            error = value - mean
            mean += alpha * error
            squares += error * error
        return mean, math.sqrt(squares / (len(self._arrived) - 1))


def judge(before: Window, value: float, rule: AnomalyRule) -> Verdict | None:
    """What `rule` says of `value`, given the values before it; None where they are too few for a score.

    `value` must be finite and within LARGEST (push it afterwards, if it is to count for later ones). `threshold`
    needs no earlier values.
    """
    if rule.method == "threshold":
        return _against_bounds(value, rule)
    if len(before) < rule.min_points:
        return None
    if rule.method == "robust_z":
        expected, score = _robust_z(before, value)
    else:
        expected, spread = before.exponential(_EWMA_ALPHA) if rule.method == "ewma" else _mean_and_deviation(before)
        score = _ratio(abs(value - expected), spread)
    if score is None:
        return Verdict(expected, None, "critical")
    return Verdict(expected, score, severity(score) if score >= rule.anomalous_from else None)


def scan(values: Iterable[float], rule: AnomalyRule) -> Iterator[Verdict | None]:
    """One verdict for each value of a series, in order, each against those before it. Raises ValueError as
    Window.push does.
    """
    window = Window(size=rule.window_points)
    for value in values:
        verdict = judge(window, value, rule)
        window.push(value)
        yield verdict


def severity(score: float | None) -> Severity:
    """How bad an anomaly of this score is; see the module's first paragraph for None."""
    return "warning" if score is not None and score < CRITICAL_FROM else "critical"


def _robust_z(before: Window, value: float) -> tuple[float, float | None]:
    median = before.median()
    distance = abs(value - median)
    spread = before.median_deviation(median)
    if spread > 0:
        return median, _ratio(_MAD_TO_SIGMA * distance, spread)
    # More than half of the window is one value: the median deviation sees no spread, the mean deviation still may.
    return median, _ratio(distance, _MEAN_DEVIATION_TO_SIGMA * before.mean_deviation(median))


def _mean_and_deviation(before: Window) -> tuple[float, float]:
    mean = before.mean()
    return mean, before.standard_deviation(mean)


def _ratio(distance: float, spread: float) -> float | None:
    """Distance in spreads; 0 where there is no distance, None where there is one but no spread to measure it with."""
    if distance == 0:
        return 0.0
    # A spread of 1e-300 would make the quotient infinite, which JSON cannot carry.
    return min(distance / spread, sys.float_info.max) if spread > 0 else None


def _against_bounds(value: float, rule: AnomalyRule) -> Verdict:
    if rule.minimum is not None and value < rule.minimum:
        return Verdict(rule.minimum, None, "critical")
    if rule.maximum is not None and value > rule.maximum:
        return Verdict(rule.maximum, None, "critical")
    return Verdict(value, None, None)
