"""Retry loops, with tenacity and stamina: a guard around the loop, and a loop around the guard.

Around the loop, all tries are one run, and `run.attempt()` counts only the one that succeeds. Inside the
loop, each try is a run of its own, which Anymate credits by itself: `default_credit="succeeded"` keeps failed
tries from earning.
"""

import json
import os
from urllib.request import urlopen

import stamina
import tenacity

from anymate_guard import anymate_run, current_run


class Flaky:
    """Work that is done in two steps, and breaks down between them the first two times."""

    def __init__(self) -> None:
        self.tries = 0

    def work(self) -> None:
        """Work on two entries."""
        self.tries += 1
        current_run().add_entries()
        if self.tries < 3:
            raise ConnectionError("the other side hung up")
        current_run().add_entries()


def tenacity_in_the_guard(flaky: Flaky) -> None:
    """One run; three tries."""
    with anymate_run("tenacity-in-the-guard") as run:
        for attempt in tenacity.Retrying(stop=tenacity.stop_after_attempt(5)):
            with attempt, run.attempt():
                flaky.work()


def stamina_in_the_guard(flaky: Flaky) -> None:
    """One run; three tries."""
    with anymate_run("stamina-in-the-guard") as run:
        for attempt in stamina.retry_context(on=ConnectionError, wait_initial=0.01, wait_jitter=0.01):
            with attempt, run.attempt():
                flaky.work()


@tenacity.retry(stop=tenacity.stop_after_attempt(5))
@anymate_run("guard-in-tenacity", default_credit="succeeded")
def guard_in_tenacity(flaky: Flaky) -> None:
    """Three runs, as the decorator nearest to the function is the innermost."""
    flaky.work()


@stamina.retry(on=ConnectionError, wait_initial=0.01, wait_jitter=0.01)
@anymate_run("guard-in-stamina", default_credit="succeeded")
def guard_in_stamina(flaky: Flaky) -> None:
    """Three runs."""
    flaky.work()


def show_runs() -> None:
    """Print what a sandbox recorded, if Anymate is one: a real one has no such page."""
    address = os.environ.get("ANYMATE_API_URL", "")
    if address.startswith("http://127.0.0.1:"):
        with urlopen(f"{address}/sandbox/runs") as answer:
            for run in json.load(answer):
                print(f"{run['processKey']}: run {run['runId']}, {run['creditedEntries']} entries")


if __name__ == "__main__":
    tenacity_in_the_guard(Flaky())
    stamina_in_the_guard(Flaky())
    guard_in_tenacity(Flaky())
    guard_in_stamina(Flaky())
    show_runs()
