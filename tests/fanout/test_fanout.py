"""One run for a batch, whatever engine its tasks run on, and every task counted once."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from distributed import Client, LocalCluster

from tests.support.waiting import LONGEST, until

from .conftest import EXAMPLES, Example, done, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anymate_guard.sandbox import Sandbox


@pytest.fixture(name="cluster")
def _cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster


@pytest.fixture(name="celery_folder")
def _celery_folder(tmp_path: Path) -> Iterator[str]:
    """Start a worker, as the example says, with a folder as its broker."""
    folder = str(tmp_path / "celery")
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "--app", "celery_fanout", "worker", "--concurrency", "2"],
        cwd=EXAMPLES,
        env={**os.environ, "CELERY_FANOUT_FOLDER": folder},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield folder
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(LONGEST)


def busy(client: Client) -> list[str]:
    """Return the workers that have something to do."""
    return [worker for worker, tasks in client.processing().items() if tasks]


class Pipe:
    """A file whose reader waits for what the test writes, so that its task is at work as long as the test wants."""

    def __init__(self, path: Path) -> None:
        """Make it."""
        os.mkfifo(path)
        self.path = path
        self.end = -1

    def meet_reader(self) -> None:
        """Wait until somebody reads it."""
        until(self._opened)

    def _opened(self) -> bool:
        with suppress(OSError):  # nobody reads it yet
            self.end = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        return self.end >= 0

    def lose_reader(self) -> None:
        """Wait until nobody reads it any more."""
        poll = select.poll()
        poll.register(self.end, 0)
        assert poll.poll(LONGEST * 1000)
        self.close()

    def write(self, text: str) -> None:
        """Give the reader something."""
        os.write(self.end, text.encode())

    def close(self) -> None:
        """Let the reader come to the end."""
        os.close(self.end)
        self.end = -1


def test_multiprocessing(sandbox: Sandbox, example: Example, files: list[Path]) -> None:
    """What the workers of a pool return is one run's."""
    assert done(example("multiprocessing_pool.py", *files)).endswith("6 invoices booked so far\n")
    assert recorded(sandbox) == (6, 540)


def test_multiprocessing_with_a_task_that_fails(sandbox: Sandbox, example: Example, files: list[Path]) -> None:
    """A task that fails ends the batch with its error; the run is finished all the same."""
    process = example("multiprocessing_pool.py", files[0].with_name("missing.csv"))
    _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 1
    assert "FileNotFoundError" in errors
    assert recorded(sandbox) == (None, None)


def test_dask(sandbox: Sandbox, example: Example, files: list[Path]) -> None:
    """What the tasks on a Dask cluster of processes return is one run's."""
    assert done(example("dask_fanout.py", *files)).endswith("6 invoices booked so far\n")
    assert recorded(sandbox) == (6, 540)


def test_dask_worker_killed(
    sandbox: Sandbox, example: Example, files: list[Path], cluster: LocalCluster, tmp_path: Path
) -> None:
    """A worker that is killed amid a task is no loss: Dask gives it to another one, and it is counted once."""
    pipe = Pipe(tmp_path / "pipe.csv")
    process = example("dask_fanout.py", "--scheduler", cluster.scheduler_address, pipe.path, *files)
    pipe.meet_reader()
    pipe.write("number,minutes\n7,1\n8,1\n")
    with Client(cluster) as client:
        until(lambda: len(busy(client)) == 1)
        (worker,) = busy(client)
        (pid,) = client.run(os.getpid, workers=[worker]).values()
        os.kill(pid, signal.SIGKILL)
        pipe.lose_reader()
        pipe.meet_reader()
        pipe.write("number,minutes\n7,1\n8,1\n9,1\n")
        pipe.close()
        assert done(process).count("booked so far") == len(files) + 1
    assert recorded(sandbox) == (6 + 3, 540 + 180)


def test_celery(sandbox: Sandbox, example: Example, files: list[Path], celery_folder: str) -> None:
    """What a chord of Celery tasks comes to is one run's."""
    process = example("celery_fanout.py", *files, CELERY_FANOUT_FOLDER=celery_folder)
    assert done(process) == "6 invoices booked\n"
    assert recorded(sandbox) == (6, 540)
