"""Measure everything in one run and print it: `python -m benchmarks [--quick] [--json]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time

from benchmarks.groups import GROUPS, measure
from benchmarks.server import Server
from benchmarks.table import ROWS, render, result


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds, only to see that everything works")
    parser.add_argument("--json", action="store_true", help="print JSON, with all samples, instead of the table")
    parser.add_argument("--only", choices=GROUPS, action="append", help="measure only this group (may be repeated)")
    arguments = parser.parse_args()
    measured = {}
    with Server() as server:
        for name in arguments.only or GROUPS:
            started = time.monotonic()
            measured[name] = measure(name, server.environ, quick=arguments.quick)
            print(f"{name}: measured in {time.monotonic() - started:.0f} s", file=sys.stderr)
    results = [result(row, measured) for row in ROWS if row.group in measured]
    facts = {"python": platform.python_version(), "machine": platform.platform(), "processors": os.cpu_count()}
    if arguments.json:
        print(
            json.dumps(
                {**facts, "quick": arguments.quick, "rows": [each.as_json() for each in results], "samples": measured},
                indent=1,
            )
        )
    else:
        print(render(results))
        print(f"\nPython {facts['python']}, {facts['machine']}, {facts['processors']} processors")


if __name__ == "__main__":
    main()
