"""A bot that restarts itself: when a round fails, everything is closed down and a fresh one begins.

The guard is in the loop, so every round is finished on Anymate before the next one starts. It never swallows
an exception, so the loop sees each one.
"""

import sys
import time

from anymate_guard import anymate_run, current_run

ORDERS = ["4711", "broken", "4712", "4713"]


@anymate_run("order-intake", report_failure=True, default_credit="succeeded")
def work() -> None:
    """Work on the orders that are left."""
    while ORDERS:
        order = ORDERS.pop(0)
        if order == "broken":
            raise RuntimeError("the order system has closed its window")
        current_run().add_entries()


if __name__ == "__main__":
    while True:
        try:
            work()
            break
        except RuntimeError as error:
            print(f"{error}; starting afresh", file=sys.stderr)
            time.sleep(0.01)  # minutes, in a real bot
