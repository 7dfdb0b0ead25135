"""Runs many cases side by side, in programs with many threads each: they wait more than they work."""

from __future__ import annotations

import itertools
import json
import logging
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from anymate_guard.sandbox import Sandbox
from tests.faults.case_run import run_case
from tests.faults.cases import FAULTS, OPERATIONS, Case, cases

_PROGRAMS = 3
_CHUNK = 120
_AT_A_TIME = 1 / 4  # of a chunk: a case that waits for processors is late
_ROOT = Path(__file__).parents[2]
# The root comes last, so that an installed package is found before the checkout.
_PROGRAM = """
import sys
sys.path.append(sys.argv[1])
from tests.faults.matrix import run_chunk
run_chunk([int(number) for number in sys.argv[2:]])
"""


@dataclass(frozen=True)
class Result:
    """What became of a case, and which promises it broke."""

    case: Case
    outcome: str
    problems: tuple[str, ...]


class _Lines(logging.Handler):
    """Keeps all lines, and tells those about a process key."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines.append(f"{record.levelname} {record.getMessage()}")

    def about(self, process_key: str) -> list[str]:
        """The lines about a process key."""
        return [line for line in self._lines if f"process_key={process_key} " in f"{line} "]

    def holding(self, secrets: Sequence[str]) -> int:
        """How many lines hold a secret."""
        return sum(any(secret in line for secret in secrets) for line in list(self._lines))


def run_chunk(numbers: Sequence[int]) -> None:
    """Run cases in this program, and print what became of them, a JSON line each."""
    lines = _Lines()
    logging.getLogger().addHandler(lines)
    logging.getLogger().setLevel("DEBUG")
    chosen = [case for case in cases() if case.number in set(numbers)]
    with Sandbox() as sandbox, ThreadPoolExecutor(max(1, int(len(chosen) * _AT_A_TIME))) as pool:

        def run(case: Case) -> None:
            outcome, problems = run_case(case, sandbox, lines.about)
            sys.stdout.write(json.dumps([case.number, outcome, problems]) + "\n")  # in one piece, unlike print

        list(pool.map(run, chosen))
        secrets = [sandbox.environ["ANYMATE_PASSWORD"], sandbox.environ["ANYMATE_CLIENT_SECRET"], "grant_type", "eyJ"]
        if found := lines.holding(secrets):
            sys.stdout.write(json.dumps([chosen[0].number, "told", [f"{found} log lines hold a secret"]]) + "\n")


def run_matrix(chosen: Sequence[Case]) -> list[Result]:
    """Run cases, in several programs at a time."""
    # Neighbours are much alike: a chunk that has some of each waits and works evenly.
    count = max(_PROGRAMS, -(-len(chosen) // _CHUNK))
    with ThreadPoolExecutor(_PROGRAMS) as pool:
        return list(itertools.chain(*pool.map(_in_a_program, (chosen[start::count] for start in range(count)))))


def _in_a_program(chosen: Sequence[Case]) -> list[Result]:
    by_number = {case.number: case for case in chosen}
    command = [sys.executable, "-c", _PROGRAM, str(_ROOT), *map(str, by_number)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=_ROOT / "tests")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    results = [Result(by_number[number], outcome, tuple(problems)) for number, outcome, problems in found]
    missing = by_number.keys() - {result.case.number for result in results}
    return results + [Result(by_number[number], "no result", (done.stderr[-2000:],)) for number in missing]


def table(results: Sequence[Result]) -> str:
    """What became of the finish, by fault and by the call that it struck."""
    cells: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for result in results:
        cells[result.case.fault, result.case.operation][result.outcome] += 1
    heads = ["", *OPERATIONS]
    rows = [heads] + [
        [
            fault,
            *(
                ", ".join(f"{n} {what}" for what, n in cells[fault, operation].most_common())
                for operation in OPERATIONS
            ),
        ]
        for fault in FAULTS
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
