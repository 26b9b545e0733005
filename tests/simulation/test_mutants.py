"""A simulation that finds nothing proves nothing: with any one rule of the contract switched off it finds what is lost."""

from __future__ import annotations

import os

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.runs import Result, many, run, story

WORKERS = int(os.environ.get("SIMULATION_WORKERS", "1"))
RUNS = 1000

FOUND = {
    "commits-before-acks": 71,
    "ends-of-the-last-fetch": 45,
    "no-claim": 1631,
    "no-header-row": 8,
    "no-origin": 0,
    "not-rehomed-again": 88,
    "outputs-before-rows": 2,
    "strays-believed": 4,
    "tail-not-acked-first": 24,
}
"""The first seed from 0 on by which each is found, so that the short form need not search."""


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_rule_that_is_switched_off_is_missed(name: str) -> None:
    seed = FOUND[name]
    again = f"python -m tests.simulation 0 --runs {RUNS} --without {name} --until-found"
    assert run(seed, name).wrong, f"seed {seed} tells another story now; search with: {again}"
    assert not run(seed).wrong, "and with the rule nothing is lost"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_each_is_found_within_a_thousand_fresh_seeds(name: str) -> None:
    found: Result | None = None
    for result in many(range(3_000_000, 3_000_000 + RUNS), name, WORKERS):
        if result.wrong:
            found = result
            break
    assert found is not None, f"{name}: {RUNS} runs and nothing found"
    print(story(found, name, last=0))
