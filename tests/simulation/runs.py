"""Runs by seed: one with its trace, or many, in this process or in several."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import structlog

from tests.simulation.judge import Judge
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.world import World

ACTIONS = 300
"""What a scheduler does in one run before the calm."""


@dataclass
class Result:
    """What became of one seed. wrong: what was violated, by name, empty if nothing."""

    seed: int
    wrong: dict[str, list[str]] = field(default_factory=dict)
    facts: Counter[str] = field(default_factory=Counter)
    trace: list[tuple[int, str, str]] = field(default_factory=list)
    raised: str = ""


@contextmanager
def silence() -> Iterator[None]:
    """Deaths are asked for here, so nobody need hear of them."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**before)


@silence()
def run(seed: int, mutant: str | None = None, actions: int = ACTIONS) -> Result:
    """One run, judged."""
    made = MUTANTS[mutant] if mutant else Mutant()
    world = World(seed, made.coordinator(), made.host)
    result = Result(seed, trace=world.trace)
    try:
        world.run(actions)
        report = Judge(world).verdict()
    except Exception as error:
        result.raised = traceback.format_exc()
        result.wrong = {type(error).__name__: [str(error)]}
        return result
    result.wrong = report.violations
    result.facts.update({name: count for name, count in report.facts.items() if isinstance(count, int)})
    result.facts.update({str(state): count for state, count in report.facts["outcomes"].items()})
    result.facts.update(f"exit {code}" for _, code, _ in world.exits)
    result.facts["killed"] = sum(what == "is killed" for _, _, what in world.trace)
    result.facts["actions"] = len(world.trace)
    return result


def _some(seeds: list[int], mutant: str | None) -> list[Result]:
    results = [run(seed, mutant) for seed in seeds]
    for result in results:
        if not result.wrong:
            result.trace = []
    return results


def many(seeds: Iterable[int], mutant: str | None = None, workers: int = 1) -> Iterator[Result]:
    """Runs in the order of their seeds."""
    given = iter(seeds)
    chunks = iter(lambda: list(islice(given, 20)), [])
    if workers <= 1:
        for chunk in chunks:
            yield from _some(chunk, mutant)
        return
    with ProcessPoolExecutor(workers) as pool:
        for results in pool.map(partial(_some, mutant=mutant), chunks):
            yield from results


def replay(seed: int, mutant: str | None) -> str:
    """The command that runs a seed again and shows its steps."""
    return f"python -m tests.simulation {seed}" + (f" --without {mutant}" if mutant else "")


def story(result: Result, mutant: str | None = None, last: int = 60) -> str:
    """A failing run for people: what was violated, the last steps, and the command for all of them."""
    shown = result.trace[max(0, len(result.trace) - last) :]
    steps = [f"{at / 1e6:12.6f}  {who:<16}  {what}" for at, who, what in shown]
    wrong = [f"  {name}: {found[:3]}" for name, found in result.wrong.items()]
    raised = [result.raised] if result.raised else []
    return "\n".join([f"seed {result.seed}", *wrong, *raised, *steps, f"again: {replay(result.seed, mutant)}"])
