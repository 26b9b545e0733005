"""A table says which points are unusual; a picture shows why: the series, and in it what stands out.

Drawn with matplotlib's objects on a canvas of its own. Its `pyplot` interface keeps a current figure and a window
system for the whole process, which a command that may run in a thread, in a test or without a display must not touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

_WIDTH_PX, _HEIGHT_PX, _DPI = 1600, 700, 100
_INK, _MUTED, _GRID, _LINE, _MARK = "#1f2937", "#6b7280", "#e5e7eb", "#2563eb", "#dc2626"
_LABELLED_MAX = 10  # more labels than this hide each other
_MARKERS_MAX = 200  # more points than this are drawn as a line only
_MICROS_AS_TIME_FROM = 10**11  # smaller numbers are positions in the series, not instants (1970-01-02 in microseconds)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROS_PER_DAY = 86_400_000_000  # matplotlib counts days since 1970
_Run = tuple[int, int]


def draw_series(
    path: Path,
    *,
    title: str,
    times: Sequence[int],
    values: Sequence[float],
    anomalies: Sequence[int],
    y_label: str,
    subtitle: str = "",
) -> None:
    """Write a PNG of 1600 x 700 pixels: `values` over `times`, the points at the indexes `anomalies` marked.

    y_label: what the values are, with their unit; it stands above the axis, where wide numbers cannot push it out.
    times: microseconds since 1970, or positions (small numbers), one for each value, in order. Raises ValueError when
    times and values differ in number, when there are none, or when an index is outside.
    """
    if len(times) != len(values) or not values:
        raise ValueError(f"{len(times)} times and {len(values)} values: give the same number of both, at least one")
    if outside := [index for index in anomalies if not 0 <= index < len(values)]:
        raise ValueError(f"anomaly index {outside[0]} is outside of the {len(values)} points")
    figure = Figure(figsize=(_WIDTH_PX / _DPI, _HEIGHT_PX / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.065, 0.11, 0.915, 0.72))
    instants = max(map(abs, times)) >= _MICROS_AS_TIME_FROM
    places = [time / _MICROS_PER_DAY if instants else float(time) for time in times]
    _draw(axes, places, values, anomalies)
    if len(runs := _runs(anomalies)) <= _LABELLED_MAX:
        for run in runs:
            _label(axes, times, places, values, run)
    _dress(axes, instants=instants)
    figure.text(0.065, 0.93, title, fontsize=19, fontweight="bold", color=_INK, va="center", parse_math=False)
    counted = f"{len(values)} points, {len(anomalies)} {'anomaly' if len(anomalies) == 1 else 'anomalies'}"
    line = " · ".join(filter(None, [y_label, subtitle, counted]))
    figure.text(0.065, 0.875, line, fontsize=12.5, color=_MUTED, va="center", parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", metadata={"Software": None})


def _draw(axes: Axes, places: Sequence[float], values: Sequence[float], anomalies: Sequence[int]) -> None:
    marker = "o" if len(values) <= _MARKERS_MAX else None
    axes.plot(places, values, color=_LINE, linewidth=1.6, marker=marker, markersize=3.2, zorder=3)
    if min(values) < 0 < max(values):
        axes.axhline(0, color=_MUTED, linewidth=0.9, zorder=1)
    for first, last in _runs(anomalies):
        if last > first:
            axes.axvspan(places[first], places[last], color=_MARK, alpha=0.08, linewidth=0, zorder=0)
    chosen = [places[index] for index in anomalies]
    heights = [values[index] for index in anomalies]
    axes.scatter(chosen, heights, s=120, facecolors="none", edgecolors=_MARK, linewidths=2, zorder=4)
    axes.scatter(chosen, heights, s=26, color=_MARK, zorder=5)
    axes.margins(x=0.01, y=0.16)


def _label(axes: Axes, times: Sequence[int], places: Sequence[float], values: Sequence[float], run: _Run) -> None:
    """Words at the extreme of a run of neighbours: one label each would cover the next."""
    usual = median(values)
    extreme = max(range(run[0], run[1] + 1), key=lambda index: abs(values[index] - usual))
    below = values[extreme] < usual
    share = (places[extreme] - places[0]) / ((places[-1] - places[0]) or 1.0)
    when = " to ".join(_name(times[index]) for index in dict.fromkeys(run))
    axes.annotate(
        f"{values[extreme]:,.6g}\n{when}",
        (places[extreme], values[extreme]),
        xytext=(0, -13 if below else 13),
        textcoords="offset points",
        ha="left" if share < 0.08 else "right" if share > 0.92 else "center",
        va="top" if below else "bottom",
        fontsize=11,
        color=_MARK,
        zorder=6,
    )


def _name(time: int) -> str:
    """An instant as its day, with the time of day if it has one; a position as its number."""
    if abs(time) < _MICROS_AS_TIME_FROM:
        return f"#{time}"
    moment = _EPOCH + timedelta(microseconds=time)
    return moment.strftime("%Y-%m-%d" if time % _MICROS_PER_DAY == 0 else "%Y-%m-%d %H:%M")


def _dress(axes: Axes, *, instants: bool) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.grid(axis="y", color=_GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=12, length=0, pad=7)
    if instants:
        locator = AutoDateLocator(minticks=5, maxticks=12)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _runs(anomalies: Sequence[int]) -> list[_Run]:
    """Neighbouring indexes as (first, last)."""
    runs: list[_Run] = []
    for index in sorted(set(anomalies)):
        if runs and index == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return runs
