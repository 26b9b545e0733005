"""`python -m tests.simulation SEED` tells one run step by step; with `--runs N` it judges N seeds from there on."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.mutants import MUTANTS
from tests.simulation.runs import many, run, story


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seed", type=int)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--without", choices=sorted(MUTANTS), default=None, help="the rule to switch off")
    parser.add_argument("--until-found", action="store_true", help="stop at the first violation")
    options = parser.parse_args(arguments)
    if not options.runs:
        result = run(options.seed, options.without)
        print(story(result, options.without, last=1_000_000))
        return 1 if result.wrong else 0
    begun, facts, found = time.monotonic(), Counter[str](), list[int]()
    for result in many(range(options.seed, options.seed + options.runs), options.without, options.workers):
        facts += result.facts
        if result.wrong:
            found.append(result.seed)
            print(story(result, options.without, last=0))
            if options.until_found:
                break
    seconds = time.monotonic() - begun
    print(f"{options.runs} runs in {seconds:.1f} s, {options.runs / seconds * 60:.0f} a minute; {dict(facts)}")
    print(f"{len(found)} with violations: {found[:20]}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
