"""Try worlds, and print how many: `python -m tests.simulation`, or for longer with `--minutes 30 --seed 7`.

With `--mutants` it tells instead in how many schedules it finds each of several mistakes.
"""

from __future__ import annotations

import argparse
import sys

from .mutants import MUTANTS
from .worlds import ALL_FAULTS, SMALL, Failed, Seen, large_for, try_small


def main() -> int:
    """Try every order of the small worlds, then large worlds by their seeds; 1 if a promise was broken."""
    parser = argparse.ArgumentParser("python -m tests.simulation")
    parser.add_argument("--minutes", type=float, default=1.0, help="for large worlds (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="the first one (default: 1)")
    parser.add_argument("--budget", type=int, default=2, help="faults and changes of turn in small worlds (default: 2)")
    parser.add_argument("--mutants", action="store_true", help="break a rule each, and see that it is found")
    options = parser.parse_args()
    if options.mutants:
        return _find_mutants()
    try:
        for name in SMALL:
            seen = Seen()
            try_small(name, ALL_FAULTS, options.budget, seen)
            _tell(name, seen)
        seen = Seen()
        *_, last = large_for(60 * options.minutes, options.seed, seen)
        _tell(f"large worlds, seeds {options.seed} to {last}", seen)
    except Failed as error:
        print(error)
        return 1
    print("No promise was broken.")
    return 0


def _find_mutants() -> int:
    missed = 0
    for name, mutant in MUTANTS.items():
        tried, story = mutant.find()
        missed += not story
        print(f"{tried:>6}  {name}" if story else f"        {name}: NOT FOUND", flush=True)
    return min(missed, 1)


def _tell(name: str, seen: Seen) -> None:
    print(f"{name}: {seen.schedules} schedules, {seen.steps} steps, {seen.faults} faults", flush=True)


if __name__ == "__main__":
    sys.exit(main())
