"""Print the resident memory in MiB: of a process that imported requests, or of one with an open guard."""

import sys
from pathlib import Path

if sys.argv[1] == "guarded":
    from anymate_guard import anymate_run

    guard = anymate_run("benchmark")
    guard.__enter__()
else:
    import requests  # noqa: F401  # that is what is measured
(line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
print(int(line.split()[1]) / 1024)
if sys.argv[1] == "guarded":
    guard.__exit__(None, None, None)
