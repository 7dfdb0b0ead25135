"""What an outage leaves in the journal: how it is delivered, and that it is not felt.

`python -m benchmarks.backlog COUNT` is a program whose finishes stay in the journal: its outage begins between StartRun
and FinishRun, so each run has its number.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks import server
from benchmarks.contestants import ENTRIES, PROCESS_KEY, ByHand
from benchmarks.measure import Contestant, Samples, in_turn, rounds

_SETTLING = 2.0  # seconds that a guard may give to what others are owed, when it enters and again when it leaves


def settling(*, quick: bool) -> Samples:
    """Sending finishes that an outage left in the journal, beside one FinishRun by hand."""
    owed = 5 if quick else 500
    home = Path(os.environ["ANYMATE_STATE_DIR"])
    _owe(home / "owed", owed)
    contestant = Contestant(ByHand().login().finish, owed // 5)
    samples: Samples = {"guarded": [], "by hand": []}
    for number in range(-1, 2 if quick else 10):
        theirs = rounds({"by hand": contestant}, 1)
        ours = _settle(shutil.copytree(home / "owed", home / str(number))) / owed
        if number >= 0:
            samples["guarded"].append(ours)
            samples["by hand"] += theirs["by hand"]
    return samples


def backlog(*, quick: bool) -> Samples:
    """Entering and leaving a guard beside a long backlog, with Anymate down and up."""
    home = Path(os.environ["ANYMATE_STATE_DIR"])
    _pile(home / "owed", 200 if quick else 100_000)
    with socket.create_server(("127.0.0.1", 0)) as closed:  # bound and then closed: nobody answers there
        nowhere = f"https://127.0.0.1:{closed.getsockname()[1]}"
    with (
        closing(sqlite3.connect(shutil.copytree(home / "owed", home / "down") / "journal.sqlite3")) as journal,
        journal,
    ):
        journal.execute("UPDATE rows SET address = ?", (nowhere,))
    down = {"ANYMATE_API_URL": nowhere, "ANYMATE_AUTH_URL": nowhere}
    count = 2 if quick else 20
    samples = _in_and_out(
        {"down": home / "down", "down, none owed": home / "none down"}, 2 if quick else 10, count, down
    )
    rest = _in_and_out({"up": home / "owed", "up, none owed": home / "none"}, 1, 1 if quick else 5, {})
    whole = 0.0 if quick else 2 * _SETTLING  # so little is settled sooner
    samples["up, less settling"] = [max(0.0, seconds - whole) for seconds in rest["up"]]
    return {**samples, "up, none owed": rest["up, none owed"]}


def delivering(*, quick: bool) -> Samples:
    """`anymate-guard journal deliver`, for each finish, beside one FinishRun by hand."""
    owed = 200 if quick else 100_000
    home = Path(os.environ["ANYMATE_STATE_DIR"])
    _pile(home / "owed", owed)
    contestant = Contestant(ByHand().login().finish, 10 if quick else 1_000)
    samples: Samples = {"guarded": [], "by hand": []}
    for number in range(1 if quick else 2):
        folder = shutil.copytree(home / "owed", home / str(number))
        command = [sys.executable, "-m", "anymate_guard", "journal", "deliver"]
        before = rounds({"by hand": contestant}, 1)["by hand"]
        started = time.perf_counter()
        environ = {**os.environ, "ANYMATE_STATE_DIR": str(folder)}
        subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)  # our own
        samples["guarded"].append((time.perf_counter() - started) / owed)
        samples["by hand"].append((before[0] + rounds({"by hand": contestant}, 1)["by hand"][0]) / 2)
    return samples


def _in_and_out(folders: dict[str, Path], times: int, count: int, environ: dict[str, str]) -> Samples:
    from anymate_guard import AnymateClient, Settings, anymate_run

    logging.getLogger("anymate_guard").setLevel(logging.CRITICAL)
    clients = {
        name: AnymateClient(Settings.from_env({**os.environ, **environ, "ANYMATE_STATE_DIR": str(folder)}))
        for name, folder in folders.items()
    }
    samples: Samples = {name: [] for name in clients}

    def enter_and_leave(name: str) -> Callable[[], None]:
        def call() -> None:
            with anymate_run(f"{PROCESS_KEY}-{name}", client=clients[name]):
                pass

        return call

    for number in range(-1, count):
        for name in in_turn(list(clients), number):
            contestant = {name: Contestant(enter_and_leave(name), times)}
            if number < 0:
                contestant[name].call()
            else:
                samples[name] += rounds(contestant, 1, warm_up=False)[name]
    return samples


def _pile(folder: Path, count: int) -> None:
    """Let one finish stay in the journal of a program that ended, and make as many of it, of other processes."""
    _owe(folder, 1)
    with closing(sqlite3.connect(folder / "journal.sqlite3")) as journal, journal:
        columns = [name for (_, name, *_) in journal.execute("PRAGMA table_info(rows)")]
        other = {
            "process_key": "process_key || '-' || n",
            "run_id": "run_id + n",
            "id": "id + n",
            "began": "began + n * 1e-3",
        }
        journal.execute(
            f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count - 1}) "
            f"INSERT INTO rows SELECT {', '.join(other.get(name, name) for name in columns)} FROM rows, numbers"
        )
        journal.execute("UPDATE rows SET owner = 0")  # as the first guard would
        journal.execute("DELETE FROM outages")


def _owe(folder: Path, count: int) -> None:
    """Let another process, which ends then, run into an outage."""
    command = [sys.executable, "-m", "benchmarks.backlog", str(count)]
    subprocess.run(command, env={**os.environ, "ANYMATE_STATE_DIR": str(folder)}, check=True)  # our own


def _settle(folder: Path) -> float:
    from anymate_guard import AnymateClient, Settings
    from anymate_guard._guard.driver import settle_all

    with AnymateClient(Settings.from_env({**os.environ, "ANYMATE_STATE_DIR": str(folder)})) as client:
        client.ok_to_run(PROCESS_KEY)  # opens the connection and fetches the token
        started = time.perf_counter()
        done = settle_all(client)
        seconds = time.perf_counter() - started
    if not done:
        raise RuntimeError("not everything was settled")
    return seconds


def main() -> None:
    """Leave as many guards as are asked for without a finish."""
    from anymate_guard import AnymateClient, Settings, anymate_run

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
