"""A program whose finishes stay in the journal: `python -m benchmarks.outage COUNT`.

The outage begins between StartRun and FinishRun, so each run has its number.
"""

from __future__ import annotations

import logging
import os
import sys

from anymate_guard import AnymateClient, Settings, anymate_run
from benchmarks import server
from benchmarks.contestants import ENTRIES, PROCESS_KEY


def main() -> None:
    """Leave as many guards as are asked for without a finish."""
    logging.getLogger("anymate_guard").setLevel(logging.CRITICAL)
    url, authority = os.environ["ANYMATE_API_URL"], os.environ["SSL_CERT_FILE"]
    client = AnymateClient(Settings.from_env())
    client.ok_to_run(PROCESS_KEY)
    server.outage(url, authority, begins=True)
    for number in range(int(sys.argv[1])):
        with anymate_run(f"{PROCESS_KEY}-{number}", client=client) as run:
            run.add_entries(ENTRIES)
    server.outage(url, authority, begins=False)


if __name__ == "__main__":
    main()
