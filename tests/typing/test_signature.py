"""What editors and the interpreter see of a decorated function, and of the options."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

from anymate_guard import AnymateClient, Kpis, Run, Settings, anymate_run

KEY = "invoice-intake"


def function(path: str, /, *files: str, limit: int = 3, **options: bool) -> list[str]:
    """Say what it does."""
    return [path, *files, str(limit), *options]


async def coroutine(number: int, *, name: str = "") -> float:
    """Say what it does."""
    return number + len(name)


class Plain:
    """Methods as they are written."""

    def method(self, number: int, name: str = "a") -> str:
        """Say what it does."""
        return name * number

    async def coroutine(self, number: int) -> str:
        """Say what it does."""
        return str(number)

    @classmethod
    def class_method(cls, number: int) -> str:
        """Say what it does."""
        return str(number)

    @staticmethod
    def static_method(number: int) -> str:
        """Say what it does."""
        return str(number)


class Guarded(Plain):
    """The same methods, decorated; class and static methods on either side of the other decorator."""

    method = anymate_run(KEY)(Plain.method)
    coroutine = anymate_run(KEY)(Plain.coroutine)
    class_method = anymate_run(KEY)(Plain.__dict__["class_method"])
    static_method = anymate_run(KEY)(Plain.__dict__["static_method"])


decorators = pytest.mark.parametrize(
    "decorate", [anymate_run(KEY), anymate_run(), anymate_run], ids=["key", "()", "bare"]
)


@decorators
@pytest.mark.parametrize("plain", [function, coroutine], ids=["sync", "async"])
def test_function(decorate: Callable[[Any], Any], plain: Callable[..., Any]) -> None:
    """A decorated function has the signature, types, name, place and docstring of the plain one, and is as async."""
    guarded = decorate(plain)
    assert inspect.signature(guarded) == inspect.signature(plain)
    assert get_type_hints(guarded) == get_type_hints(plain)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(guarded, name) == getattr(plain, name)
    assert inspect.iscoroutinefunction(guarded) == inspect.iscoroutinefunction(plain)
    assert inspect.unwrap(guarded) is plain
    assert inspect.getsource(guarded) == inspect.getsource(plain)


@pytest.mark.parametrize("name", ["method", "coroutine", "class_method", "static_method"])
def test_method(name: str) -> None:
    """A decorated method is bound as the plain one is, on the class and on an object, and looks the same there."""
    for plain, guarded in ((Plain, Guarded), (Plain(), Guarded())):
        one, other = getattr(plain, name), getattr(guarded, name)
        assert inspect.signature(one) == inspect.signature(other)
        assert inspect.ismethod(one) == inspect.ismethod(other)
        assert inspect.iscoroutinefunction(one) == inspect.iscoroutinefunction(other)
        assert other.__doc__ == "Say what it does."


def test_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decorated functions and methods take their arguments and give their results as before."""
    monkeypatch.setenv("ANYMATE_DISABLED", "1")
    client = AnymateClient(Settings.from_env())
    guard = anymate_run(KEY, client=client)
    assert guard(function)("a", "b", limit=1, fast=True) == ["a", "b", "1", "fast"]
    assert asyncio.run(guard(coroutine)(1, name="ab")) == 3
    assert Guarded().method(2) == "aa"
    assert asyncio.run(Guarded().coroutine(2)) == "2"
    assert (Guarded.class_method(2), Guarded().class_method(2)) == ("2", "2")
    assert (Guarded.static_method(2), Guarded().static_method(2)) == ("2", "2")


@anymate_run(KEY)
def decorated_in_its_module() -> None:
    """Be found by its name."""


def test_pickle() -> None:
    """A decorated function of a module can be sent to a worker by its name."""
    assert pickle.loads(pickle.dumps(decorated_in_its_module)) is decorated_in_its_module


def documented(doc: str, section: str) -> dict[str, str]:
    """Return the entries of a section of a docstring."""
    text = inspect.cleandoc(doc).split(f"\n{section}:\n")[1].split("\n\n")[0]
    return dict(re.findall(r"^    (\w+): (\S.*(?:\n        .*)*)", text, re.MULTILINE))


@pytest.mark.parametrize(
    "public",
    [
        anymate_run,
        Settings,
        Kpis,
        AnymateClient.start_run,
        AnymateClient.finish_run,
        AnymateClient.failure,
        AnymateClient.ok_to_run,
        Run.add_entries,
        Run.add_seconds_saved,
        Run.set_kpis,
        Run.merge,
    ],
)
def test_hover_text(public: Callable[..., object]) -> None:
    """The text an editor shows explains every option, in the order of the signature, and nothing that is not there."""
    wanted = [name for name in inspect.signature(public).parameters if name != "self"]
    assert list(documented(str(public.__doc__), "Args")) == wanted


def test_options_of_the_guard() -> None:
    """The guard has exactly the options it is documented with, all but the key by name only."""
    parameters = inspect.signature(anymate_run).parameters.values()
    assert {each.name: each.default for each in parameters} == {
        "process_key": None,
        "client": None,
        "run_id": None,
        "check_ok_to_run": False,
        "report_failure": False,
        "default_credit": "always",
        "require_start": False,
        "require_finish": False,
    }
    assert {each.kind for each in parameters if each.name != "process_key"} == {inspect.Parameter.KEYWORD_ONLY}
