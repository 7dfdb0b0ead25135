"""One batch on all cores: the guard is in the main process, the workers return what they achieved.

    python multiprocessing_pool.py FILE…

A run can't be handed to another process, as its counts would stay there; a Kpis can.
"""

from __future__ import annotations

import csv
import sys
from multiprocessing import get_context
from pathlib import Path

from anymate_guard import Kpis, anymate_run


def book(path: str) -> Kpis:
    """Book the invoices of one file. Runs in a worker process, which holds no guard and needs no credentials."""
    booked = Kpis()
    with Path(path).open(encoding="utf-8", newline="") as file:
        for invoice in csv.DictReader(file):
            booked += Kpis(entries=1, seconds_saved=float(invoice["minutes"]) * 60)
    return booked


def main(files: list[str]) -> None:
    """Book all files, each as one task."""
    # "spawn" works everywhere, and a forked child would inherit its parent's locks.
    with anymate_run("invoice-intake") as run, get_context("spawn").Pool(2) as pool:
        for booked in pool.imap_unordered(book, files):
            run.merge(booked)
            print(f"{run.entries} invoices booked so far")


if __name__ == "__main__":
    main(sys.argv[1:])
