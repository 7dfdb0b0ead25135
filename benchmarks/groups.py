"""What is measured together, each group in a process of its own: `python -m benchmarks.groups NAME`.

A group prints its samples as JSON, by contestant: seconds for each round, or MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import backlog, processes, server
from benchmarks.contestants import ENTRIES, PROCESS_KEY, Bare, ByHand, Guarded, OfficialSdk
from benchmarks.measure import Contestant, Samples, async_rounds, in_turn, rounds


def run(*, quick: bool) -> Samples:
    """One guarded run, beside all others."""
    times = 2 if quick else 20
    contestants = {
        "guarded": Contestant(Guarded().run, times),
        "by hand": Contestant(ByHand().login().run, times),
        "http.client": Contestant(Bare().run, times),
        "sdk": Contestant(OfficialSdk().run, 1 if quick else 3),
    }
    return rounds(contestants, 2 if quick else 100)


def logged(*, quick: bool) -> Samples:
    """One guarded run, with logging at info level to a file as JSON."""
    import structlog

    with Path(os.environ["ANYMATE_STATE_DIR"], "log.json").open("w") as file:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger("info"),
            logger_factory=structlog.WriteLoggerFactory(file),
            cache_logger_on_first_use=True,
        )
        times = 2 if quick else 20
        contestants = {
            "guarded": Contestant(Guarded().run, times),
            "by hand": Contestant(ByHand().login().run, times),
        }
        return rounds(contestants, 2 if quick else 100)


def tasks(*, quick: bool) -> Samples:
    """One guarded run in async code."""
    contestants = {"guarded": Guarded().arun, "by hand": ByHand().login().arun}
    return asyncio.run(async_rounds(contestants, 2 if quick else 20, 2 if quick else 80))


def counting(*, quick: bool) -> Samples:
    """`run.add_entries()`, beside a lock and a number."""
    from anymate_guard import anymate_run

    times = 100 if quick else 50_000
    with anymate_run(PROCESS_KEY) as guarded:

        def add() -> None:
            for _ in range(times):
                guarded.add_entries()

        contestants = {"guarded": Contestant(add, 1, times), "by hand": Contestant(_count(times), 1, times)}
        return rounds(contestants, 2 if quick else 100)


def _count(times: int) -> Callable[[], None]:
    lock = threading.Lock()
    n = 0

    def count() -> None:
        nonlocal n
        for _ in range(times):
            with lock:
                n += 1

    return count


def threads(*, quick: bool) -> Samples:
    """Many threads, each with a process key of its own; wall time from nothing, so connections and token included."""
    count, runs = (8, 2) if quick else (64, 20)
    contestants = {
        "guarded": Contestant(lambda: _guarded_threads(count, runs)),
        "by hand": Contestant(lambda: _threads_by_hand(count, runs)),
    }
    return rounds(contestants, 2 if quick else 7)


def _guarded_threads(count: int, runs: int) -> None:
    from anymate_guard import AnymateClient, Settings, anymate_run

    with AnymateClient(Settings.from_env()) as client:

        def work(process_key: str) -> None:
            for _ in range(runs):
                with anymate_run(process_key, client=client) as guarded:
                    guarded.add_entries(ENTRIES)

        together(count, work)


def _threads_by_hand(count: int, runs: int) -> None:
    by_hand = ByHand()

    def work(process_key: str) -> None:
        by_hand.login()
        for _ in range(runs):
            by_hand.run(process_key)

    together(count, work)
    by_hand.close()


def together(count: int, work: Callable[[str], None]) -> None:
    """Let that many threads do the work, each with its own process key."""
    all_of_them = [threading.Thread(target=work, args=(f"{PROCESS_KEY}-{number}",)) for number in range(count)]
    for thread in all_of_them:
        thread.start()
    for thread in all_of_them:
        thread.join()


def history(*, quick: bool) -> Samples:
    """How memory grows over many runs, and then whether the journal behind them makes entering slower."""
    first, all_of_them = (10, 50) if quick else (1_000, 10_000)
    guarded = Guarded()
    for number in range(all_of_them):
        if number == first:
            before = _resident_memory()
        guarded.run()
    growth = _resident_memory() - before
    with tempfile.TemporaryDirectory() as empty:
        samples = _entering(Path(empty), 5 if quick else 40, 2 if quick else 100)
    return {**samples, "memory": [growth]}


def _entering(empty: Path, times: int, count: int) -> Samples:
    """Entering with the journal that is there, and with a new one; leaving is not timed."""
    from anymate_guard import AnymateClient, Settings, anymate_run

    folders = {"full": Path(os.environ["ANYMATE_STATE_DIR"]), "empty": empty}
    clients = {
        name: AnymateClient(Settings.from_env({**os.environ, "ANYMATE_STATE_DIR": str(folder)}))
        for name, folder in folders.items()
    }
    samples: Samples = {name: [] for name in clients}
    for number in range(-1, count):
        for name in in_turn(list(clients), number):
            seconds = 0.0
            for _ in range(times):
                guard = anymate_run(PROCESS_KEY, client=clients[name])
                started = time.perf_counter()
                with guard:
                    seconds += time.perf_counter() - started
            if number >= 0:
                samples[name].append(seconds / times)
    return samples


def _resident_memory() -> float:
    """In MiB; where the system does not tell, the most that it ever was."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


_ALL = (
    *(run, logged, tasks, counting, processes.starting, threads, history, backlog.settling),
    *(processes.cold, processes.forking, backlog.backlog, backlog.delivering),
    *(processes.fleet, processes.concurrent, processes.memory),
)
GROUPS = {group.__name__: group for group in _ALL}


def measure(name: str, environ: dict[str, str], *, quick: bool) -> Samples:
    """Let a group run in a process and a state folder of its own."""
    command = [sys.executable, "-m", "benchmarks.groups", name, *(["--quick"] if quick else [])]
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, **environ, "ANYMATE_STATE_DIR": str(folder)}
        # Bytecode is kept, as that of installed packages is: all are measured without compiling, from a checkout too.
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        environ["PYTHONPYCACHEPREFIX"] = str(Path(folder, "bytecode"))
        done = subprocess.run(command, cwd=server.ROOT, env=environ, check=True, stdout=subprocess.PIPE)
    samples: Samples = json.loads(done.stdout)
    return samples


def main() -> None:
    """Measure one group and print its samples."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=GROUPS)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(GROUPS[arguments.name](quick=arguments.quick)))


if __name__ == "__main__":
    main()
