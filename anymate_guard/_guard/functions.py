"""Decorates functions: which can be, and what a decorated one looks like to frameworks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from anymate_guard._guard.guard import Guard

F = TypeVar("F", bound=Callable[..., Any])

_MAKERS_OF_TASKS = frozenset({"robocorp.tasks"})  # whose decorator gives a function that its runner never calls


def decorated(function: F, guard: Callable[[], Guard]) -> F:
    """The function within a guard of its own for each call.

    Raises:
        TypeError: Its run would end before its body, or it is no function.
    """
    if isinstance(function, classmethod | staticmethod):
        return cast(F, type(function)(decorated(function.__func__, guard)))
    _check(function)
    if inspect.iscoroutinefunction(function):
        # fmt: off
        async def guarded(*args: Any, **kwargs: Any) -> Any: return await _run_async(guard, function, args, kwargs)
        # fmt: on
        return _like(function, guarded)
    return _like(function, lambda *args, **kwargs: _run(guard, function, args, kwargs))


async def _run_async(guard: Callable[[], Guard], function: Any, args: Any, kwargs: Any) -> Any:
    async with guard():
        return await function(*args, **kwargs)


def _run(guard: Callable[[], Guard], function: Any, args: Any, kwargs: Any) -> Any:
    with guard():
        result = function(*args, **kwargs)
        if inspect.isawaitable(result):
            raise _ended_too_early(function, result)
        return result


def _like(function: F, guarded: Any) -> F:
    """Make a function of one line look like another: task runners go by the name and the place of its code.

    Debuggers and tools that measure coverage go by its lines, and take more than one for those of the other function.
    """
    functools.update_wrapper(guarded, function)
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is not None:
        guarded.__code__ = guarded.__code__.replace(
            co_name=code.co_name, co_filename=code.co_filename, co_firstlineno=code.co_firstlineno
        )
    return cast(F, guarded)


def _check(function: Callable[..., Any]) -> None:
    if inspect.isclass(function):
        raise TypeError(f"{function!r} is a class: decorate the method that does the work, or use `with` inside it")
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    maker = getattr(inner, "__globals__", {}).get("__name__")
    if not _is_function(inner) or maker in _MAKERS_OF_TASKS:
        raise TypeError(
            f"{function!r} is not the function itself: put @anymate_run nearest the function, below the decorator that "
            f"made this {type(inner).__name__} of it"
        )
    if maker == "contextlib" or inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        kind = "makes a context manager" if maker == "contextlib" else "is a generator function"
        raise TypeError(
            f"{function!r} {kind}: its run would end before its body began; use `with anymate_run(...)` inside it"
        )


def _is_function(inner: Any) -> bool:
    """Whether it is a function, of Python or C, and no object of a class that somebody wrote for tasks or flows."""
    return hasattr(inner, "__code__") or (inspect.isroutine(inner) and not inspect.isfunction(type(inner).__call__))


def _ended_too_early(function: Callable[..., Any], result: Any) -> TypeError:
    if inspect.iscoroutine(result):
        result.close()
    return TypeError(
        f"{function!r} is no `async def`, but returned {type(result).__name__}, whose work would be done after its "
        "run: make it an `async def`, or use `async with anymate_run(...)` around the await"
    )
