"""Runs the fault matrix and prints the table of outcomes: `python -m tests.faults [--sample]`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.faults.cases import cases, sample
from tests.faults.matrix import run_matrix, table


def main() -> int:
    """Run the cases that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--sample", action="store_true", help="only the fixed sample")
    asked = parser.parse_args()
    begun = time.monotonic()
    results = run_matrix(sample() if asked.sample else list(cases()))
    broken = [result for result in results if result.problems]
    lines = [table(results)]
    lines += [f"\n{result.case}\n  {result.outcome}: {'; '.join(result.problems)}" for result in broken]
    lines.append(f"\n{len(results)} cases in {time.monotonic() - begun:.0f} s, {len(broken)} of them broke a promise\n")
    sys.stdout.write("\n".join(lines))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
