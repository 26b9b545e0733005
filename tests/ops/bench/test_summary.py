"""Several runs as one: each figure has its median and its range, and nothing is made up where a run has none."""

from __future__ import annotations

from typing import Any

from ops.bench.summary import flat, rows, summary


def run(speed: float, cost: float) -> dict[str, Any]:
    costs = {"coordinator": cost, "broker": None}
    return {"tasks": 10, "tasks_per_s": speed, "ack_p50_ms": None, "cpu_us_per_task": costs, "machine": {"cores": 2}}


RUNS = [run(300.0, 9.0), run(100.0, 5.0), run(200.0, 8.0)]


def test_every_figure_has_a_path_and_what_is_none_is_left_out() -> None:
    assert dict(flat(RUNS[0])) == {"tasks": 10.0, "tasks_per_s": 300.0, "cpu_us_per_task.coordinator": 9.0}


def test_median_and_range_of_three_runs() -> None:
    found = summary(RUNS)
    assert found["runs"] == RUNS
    assert found["median"] == {"tasks": 10.0, "tasks_per_s": 200.0, "cpu_us_per_task.coordinator": 8.0}
    assert (found["least"]["tasks_per_s"], found["most"]["tasks_per_s"]) == (100.0, 300.0)


def test_a_figure_that_one_run_has_not_is_left_out() -> None:
    assert "tasks_per_s" not in summary([*RUNS, {"tasks": 10}])["median"]


def test_people_see_what_differs() -> None:
    shown = {row[0]: row[1:] for row in rows(summary(RUNS))}
    assert shown == {
        "tasks_per_s": ("200", "100 to 300", "300, 100, 200"),
        "cpu_us_per_task.coordinator": ("8", "5 to 9", "9, 5, 8"),
    }
