"""Whole programs: cold ones, forking ones, many at once, and their memory."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.contestants import ENTRIES, PROCESS_KEY, ByHand
from benchmarks.measure import Contestant, Samples, rounds

BOTS = Path(__file__).with_name("bots")
_THREADS = 32  # as many as a guard's own


def starting(*, quick: bool) -> Samples:
    """Fresh interpreters: imports, and the command line."""
    script = shutil.which("anymate-guard", path=str(Path(sys.executable).parent))
    command_line = [script] if script else [sys.executable, "-m", "anymate_guard"]
    commands = {
        "empty": [sys.executable, "-c", "pass"],
        "import anymate_guard": [sys.executable, "-c", "from anymate_guard import anymate_run"],  # names may be lazy
        "import anymate": [sys.executable, "-c", "import anymate"],
        "--version": [*command_line, "--version"],
        "import requests": [sys.executable, "-c", "import requests"],
    }
    contestants = {name: Contestant(_process(command)) for name, command in commands.items()}
    samples = rounds(contestants, 2 if quick else 30)
    for name in ("import anymate_guard", "import anymate"):
        samples[name] = [all_of_it - empty for all_of_it, empty in zip(samples[name], samples["empty"], strict=True)]
    return samples


def cold(*, quick: bool) -> Samples:
    """A whole process that does one run."""
    bots = {"guarded": ["guarded.py"], "by hand": ["by_hand.py"], "sdk": ["sdk.py"]}
    logged = {f"{name}, structlog": ["with_structlog.py", bots[name][0][:-3]] for name in ("guarded", "by hand")}
    contestants = {name: Contestant(_process(_bot(*words))) for name, words in {**bots, **logged}.items()}
    return rounds(contestants, 2 if quick else 30)


def forking(*, quick: bool) -> Samples:
    """Fork and wait, inside a guard and outside; under gevent too."""
    samples: Samples = {}
    for name in ("", "gevent"):
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.bots.fork", "2" if quick else "30", name]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        samples |= {f"{where} {name}".strip(): values for where, values in json.loads(printed).items()}
    return samples


def fleet(*, quick: bool) -> Samples:
    """Many processes at once, with 20 runs each on keys of their own."""
    count = 4 if quick else 100
    contestants = {name: Contestant(_fleet(name, count)) for name in ("guarded", "by hand")}
    return rounds(contestants, 1 if quick else 3)


def concurrent(*, quick: bool) -> Samples:
    """Many guards at once in one event loop, each on a key of its own, and the calls by hand in as many threads."""
    count = 20 if quick else 1_000
    contestants = {
        "guarded": Contestant(lambda: asyncio.run(_concurrently_guarded(count)), 1, count),
        "by hand": Contestant(lambda: asyncio.run(_concurrently_by_hand(count)), 1, count),
    }
    return rounds(contestants, 2 if quick else 5)


def memory(*, quick: bool) -> Samples:
    """What an open guard takes, in MiB, over a process that imported requests."""
    samples: Samples = {"more": []}
    for _ in range(2 if quick else 10):
        guarded, by_hand = (float(subprocess.check_output(_bot("memory.py", who))) for who in ("guarded", "requests"))
        samples["more"].append(guarded - by_hand)
    return samples


def _bot(name: str, *words: str) -> list[str]:
    return [sys.executable, str(BOTS / name), *words]


def _process(command: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # our own commands


def _fleet(name: str, count: int) -> Callable[[], None]:
    command = [sys.executable, "-m", "benchmarks.bots.twenty", name]

    def run() -> None:
        bots = [subprocess.Popen([*command, f"{PROCESS_KEY}-{number}"]) for number in range(count)]
        failed = [bot.wait() for bot in bots]
        if any(failed):
            raise RuntimeError("a bot failed")

    return run


async def _concurrently_guarded(count: int) -> None:
    from anymate_guard import anymate_run

    async def work(number: int) -> None:
        async with anymate_run(f"{PROCESS_KEY}-{number}") as run:
            run.add_entries(ENTRIES)

    await asyncio.gather(*map(work, range(count)))


async def _concurrently_by_hand(count: int) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    by_hand = ByHand().login()

    async def work(number: int) -> None:
        run_id = await asyncio.to_thread(by_hand.start, f"{PROCESS_KEY}-{number}")
        await asyncio.to_thread(by_hand.finish, run_id)

    await asyncio.gather(*map(work, range(count)))
    by_hand.close()
