"""How long a fetch is held: a moment while records flow, not at all for one that comes alone, long when nothing comes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from streams.runtime.faust_fetching import Pace

HOOKS: Any = SimpleNamespace(gather_bytes=65_536, gather_ms=4, fetch_max_wait_ms=500)


def paced(gaps_s: list[float], count: int = 1) -> tuple[int, int]:
    """(least bytes, longest wait in ms) of the fetch after fetches of `count` records at these distances."""
    pace, now, fetcher = Pace(HOOKS), 100.0, SimpleNamespace()
    for gap in gaps_s:
        now += gap
        pace.heard(now, count)
    pace.apply(fetcher)
    return fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms


@pytest.mark.parametrize(("gap", "count"), [(0.0001, 1), (0.001, 1), (0.0039, 1), (0.006, 2), (0.015, 30)])
def test_records_that_flow_are_gathered(gap: float, count: int) -> None:
    assert paced([gap] * 100, count) == (65_536, 4)


@pytest.mark.parametrize("gaps", [[], [0.0], [0.0041] * 100, [1.0] * 5, [0.001] * 100 + [0.05] * 3])
def test_a_record_that_comes_alone_is_not_held(gaps: list[float]) -> None:
    assert paced(gaps) == (1, 500)


def test_what_gathers_behind_the_work_is_not_held() -> None:
    assert paced([0.017] * 100, 500) == (1, 500)


def test_a_flow_that_stops_is_forgotten_at_once() -> None:
    pace, fetcher = Pace(HOOKS), SimpleNamespace()
    for n in range(100):
        pace.heard(n / 1000, 1)
    assert pace.flowing
    pace.heard(0.2, 0)
    pace.apply(fetcher)
    assert (pace.flowing, fetcher._fetch_min_bytes) == (False, 1)
