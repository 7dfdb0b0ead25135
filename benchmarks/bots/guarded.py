"""A bot with a guard."""

from anymate_guard import anymate_run

with anymate_run("benchmark") as run:
    run.add_entries(3)
