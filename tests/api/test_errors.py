"""The errors: one tree, their facts, and the way back from a worker process."""

from __future__ import annotations

import copy
import pickle

import pytest

import anymate_guard
from anymate_guard import (
    AnymateGuardError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    NoCurrentRun,
    NotOkToRun,
    UnreachableError,
)

ERRORS = [
    ConfigurationError(["ANYMATE_PASSWORD: is missing"]),
    ConfigurationError(["one", "two"]),
    NotOkToRun("invoice-intake", gate_open=False, tasks_available=True, not_blocked_date=False),
    NoCurrentRun("outside"),
    UnreachableError("StartRun", "HTTP 503", maybe_sent=True),
    ApiError("FinishRun", 403, "No.", maybe_sent=True, said_no=True, foreign=True),
    AuthenticationError("token", 400, "No."),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_travels(error: AnymateGuardError, travel: object) -> None:
    """Every error comes back from pickling with its type, its text and its facts."""
    assert callable(travel)
    found = travel(error)
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))


def test_one_tree() -> None:
    """Every error that is exported has the one base class; NoCurrentRun is a LookupError, too."""
    names = [name for name in anymate_guard.__all__ if isinstance(getattr(anymate_guard, name), type)]
    errors = [found for name in names if issubclass(found := getattr(anymate_guard, name), BaseException)]
    assert set(errors) == {AnymateGuardError, *map(type, ERRORS)}
    assert all(issubclass(error, AnymateGuardError) for error in errors)
    assert issubclass(NoCurrentRun, LookupError)
    assert issubclass(AuthenticationError, ApiError)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ((False, False, False), "the process is stopped"),
        ((True, False, False), "today is blocked in its calendar"),
        ((True, False, True), "it has no task that is ready"),
    ],
)
def test_not_ok_to_run(facts: tuple[bool, bool, bool], reason: str) -> None:
    """The text says which of Anymate's reasons it was."""
    gate_open, tasks_available, not_blocked_date = facts
    error = NotOkToRun("a", gate_open=gate_open, tasks_available=tasks_available, not_blocked_date=not_blocked_date)
    assert str(error) == f"Anymate says that 'a' is not OK to run: {reason}. No run was started."
