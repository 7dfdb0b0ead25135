"""One use of a guard, from entering to leaving: signals, the current run and the log around what its lives do."""

from __future__ import annotations

import contextlib
import os

from anymate_guard import _log
from anymate_guard._api.client import AnymateClient, check_proxies, masked
from anymate_guard._guard import driver
from anymate_guard._guard.defaults import default_process_key, shared_client
from anymate_guard._guard.failures import message_of
from anymate_guard._guard.threads import in_thread, waiting_for
from anymate_guard._journal import journals
from anymate_guard._lifecycle.calling import Way
from anymate_guard._lifecycle.entering import entering
from anymate_guard._lifecycle.leaving import leaving
from anymate_guard._lifecycle.options import Options
from anymate_guard._lifecycle.sharing import Place, Shared
from anymate_guard._process import signals
from anymate_guard._run.current import Scope
from anymate_guard._run.run import Run, in_use, outcome_of


class Use:
    """One use of a guard, from entering to leaving."""

    def __init__(self, process_key: str | None, client: AnymateClient | None, options: Options) -> None:
        self._client = client or shared_client()
        self._process_key = process_key or default_process_key(client)
        self._options = options
        self._program = driver.program
        self._driver = driver.Driver(self._client)
        self.place = Place()
        self._process = os.getpid()
        self._holds_signals = False
        self._scope: Scope | None = None
        self._hold: memoryview | None = None

    def is_open(self) -> bool:
        """Whether this process is in it, for all that is known."""
        return os.getpid() == self._process and self.place.is_held()

    def enter(self) -> Run:
        """Get into a run."""
        self._hold_signals()
        if self._holds_signals:
            signals.raise_asked()
        shared = self._into_run(self._driver.way())
        if self._holds_signals:
            signals.raise_asked()
        return self._open(shared.run)

    async def aenter(self) -> Run:
        """Get into a run, without holding up the event loop."""
        from concurrent.futures import Future

        # The signals, the current run and the log's context belong to this task, so they are set here, not in a thread.
        self._hold_signals()
        entering: Future[Shared] = Future()
        try:
            in_thread(entering, self._into_run, self._driver.way())
            await waiting_for(entering)
        except BaseException as error:
            # Not waited for, as the task was cancelled or closed: the life ends in its thread, in its place till then.
            self._hold = self.place.hold()
            self._driver.interruption = driver.Stopped(f"{type(error).__name__} while entering")
            entering.add_done_callback(lambda _: self.abandon(began=False))
            raise
        return self._open(entering.result().run)

    def step_back(self, error: BaseException) -> None:
        """Undo what entering has done here; the run was given up by its life, or is by whoever sees that."""
        signals.saw(error)
        self.abandon(began=False)
        self.close()

    def exit(self, error: BaseException | None) -> None:
        """Get out of the run, whatever ended the body."""
        try:
            if isinstance(error, GeneratorExit) and (in_use() or journals.in_use() or self._program.in_use()):
                self.abandon()  # the garbage collector closes a generator in the middle of our own work
                return
            with signals.deferred() if self._holds_signals else contextlib.nullcontext():
                self._leave(error, self._driver.way())
        except BaseException:
            self.abandon()
            raise
        finally:
            self._close_after(error)

    async def aexit(self, error: BaseException | None) -> None:
        """Get out of the run, without holding up the event loop; a cancellation waits for that."""
        import asyncio
        from concurrent.futures import Future

        cancelled = None
        try:
            if isinstance(error, GeneratorExit):  # a coroutine that is being closed can't await
                self.abandon()
                return
            leaving: Future[None] = Future()
            in_thread(leaving, self._leave, error, self._driver.way())
            waiting = waiting_for(leaving)
            while not leaving.done():
                try:
                    await asyncio.shield(waiting)
                except asyncio.CancelledError as again:
                    cancelled = again  # goes on when the finish is complete
            if cancelled is None or error is not None:
                leaving.result()
        except BaseException:
            self.abandon()
            raise
        finally:
            self._close_after(error or cancelled)
        if cancelled is not None and error is None:
            raise cancelled

    def abandon(self, *, began: bool = True) -> None:
        """Let go of the run, if that was not done yet: it is finished by whoever sees it next."""
        if os.getpid() == self._process:
            self._program.abandon(self.place, began=began)

    def close(self) -> None:
        """Put the current run, the log's context and the signals back, if that was not done yet."""
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.leave()
        if self._holds_signals and os.getpid() == self._process:
            self._holds_signals = False
            signals.release()

    def _into_run(self, way: Way) -> Shared:
        if not self._client.settings.disabled:
            check_proxies(self._client)  # now, as an adopter calls when its body is over
        return self._driver.run(entering(self._program, self.place, way, self._process_key, self._options))

    def _open(self, run: Run) -> Run:
        bound = _log.bind(process_key=self._process_key, run_id=run.run_id)
        self._scope = Scope(run, lambda: _log.unbind(bound))
        return run

    def _leave(self, error: BaseException | None, way: Way) -> None:
        if os.getpid() != self._process:  # a forked child leaves it to its parent
            return
        outcome = outcome_of(error)
        failure = None
        if error is not None and self._options.reports(outcome):
            failure = masked(self._client, message_of(error))
        life = leaving(self._program, self.place, way, self._options, outcome=outcome, failure=failure)
        self._driver.run(life)

    def _close_after(self, error: BaseException | None) -> None:
        """Put things back; an exit that a signal asked for, and that the body did not leave with, is raised now."""
        signals.saw(error)
        held = self._holds_signals
        self.close()
        if held and error is None:
            signals.raise_asked()

    def _hold_signals(self) -> None:
        self._holds_signals = self._client.settings.handle_signals and signals.hold()
