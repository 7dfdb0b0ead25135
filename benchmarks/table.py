"""What is to be reached, and how it is printed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import Samples, ratios, spread


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What is compared, in words.
        group: Where its samples are.
        ours: The contestant that is ours.
        theirs: The other one; None where the number itself is limited.
        at_most: The limit, of the ratio or of the number.
    """

    what: str
    group: str
    ours: str
    theirs: str | None
    at_most: float


ROWS = (
    Row("one guarded run / the same by hand on requests.Session", "run", "guarded", "by hand", 0.6),
    Row("one guarded run / official SDK", "run", "guarded", "sdk", 0.15),
    Row("one guarded run / http.client", "run", "guarded", "http.client", 2.5),
    Row("one guarded run, JSON log to a file / requests.Session", "logged", "guarded", "by hand", 0.6),
    Row("one async guarded run / requests in asyncio.to_thread", "tasks", "guarded", "by hand", 0.5),
    Row("run.add_entries() / with lock: n += 1", "counting", "guarded", "by hand", 1.5),
    Row("import anymate_guard / import anymate", "starting", "import anymate_guard", "import anymate", 0.3),
    Row("anymate-guard --version / import requests", "starting", "--version", "import requests", 0.5),
    Row("64 threads x 20 guarded runs / shared requests.Session", "threads", "guarded", "by hand", 0.5),
    Row("memory after 10 000 runs, growth since 1 000 (MiB)", "history", "memory", None, 1.0),
    Row("entering, 10 000 settled runs behind / empty journal", "history", "full", "empty", 1.05),
    Row("settling one of 500 owed finishes / one FinishRun by hand", "settling", "guarded", "by hand", 0.45),
    Row("a cold bot, one guarded run / by hand with requests", "cold", "guarded", "by hand", 1.2),
    Row("a cold bot, one guarded run / official SDK", "cold", "guarded", "sdk", 0.6),
    Row("a cold bot that configures structlog / by hand, too", "cold", "guarded, structlog", "by hand, structlog", 1.2),
    Row("os.fork and wait, inside a guard / outside", "forking", "inside", "outside", 1.5),
    Row("os.fork and wait under gevent, inside a guard / outside", "forking", "inside gevent", "outside gevent", 1.5),
    Row("in and out, 100 000 owed, Anymate down / none owed", "backlog", "down", "down, none owed", 1.2),
    Row("the same, Anymate up, less settling / none owed", "backlog", "up, less settling", "up, none owed", 1.2),
    Row("journal deliver, one of 100 000 / one FinishRun by hand", "delivering", "guarded", "by hand", 0.6),
    Row("100 processes x 20 guarded runs / a requests.Session each", "fleet", "guarded", "by hand", 1.0),
    Row("1 000 async guards at once / requests in asyncio.to_thread", "concurrent", "guarded", "by hand", 0.6),
    Row("memory of an open guard over import requests (MiB)", "memory", "more", None, 6.0),
)


@dataclass(frozen=True)
class Result:
    """A row, measured.

    Attributes:
        row: Which.
        ours: The median of ours, in seconds or MiB, and its median absolute deviation.
        theirs: The same of theirs.
        ratio: The median of the rounds' ratios, and its deviation; of the number itself where there are no others.
    """

    row: Row
    ours: tuple[float, float]
    theirs: tuple[float, float] | None
    ratio: tuple[float, float]

    @property
    def ok(self) -> bool:
        """Whether the limit is kept."""
        return self.ratio[0] <= self.row.at_most

    def as_json(self) -> dict[str, Any]:
        """The facts, in the base units."""
        numbers = {"ours": self.ours, "theirs": self.theirs, "ratio": self.ratio}
        medians = {name: pair and {"median": pair[0], "spread": pair[1]} for name, pair in numbers.items()}
        return {"what": self.row.what, **medians, "at_most": self.row.at_most, "ok": self.ok}


def result(row: Row, measured: Mapping[str, Samples]) -> Result:
    """What a row's samples say."""
    samples = measured[row.group]
    ours = samples[row.ours]
    if row.theirs is None:
        return Result(row, _middle(ours), None, _middle(ours))
    theirs = samples[row.theirs]
    return Result(row, _middle(ours), _middle(theirs), _middle(ratios(ours, theirs)))


def render(results: list[Result]) -> str:
    """The table, in Markdown."""
    lines = [("what", "ours", "theirs", "ratio", "at most", "ok"), *(_cells(each) for each in results)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def _cells(each: Result) -> tuple[str, ...]:
    if each.theirs is None:
        ours, theirs, ratio = f"{each.ours[0]:.2f}", "", f"{each.ratio[0]:.2f}"
    else:
        ours, theirs = _duration(*each.ours), _duration(*each.theirs)
        ratio = f"{each.ratio[0]:.3f} ± {each.ratio[1]:.3f}"
    return each.row.what, ours, theirs, ratio, f"{each.row.at_most:g}", "yes" if each.ok else "NO"


def _duration(seconds: float, deviation: float) -> str:
    units = (("s", 1.0), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9))
    unit, factor = next((each for each in units if abs(seconds) * each[1] >= 1), units[-1])
    return f"{seconds * factor:.3g} ± {deviation * factor:.2g} {unit}"


def _middle(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), spread(values)
