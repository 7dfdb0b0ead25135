"""One batch on a Dask cluster: the guard is where the work is handed out, the tasks return what they achieved.

    python dask_fanout.py FILE…                       on a cluster of its own, made of processes here
    python dask_fanout.py --scheduler ADDRESS FILE…   on yours; anymate_guard has to be installed on its workers

A worker that dies is no loss: Dask gives its task to another one, and only what a task returned in the end is merged. A
task may therefore run more than once, so booking an invoice twice must do no harm.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from dask.distributed import Client, as_completed

from anymate_guard import Kpis, anymate_run


def book(path: str) -> Kpis:
    """Book the invoices of one file. Runs on a worker, which holds no guard and needs no credentials."""
    booked = Kpis()
    with Path(path).open(encoding="utf-8", newline="") as file:
        for invoice in csv.DictReader(file):
            booked += Kpis(entries=1, seconds_saved=float(invoice["minutes"]) * 60)
    return booked


def main(files: list[str], scheduler: str | None) -> None:
    """Book all files, each as one task."""
    here = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with anymate_run("invoice-intake") as run, Client(scheduler) if scheduler else Client(**here) as cluster:
        # Not pure: booking has effects, so an equal call in another batch is not the same task.
        for task in as_completed(cluster.map(book, files, pure=False)):
            run.merge(task.result())
            print(f"{run.entries} invoices booked so far")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--scheduler", metavar="ADDRESS", help="like tcp://10.0.0.7:8786")
    parser.add_argument("files", metavar="FILE", nargs="+", help="CSV files with a column minutes")
    arguments = parser.parse_args()
    main(arguments.files, arguments.scheduler)
