"""Twenty runs on a process key of its own, guarded or by hand: `python -m benchmarks.bots.twenty guarded KEY`."""

import sys

from benchmarks.contestants import ByHand, Guarded

contestant = Guarded() if sys.argv[1] == "guarded" else ByHand().login()
for _ in range(20):
    contestant.run(sys.argv[2])
