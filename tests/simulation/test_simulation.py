"""Seeded runs of the whole coordinator in memory, each judged; a failing seed is told with the command that repeats it.

The number of worker processes is an option: SIMULATION_WORKERS=2 in the environment of pytest.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from tests.simulation.runs import Result, many, run, story

WORKERS = int(os.environ.get("SIMULATION_WORKERS", "1"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("first", "count"), [(1_000_000, 400), pytest.param(2_000_000, 10_000, marks=pytest.mark.long)]
)
def test_no_run_violates_anything(first: int, count: int) -> None:
    facts, wrong = Counter[str](), list[Result]()
    for result in many(range(first, first + count), workers=WORKERS):
        facts += result.facts
        if result.wrong:
            wrong.append(result)
    assert not wrong, "\n\n".join(story(result) for result in wrong[:3])
    # Runs in which nothing happens would violate nothing either.
    for name in (
        "killed",
        "strays",
        "re_emitted",
        "late_report",
        "timeouts",
        "queued",
        "requeued",
        "exit 72",
        "poison",
    ):
        assert facts[name] * 400 >= count, f"{name}: {facts[name]} in {count} runs"


def test_a_run_is_made_of_its_seed_alone() -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    first, second = run(seed), run(seed)
    assert not first.wrong, story(first)
    assert first.trace == second.trace, f"seed {seed}"
    assert first.facts == second.facts
