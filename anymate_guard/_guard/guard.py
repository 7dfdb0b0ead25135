"""A run around a block or a function, sync and async."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from anymate_guard import _log
from anymate_guard._guard.defaults import default_process_key, shared_client
from anymate_guard._guard.threads import ended, in_thread, see_to
from anymate_guard._lifecycle.options import Options
from anymate_guard._process import signals
from anymate_guard._process.fork import importing, in_child
from anymate_guard._run import Outcome, Run, Scope
from anymate_guard._settings import check_process_key

if TYPE_CHECKING:
    from anymate_guard._api.client import AnymateClient

F = TypeVar("F", bound=Callable[..., Any])

_lock = threading.Lock()


@overload
def anymate_run(process_key: F, /) -> F: ...


@overload
def anymate_run(
    process_key: str | None = None,
    *,
    client: AnymateClient | None = None,
    run_id: int | None = None,
    check_ok_to_run: bool = False,
    report_failure: bool = False,
    credit_failed_runs: bool = True,
    require_start: bool = False,
    require_finish: bool = False,
) -> Guard: ...


def anymate_run(
    process_key: F | str | None = None,
    *,
    client: AnymateClient | None = None,
    run_id: int | None = None,
    check_ok_to_run: bool = False,
    report_failure: bool = False,
    credit_failed_runs: bool = True,
    require_start: bool = False,
    require_finish: bool = False,
) -> F | Guard:
    """Guard a block or a function: StartRun on entry, and always FinishRun on exit.

    A context manager, an async context manager and a decorator in one:

        with anymate_run("invoice-intake") as run:
            run.add_entries(3)

        @anymate_run("invoice-intake")
        def main() -> int: ...

    What the body did is never changed: its result or its very exception comes out, and a finish that can't be delivered
    is kept in the journal and sent by the next guard. A decorated function may be sync or async, and each call of it is
    a use of its own.

    Args:
        process_key: Which process; None reads `ANYMATE_PROCESS_KEY` at entry. A bare `@anymate_run` does so too.
        client: How to reach Anymate; None uses one shared client, made from the environment at first entry.
        run_id: Adopt a run that is open already (TakeNext started it, say): no StartRun, but FinishRun on exit.
        check_ok_to_run: Ask OkToRun first, and raise `NotOkToRun` if it says no; if it can't be asked, warn and go on.
        report_failure: When the body failed, also call Failure with a short message, after FinishRun.
        credit_failed_runs: False sends 0 for each KPI that a failed or interrupted run did not record, so that a crash
            earns no default credit.
        require_start: No run, no work: raise when Anymate is unreachable at entry, instead of going on without a run.
        require_finish: Raise when the body succeeded but FinishRun could not be delivered.

    Returns:
        A guard; entered, it gives the `Run`.

    Raises:
        ConfigurationError: The process key can't be one, or (at entry) settings are missing or wrong.
        TypeError: For a generator function, whose run would end before its body began, or a class.
        ValueError: For a `run_id` below 1.
        ApiError: At entry, when Anymate refuses StartRun.
        AuthenticationError: At entry, when Anymate refuses the credentials.
        NotOkToRun: At entry, with `check_ok_to_run`.
        UnreachableError: At entry with `require_start`, at exit with `require_finish`.
        RuntimeError: When one guard is entered twice at the same time.
    """
    if callable(process_key):
        return Guard(None, None, Options())(process_key)
    if process_key is not None:
        check_process_key(process_key)
    if client is not None:
        _check_client(client)
    if run_id is not None:
        if type(run_id) is not int:
            raise TypeError(f"run_id must be a whole number, got {run_id!r}")
        if run_id < 1:
            raise ValueError(f"run_id must be 1 or more, got {run_id!r}")
    options = Options(run_id, check_ok_to_run, report_failure, credit_failed_runs, require_start, require_finish)
    return Guard(process_key, client, options)


class Guard:
    """What `anymate_run` returns: enter it with `with` or `async with`, or decorate a function with it."""

    def __init__(self, process_key: str | None, client: AnymateClient | None, options: Options) -> None:
        self._process_key = process_key
        self._client = client
        self._options = options
        self._use: _Use | None = None

    def __repr__(self) -> str:
        return f"<anymate_run({self._process_key!r})>"

    def __call__(self, function: F) -> F:
        """Decorate a function, sync or async; each call of it is a use of its own."""
        if isinstance(function, classmethod | staticmethod):
            return cast(F, type(function)(self(function.__func__)))
        _refuse_what_ends_too_early(function)
        if _is_async(function):

            @functools.wraps(function)
            async def guarded_async(*args: Any, **kwargs: Any) -> Any:
                async with Guard(self._process_key, self._client, self._options):
                    return await function(*args, **kwargs)

            return cast(F, guarded_async)

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            with Guard(self._process_key, self._client, self._options):
                return function(*args, **kwargs)

        return cast(F, guarded)

    def __enter__(self) -> Run:
        use = self._begin()
        try:
            return use.enter()
        except BaseException:
            self._use = None
            use.step_back()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        use, self._use = self._use, None
        if use is None:
            raise self._not_entered()
        try:
            use.exit(error)
        except BaseException:
            use.see_that_it_is_left(error)
            raise

    async def __aenter__(self) -> Run:
        use = self._begin()
        try:
            return await use.aenter()
        except BaseException:
            self._use = None
            use.astep_back()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        use, self._use = self._use, None
        if use is None:
            raise self._not_entered()
        await use.aexit(error)

    def _begin(self) -> _Use:
        use = _Use(self._process_key, self._client, self._options)
        with _lock:
            if self._use is None:
                self._use = use
                return use
        raise RuntimeError(
            f"{self!r} is entered already; take a guard of its own for each use that runs at the same time"
        )

    def _not_entered(self) -> RuntimeError:
        return RuntimeError(f"{self!r} is left, but was not entered")


class _Use:
    """One use of a guard, from entering to leaving."""

    def __init__(self, process_key: str | None, client: AnymateClient | None, options: Options) -> None:
        self._client = client or shared_client()
        self._process_key = process_key or default_process_key(client)
        with importing():
            from anymate_guard._lifecycle.delivery import Stay  # with the client and the journal, 40 ms

        self._stay = Stay(self._client, self._process_key, options)
        self._process = os.getpid()
        self._holds_signals = False
        self._scope: Scope | None = None

    def enter(self) -> Run:
        self._hold_signals()
        return self._open(self._stay.enter())

    def step_back(self) -> None:
        """Undo entering, as far as it got; an exception has ended it."""
        try:
            self._stay.step_back()
        finally:
            self._close()

    def exit(self, error: BaseException | None) -> None:
        try:
            with signals.deferred() if self._holds_signals else contextlib.nullcontext():
                self._leave(error)
        finally:
            self._close()

    def see_that_it_is_left(self, error: BaseException | None) -> None:
        """Leave if that was not done yet, as an exception out of a signal handler may have come before it."""
        try:
            self._leave(error)
        finally:
            self._close()

    async def aenter(self) -> Run:
        # The signals, the current run and the log's context belong to this task, so they are set here, not in a thread.
        self._hold_signals()
        entering = in_thread(self._stay.enter)
        await ended(entering)
        return self._open(entering.result())

    def astep_back(self) -> None:
        """Undo entering, which may be under way still; nothing here waits, as the task was cancelled or closed."""
        self._stay.give_up()
        see_to(self._stay.step_back)
        self._close()

    async def aexit(self, error: BaseException | None) -> None:
        import asyncio

        try:
            if isinstance(error, GeneratorExit):  # a coroutine that is being closed can't await
                see_to(self._leave, error)
                return
            leaving = in_thread(self._leave, error)
            cancelled = None
            while not leaving.done():
                try:
                    await ended(leaving)
                except asyncio.CancelledError as again:
                    cancelled = again  # goes on when the finish is complete
            if cancelled is not None and error is None:
                raise cancelled
            leaving.result()
            if self._holds_signals:
                signals.raise_pending()
        finally:
            self._close()

    def _open(self, run: Run) -> Run:
        bound = _log.bind(process_key=self._process_key, run_id=run.run_id)
        self._scope = Scope(run, lambda: _log.unbind(bound))
        return run

    def _outcome(self, error: BaseException | None) -> Outcome:
        if error is None:
            return "succeeded"
        if signals.raised(error) or isinstance(error, (KeyboardInterrupt, GeneratorExit, *_cancellations())):
            return "interrupted"
        if isinstance(error, SystemExit) and (error.code is None or error.code == 0):
            return "succeeded"
        return "failed"

    def _leave(self, error: BaseException | None) -> None:
        if os.getpid() == self._process:  # a forked child leaves it to its parent
            self._stay.leave(self._outcome(error), _message(error))

    def _close(self) -> None:
        if self._scope is not None:
            self._scope.leave()
        self._release_signals()

    def _hold_signals(self) -> None:
        self._holds_signals = self._client.settings.handle_signals and signals.hold()

    def _release_signals(self) -> None:
        if self._holds_signals and os.getpid() == self._process:
            self._holds_signals = False
            signals.release()


def _message(error: BaseException | None) -> str:
    """What to report of a failure; the exception's own text may fail, too."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001  # whatever the program's __str__ raises
        return name


def _cancellations() -> tuple[type[BaseException], ...]:
    """What a cancelled task raises; importing asyncio takes longer than a guarded run, so only if the program did."""
    cancelled = getattr(sys.modules.get("asyncio"), "CancelledError", None)  # another thread may be importing it
    return () if cancelled is None else (cancelled,)


def _check_client(client: object) -> None:
    from anymate_guard._api.client import AnymateClient

    if not isinstance(client, AnymateClient):
        raise TypeError(f"client must be an AnymateClient, got {client!r}")


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _refuse_what_ends_too_early(function: Callable[..., Any]) -> None:
    if inspect.isclass(function):
        raise TypeError(f"{function!r} is a class: decorate the method that does the work, or use `with` inside it")
    for candidate in (function, type(function).__call__):
        if inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise TypeError(
                f"{function!r} is a generator function: its run would end before its body began; "
                "use `with anymate_run(...)` inside it"
            )


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


in_child(_after_fork)
