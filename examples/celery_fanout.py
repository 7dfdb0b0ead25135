"""One batch on Celery workers, as a chord: the guard is where the chord is sent, the tasks return what they achieved.

    celery --app celery_fanout worker     on each worker
    python celery_fanout.py FILE…         once, where the batch is started

The broker here is a folder, so that nothing has to be installed; take your own, and any result backend that can do
chords: all but rpc://. One that can't count (a folder, say) is asked once a second whether all tasks are done.
"""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from celery import Celery, chord
from kombu.utils.json import register_type

from anymate_guard import Kpis, anymate_run

FOLDER = Path(os.environ.get("CELERY_FANOUT_FOLDER", Path(tempfile.gettempdir(), "celery-fanout")))
for name in ("queue", "control", "results"):
    (FOLDER / name).mkdir(parents=True, exist_ok=True)

app = Celery("celery_fanout", broker="filesystem://", backend=(FOLDER / "results").as_uri())
app.conf.broker_transport_options = {
    "data_folder_in": FOLDER / "queue",
    "data_folder_out": FOLDER / "queue",
    "control_folder": FOLDER / "control",
}
app.conf.task_acks_late = True  # a task whose worker dies goes back into the queue

# Kpis travel as JSON; pickle would do as well, but then a worker trusts whoever can reach the broker.
register_type(Kpis, "Kpis", asdict, lambda fields: Kpis(**fields))


@app.task
def book(path: str) -> Kpis:
    """Book the invoices of one file. Runs on a worker, which holds no guard and needs no credentials."""
    booked = Kpis()
    with Path(path).open(encoding="utf-8", newline="") as file:
        for invoice in csv.DictReader(file):
            booked += Kpis(entries=1, seconds_saved=float(invoice["minutes"]) * 60)
    return booked


@app.task
def total(booked: list[Kpis]) -> Kpis:
    """Add up, when all files are done."""
    return sum(booked, Kpis())


def main(files: list[str]) -> None:
    """Book all files, each as one task."""
    with anymate_run("invoice-intake") as run:
        batch = chord(book.s(path) for path in files)(total.s())
        run.merge(batch.get(timeout=3600))
        print(f"{run.entries} invoices booked")


if __name__ == "__main__":
    main(sys.argv[1:])
