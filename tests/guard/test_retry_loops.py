"""Guards with the retry and restart loops that users have."""

from __future__ import annotations

import asyncio

import pytest
import stamina
import tenacity

from anymate_guard import anymate_run, current_run
from anymate_guard.sandbox import Sandbox


class Flaky:
    """Work that fails twice, then succeeds; each try counts one entry."""

    def __init__(self) -> None:
        self.tries = 0

    def __call__(self) -> str:
        """Try once more."""
        current_run().add_entries(1)
        self.tries += 1
        if self.tries < 3:
            raise OSError("flaky")
        return "done"


@pytest.fixture(autouse=True)
def _no_waits() -> object:
    with stamina.set_testing(True, attempts=5):
        yield


def credited(sandbox: Sandbox) -> list[int | None]:
    """The entries of each run, all of which are finished."""
    assert all(run["finished"] for run in sandbox.runs())
    return [run["overwriteEntries"] for run in sandbox.runs()]


def test_guard_outside_stamina(sandbox: Sandbox) -> None:
    """A guard outside a stamina loop is one run; with attempt() a retried try is not counted twice."""
    flaky = Flaky()
    with anymate_run("invoice-intake") as run:
        for attempt in stamina.retry_context(on=OSError):
            with attempt, run.attempt():
                flaky()
    assert (credited(sandbox), flaky.tries) == ([1], 3)


def test_stamina_outside_guard(sandbox: Sandbox) -> None:
    """A stamina loop outside the guard is one run a try, each finished; the guard swallows nothing the loop needs."""
    flaky = Flaky()
    assert stamina.retry(on=OSError)(anymate_run("invoice-intake")(flaky.__call__))() == "done"
    assert credited(sandbox) == [1, 1, 1]


def test_guard_outside_tenacity(sandbox: Sandbox) -> None:
    """A guard outside a tenacity loop is one run, although tenacity's attempt swallows the exception in its block."""
    flaky = Flaky()
    with anymate_run("invoice-intake") as run:
        for attempt in tenacity.Retrying(stop=tenacity.stop_after_attempt(5)):
            with attempt, run.attempt():
                flaky()
    assert (credited(sandbox), run.outcome) == ([1], "succeeded")


def test_tenacity_outside_guard(sandbox: Sandbox) -> None:
    """A tenacity loop outside the guard is one run a try."""
    flaky = Flaky()
    for attempt in tenacity.Retrying(stop=tenacity.stop_after_attempt(5)):
        with attempt, anymate_run("invoice-intake"):
            flaky()
    assert credited(sandbox) == [1, 1, 1]


def test_async_stamina(sandbox: Sandbox) -> None:
    """A decorated coroutine function inside a stamina loop is one run a try."""
    flaky = Flaky()

    @stamina.retry(on=OSError)
    @anymate_run("invoice-intake")
    async def work() -> str:
        return flaky()

    assert asyncio.run(work()) == "done"
    assert credited(sandbox) == [1, 1, 1]


def test_restart_loop(sandbox: Sandbox) -> None:
    """A plain restart loop around the guard sees every exception and goes on."""
    flaky = Flaky()
    while True:
        try:
            with anymate_run("invoice-intake"):
                flaky()
        except OSError:
            continue
        break
    assert credited(sandbox) == [1, 1, 1]


def test_stamina_does_not_retry_an_interrupt(sandbox: Sandbox) -> None:
    """KeyboardInterrupt goes through the guard and the loop outside it."""
    tries = []

    @stamina.retry(on=Exception)
    @anymate_run("invoice-intake")
    def work() -> None:
        tries.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert (len(tries), credited(sandbox)) == (1, [None])


def test_loop_that_gives_up(sandbox: Sandbox) -> None:
    """What people are told of a loop that gave up names what went wrong, and not only the loop."""
    with (
        pytest.raises(tenacity.RetryError),
        anymate_run("invoice-intake", report_failure=True),
    ):
        tenacity.retry(stop=tenacity.stop_after_attempt(2))(Flaky())()
    (failure,) = sandbox.failures()
    assert failure["message"].startswith("RetryError: ")
    assert failure["message"].endswith("(caused by OSError: flaky)")
