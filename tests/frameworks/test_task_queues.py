"""Task queues: a run for each task, in the worker that takes it."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox

from .conftest import Page
from .support import GO_ON, INSIDE, WAIT, command, done, finished, kill_inside, python, runs, started, until

PAGE = "task-queues.md"
SEND = {
    "celery": "from celery_bot import book; book.delay(['1', '2'])",
    "rq": (
        "import os, redis, rq, rq_bot; "
        "rq.Queue(connection=redis.Redis.from_url(os.environ['BROKER'])).enqueue(rq_bot.book, ['1', '2'])"
    ),
    "dramatiq": "from dramatiq_bot import book; book.send(['1', '2'])",
}


@pytest.mark.parametrize("queue", SEND)
def test_a_task(sandbox: Sandbox, page: Page, broker: str, queue: str) -> None:
    """A task that is sent is a run of its own, with what it recorded; and a worker is stopped by SIGTERM."""
    page(PAGE)
    done(sys.executable, "-c", SEND[queue])
    assert sandbox.runs() == []
    with started(shell=command(PAGE, queue)) as worker:
        until(lambda: finished(sandbox))
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=60)
    assert runs(sandbox) == [("invoice-intake", 2, None)]


def _waits(program: str) -> None:
    """Let a task of the page wait in its guard when it has recorded, and record once more."""
    text = Path(program).read_text(encoding="utf-8")
    more = textwrap.indent(f"{WAIT}current_run().add_entries()\n", "    ")
    Path(program).write_text(text + more, encoding="utf-8")


@pytest.mark.parametrize("queue", SEND)
def test_a_worker_is_killed(sandbox: Sandbox, page: Page, broker: str, queue: str) -> None:
    """What a task had recorded when its worker was killed is credited, once, by the next one that comes."""
    page(PAGE)
    _waits(f"{queue}_bot.py")
    done(sys.executable, "-c", SEND[queue])
    with started(shell=command(PAGE, queue)) as worker:
        kill_inside()
        os.killpg(worker.pid, signal.SIGKILL)
    assert [run["finished"] for run in sandbox.runs()] == [False]
    python("from anymate_guard import anymate_run\nwith anymate_run('invoice-intake') as run: run.add_entries(1)")
    assert runs(sandbox) == [("invoice-intake", 3, None)]


@pytest.mark.parametrize("queue", SEND)
def test_a_worker_is_stopped(sandbox: Sandbox, page: Page, broker: str, queue: str) -> None:
    """SIGTERM to a worker lets its task end, and its run is finished with all that it recorded."""
    page(PAGE)
    _waits(f"{queue}_bot.py")
    done(sys.executable, "-c", SEND[queue])
    with started(shell=command(PAGE, queue)) as worker:
        until(INSIDE.exists)
        worker.send_signal(signal.SIGTERM)
        assert worker.stdout is not None
        while "shut" not in (line := worker.stdout.readline()).lower():
            assert line, "the worker never said that it stops"
        GO_ON.touch()
        worker.communicate(timeout=60)
    assert runs(sandbox) == [("invoice-intake", 3, None)]


SEND_WITH_A_LIMIT = {
    "celery": SEND["celery"].replace("delay(['1', '2'])", "apply_async([['1', '2']], soft_time_limit=2)"),
    "rq": SEND["rq"].replace("['1', '2']", "['1', '2'], job_timeout=2"),
    "dramatiq": SEND["dramatiq"].replace("send(['1', '2'])", "send_with_options(args=(['1', '2'],), time_limit=2000)"),
}


@pytest.mark.parametrize("queue", SEND)
def test_a_task_takes_too_long(sandbox: Sandbox, page: Page, broker: str, queue: str) -> None:
    """A task whose time is over leaves its guard, and its run is finished with what it had recorded."""
    page(PAGE)
    _waits(f"{queue}_bot.py")
    done(sys.executable, "-c", SEND_WITH_A_LIMIT[queue])
    with started(shell=command(PAGE, queue)):
        until(lambda: finished(sandbox))
    assert runs(sandbox) == [("invoice-intake", 2, None)]


TASK_OBJECTS = {
    "celery": "import celery\napp = celery.Celery('bots')\nmade = app.task",
    "dramatiq": (
        "import dramatiq\nfrom dramatiq.brokers.stub import StubBroker\n"
        "dramatiq.set_broker(StubBroker())\nmade = dramatiq.actor"
    ),
    "prefect": "from prefect import flow as made",
    "robocorp": "from robocorp.tasks import task as made",
}


@pytest.mark.parametrize("framework", TASK_OBJECTS)
def test_a_task_object(sandbox: Sandbox, framework: str) -> None:
    """`@anymate_run` above the decorator that makes tasks is refused, and the message says where it stands."""
    output = python(
        f"{TASK_OBJECTS[framework]}\n"
        "from anymate_guard import anymate_run\n"
        "\n"
        "@anymate_run('invoice-intake')\n"
        "@made\n"
        "def book():\n"
        "    pass\n",
        status=1,
    )
    assert "TypeError: " in output
    assert "nearest the function" in output
    assert sandbox.requests() == []
