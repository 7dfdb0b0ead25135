"""What many bots do in an hour, done in a second, and the journal that they leave."""

from __future__ import annotations

import random
import time
from typing import Literal

from anymate_guard import AnymateClient, Kpis, Settings
from anymate_guard.sandbox import JournalRow, Sandbox

State = Literal["open", "owed", "refused"]

NAMES = ("invoice-intake", "payroll-export", "claims-sorting", "month-end-closing", "customer-onboarding", "vat-report")
PLACES = ("", "-de", "-fr", "-pl", "-uk")
LONG_KEY = "a-process-key-that-somebody-made-very-long-because-it-names-the-department-the-robot/and/its version"
FAILURES = (
    "ValueError: invoice 2026-0417 has no VAT number",
    "TimeoutError: the ERP gave no answer",
    "RuntimeError: " + "the report of the accounting department could not be read because " * 5,
)


class Clock:
    """A clock that can be set back, so that an hour of runs takes a second."""

    def __init__(self) -> None:
        """Begin an hour ago."""
        self.back = 3600.0

    def __call__(self) -> float:
        """Return the time."""
        return time.time() - self.back


class Journal:
    """A journal that owes something until it is delivered."""

    def __init__(self) -> None:
        """Begin with a run that is open, a finish that is owed, and one that was refused."""
        self.all: list[JournalRow] = [
            _row("invoice-intake", 17_955_347_591_234, "open", 12, 340.5, 41.0, ""),
            _row("payroll-export", None, "owed", 3, None, 4000.0, "StartRun: connection refused"),
            _row(LONG_KEY, 17_955_347_591_200, "refused", 3, 12.0, 90_000.0, f"FinishRun: {FAILURES[2]}"),
        ]

    def rows(self, most: int) -> tuple[list[JournalRow], int]:
        """What there is."""
        return self.all[:most], len(self.all[most:])

    def deliver(self) -> str:
        """Deliver what is owed."""
        self.all = [row for row in self.all if row["state"] != "owed"]
        return "1 delivered, 0 still owed."


def _row(
    key: str, run: int | None, state: State, entries: int, seconds: float | None, age: float, reason: str
) -> JournalRow:
    return {
        "processKey": key,
        "runId": run,
        "state": state,
        "entries": entries,
        "secondsSaved": seconds,
        "age": age,
        "reason": reason,
    }


def work(sandbox: Sandbox, clock: Clock, *, processes: int, runs: int) -> None:
    """Do what some bots do in an hour."""
    chance = random.Random(7)
    keys = [*(name + place for place in PLACES for name in NAMES), LONG_KEY][:processes]
    sandbox.set_tokens(lifetime=100_000)
    sandbox.set_process("payroll-export", entries=10, seconds_saved_per_entry=30)
    step = clock.back / runs
    with AnymateClient(Settings.from_env(sandbox.environ)) as client:
        for number in range(runs):
            key = chance.choice(keys)
            run_id = client.start_run(key)
            clock.back -= step * chance.uniform(0.5, 1.0)
            entries, seconds = chance.randint(3, 60), chance.randint(300, 9000)
            client.finish_run(run_id, chance.choice([Kpis(), Kpis(entries), Kpis(entries, seconds)]))
            clock.back -= step * chance.uniform(0, 0.3)
            if number % 40 == 17:
                client.failure(key, chance.choice(FAILURES))
        sandbox.set_process("month-end-closing", stopped=True, blocked_date="2026-12-24")
        clock.back = 40
        client.start_run("invoice-intake")
        client.start_run("vat-report")
        client.failure("customer-onboarding", FAILURES[2])
        sandbox.fail_next("FinishRun", status=503)
    clock.back = 0
