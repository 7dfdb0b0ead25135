"""Every fault at every call, whatever the body does: `python -m tests.faults` prints what becomes of each."""
