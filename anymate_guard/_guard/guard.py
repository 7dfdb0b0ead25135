"""A run around a block or a function, sync and async."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from anymate_guard._guard.block import Held, Leaving
from anymate_guard._guard.functions import decorated
from anymate_guard._lifecycle.options import CREDITS, Credit, Options
from anymate_guard._process.fork import importing, in_child
from anymate_guard._process.interpreters import check_interpreter
from anymate_guard._process.locks import Lock
from anymate_guard._process_key import check_process_key
from anymate_guard._run.amounts import LARGEST_ID
from anymate_guard._run.run import Run

if TYPE_CHECKING:
    from anymate_guard._api.client import AnymateClient
    from anymate_guard._guard.use import Use

F = TypeVar("F", bound=Callable[..., Any])

_lock = Lock()


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
    default_credit: Credit = "always",
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
    default_credit: Credit = "always",
    require_start: bool = False,
    require_finish: bool = False,
) -> F | Guard:
    """Guard a block or a function: StartRun on entry, and always FinishRun on exit.

    A context manager, an async context manager and a decorator in one::

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
        check_ok_to_run: Ask OkToRun first, and raise `NotOkToRun` if it says no; if it can't be asked, warn and go on,
            unless `require_start`. Who joins a run of this program does not ask.
        report_failure: When the body failed, also call Failure with a short message, after FinishRun.
        default_credit: When Anymate's default credit may stand for a KPI that was not recorded: "always"; "succeeded",
            which sends 0 for it when the body failed or was interrupted; or "never", which sends 0 also when it
            succeeded, for a bot that counts both, on a day without work. With entries alone, that 0 is for their time.
        require_start: No run, no work: raise when Anymate is unreachable at entry, instead of going on without a run.
        require_finish: Raise when the body succeeded but FinishRun could not be delivered.

    Returns:
        A guard; entered, it gives the `Run`.

    Raises:
        ConfigurationError: The process key can't be one, or (at entry) settings are missing or wrong.
        TypeError: For what can't be decorated: a generator function, whose run would end before its body began, a
            class, or an object that is no function, such as a task of Celery; for a `run_id` or `client` of another
            type; and at a call, when what is no `async def` returns an awaitable.
        ValueError: For a `run_id` that is not from 1 to 2**63 - 1, or another `default_credit`.
        ApiError: At entry, when Anymate refuses StartRun, or with `require_start` OkToRun; at exit with
            `require_finish`, when it refuses FinishRun.
        AuthenticationError: The same, when Anymate refuses the credentials.
        NotOkToRun: At entry, with `check_ok_to_run`.
        UnreachableError: At entry with `require_start`, at exit with `require_finish`.
        RuntimeError: When one guard is entered twice at the same time, under another event loop than asyncio's, or in a
            sub-interpreter.
    """
    if callable(process_key) or isinstance(process_key, classmethod):
        bare: Any = process_key
        guarded: F = Guard(None, None, Options())(bare)
        return guarded
    if process_key is not None:
        check_process_key(process_key)
    if client is not None:
        _check_client(client)
    if run_id is not None and type(run_id) is not int:
        raise TypeError(f"run_id must be a whole number, got {run_id!r}")
    if run_id is not None and not 1 <= run_id <= LARGEST_ID:
        raise ValueError(f"run_id must be from 1 to {LARGEST_ID}, got {run_id!r}")
    if default_credit not in CREDITS:
        raise ValueError(f"default_credit must be one of {', '.join(map(repr, CREDITS))}, got {default_credit!r}")
    options = Options(run_id, check_ok_to_run, report_failure, default_credit, require_start, require_finish)
    return Guard(process_key, client, options)


class Guard:
    """What `anymate_run` returns: enter it with `with` or `async with`, or decorate a function with it."""

    def __init__(self, process_key: str | None, client: AnymateClient | None, options: Options) -> None:
        self._process_key = process_key
        self._client = client
        self._options = options
        self._use: Use | None = None

    def __repr__(self) -> str:
        return f"<anymate_run({self._process_key!r})>"

    def __call__(self, function: F) -> F:
        """Decorate a function, sync or async; each call of it is a use of its own."""
        return decorated(function, lambda: Guard(self._process_key, self._client, self._options))

    def __enter__(self) -> Run:
        use = self._begin()
        try:
            return use.enter()
        except BaseException as error:
            self._use = None
            use.step_back(error)
            raise

    async def __aenter__(self) -> Run:
        _check_loop()
        use = self._begin()
        try:
            return await use.aenter()
        except BaseException as error:
            self._use = None
            use.step_back(error)
            raise

    def _exit(self, held: Held | None, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._end(held).exit(error)

    async def _aexit(self, held: Held | None, _kind: object, error: BaseException | None, _trace: object) -> None:
        await self._end(held).aexit(error)

    if TYPE_CHECKING:

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None: ...

        async def __aexit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None: ...

    else:
        __exit__ = Leaving(_exit)
        __aexit__ = Leaving(_aexit)

    def _begin(self) -> Use:
        check_interpreter()
        with importing():
            from anymate_guard._guard.use import Use  # with the client and the journal, 40 ms

        use = Use(self._process_key, self._client, self._options)
        with _lock:
            if self._use is None or not self._use.is_open():
                Leaving.expect(self, use)  # first, as an interruption may come at once
                self._use = use
                return use
        raise RuntimeError(
            f"{self!r} is entered already; take a guard of its own for each use that runs at the same time"
        )

    def _end(self, held: Held | None) -> Use:
        """The use that a block was, also if another has begun: of a cycle of garbage, any part may end first."""
        use = (held and held.use) or self._use
        if use is None:
            raise RuntimeError(f"{self!r} is left, but was not entered")
        if self._use is use:
            self._use = None  # it can be entered again
        return use


def _check_client(client: object) -> None:
    from anymate_guard._api.client import AnymateClient

    if not isinstance(client, AnymateClient):
        raise TypeError(f"client must be an AnymateClient, got {client!r}")


def _check_loop() -> None:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "`async with anymate_run(...)` needs asyncio, and another loop is running (trio, say): use `with` there"
        ) from None


def _after_fork() -> None:
    global _lock
    _lock = Lock()


in_child(_after_fork)
