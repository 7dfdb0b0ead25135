"""Fork and wait, many times, inside a guard and outside: `python -m benchmarks.bots.fork [gevent]`; prints JSON."""

import json
import os
import sys

fork, waitpid = os.fork, os.waitpid  # gevent's own watch the child: they are not what is measured
if "gevent" in sys.argv:
    from gevent import monkey

    monkey.patch_all()

from anymate_guard import anymate_run  # noqa: E402  # gevent wants to be first
from benchmarks.measure import Contestant, Samples, rounds  # noqa: E402  # as above

TIMES = 20


def fork_and_wait() -> None:
    """Fork, and wait for the child."""
    child = fork()
    if not child:
        os._exit(0)
    waitpid(child, 0)


def main(count: int) -> Samples:
    """Measure each in turn: the guard is entered and left between the rounds."""
    contestant = Contestant(fork_and_wait, TIMES)
    samples: Samples = {"inside": [], "outside": []}
    for _ in range(count):
        samples["outside"] += rounds({"outside": contestant}, 1)["outside"]
        with anymate_run("benchmark"):
            samples["inside"] += rounds({"inside": contestant}, 1)["inside"]
    return samples


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
