"""What a run records, and what it refuses."""

from __future__ import annotations

import copy
import itertools
import pickle
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymate_guard import Kpis, NoCurrentRun, Run, anymate_run, current_run
from anymate_guard._run.run import close
from anymate_guard.sandbox import Sandbox

MOST = 2_147_483_647

REFUSED_ENTRIES = [
    (True, "True"),
    (-1, "-1"),
    (1.5, "1.5"),
    (1.0, "1.0"),
    ("3", "'3'"),
    (MOST + 1, "2147483648"),
]
REFUSED_SECONDS = [
    (True, "True"),
    (float("nan"), "nan"),
    (float("inf"), "inf"),
    (-0.5, "-0.5"),
    (-1e-12, "-1e-12"),
    (timedelta(seconds=-1), "timedelta"),
    ("3", "'3'"),
    (Decimal(3), r"Decimal\('3'\)"),
    (MOST + 1, "2147483648"),
    (10**400, "1000"),
]


@pytest.fixture(name="run")
def _run() -> Run:
    return Run("invoice-intake")


def test_nothing_recorded_is_none(run: Run) -> None:
    """What was never recorded reads as None, not as 0."""
    assert (run.entries, run.seconds_saved, run.kpis, run.outcome) == (None, None, Kpis(), None)


def test_recorded_zero_is_zero(run: Run) -> None:
    """A recorded 0 reads as 0."""
    run.add_entries(0)
    run.add_seconds_saved(0)
    assert run.kpis == Kpis(0, 0)


def test_entries_add_up(run: Run) -> None:
    """Entries add up, one at a time by default."""
    run.add_entries()
    run.add_entries(2)
    assert run.entries == 3


def test_time_spans_of_numpy() -> None:
    """Numpy's timedelta64 counts as a whole number, of nanoseconds or days: what it means is asked for."""
    timedelta64 = type("timedelta64", (int,), {})  # it is registered as a whole number, too
    with pytest.raises(TypeError, match="must be a number or a timedelta, got 2000000000"):
        Run("invoice-intake").add_seconds_saved(timedelta64(2_000_000_000))


@pytest.mark.parametrize("seconds", [42, 42.0, timedelta(seconds=42), Fraction(42)])
def test_seconds_are_read_back_as_float(run: Run, seconds: Any) -> None:
    """Seconds come as int, float, timedelta or another real number, and are read back as float."""
    run.add_seconds_saved(seconds)
    assert run.seconds_saved == 42.0
    assert type(run.seconds_saved) is float


@pytest.mark.parametrize(
    ("times", "seconds", "total"),
    [(10, 0.4, 4), (25, 0.3, 7.5), (10, 0.15, 1.5), (1000, 0.001, 1), (3, 1 / 3, 1)],
)
def test_fractions_add_up(run: Run, times: int, seconds: float, total: float) -> None:
    """Fractions of seconds add up without the error of floats."""
    for _ in range(times):
        run.add_seconds_saved(seconds)
    assert run.seconds_saved == pytest.approx(total, abs=1e-8)
    assert run.kpis.whole_seconds == int(total + 0.5)


@given(st.lists(st.integers(0, 10_000_000), min_size=1))
def test_milliseconds_round_half_up_once(milliseconds: list[int]) -> None:
    """The total is rounded half up once, at the end, whatever it is made of."""
    run = Run("invoice-intake")
    for value in milliseconds:
        run.add_seconds_saved(value / 1000)
    assert run.kpis.whole_seconds == (sum(milliseconds) + 500) // 1000


def test_set_kpis_replaces_what_is_given(run: Run) -> None:
    """A total given to set_kpis is replaced, and the other left alone."""
    run.add_entries(3)
    run.add_seconds_saved(5)
    run.set_kpis(entries=7)
    assert run.kpis == Kpis(7, 5)
    run.set_kpis(seconds_saved=0)
    assert run.kpis == Kpis(7, 0)


def test_merge_adds_both(run: Run) -> None:
    """What a worker returned is added by merge."""
    run.merge(Kpis(2))
    run.merge(Kpis(3, 1.5))
    run.merge(Kpis())
    assert run.kpis == Kpis(5, 1.5)


def test_merge_takes_kpis_only(run: Run) -> None:
    """Anything but a Kpis is refused by merge, by name."""
    with pytest.raises(TypeError, match=r"merge takes a Kpis, got \{'entries': 3\}"):
        run.merge({"entries": 3})  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "shown"), REFUSED_ENTRIES)
def test_entries_that_are_refused(run: Run, value: Any, shown: str) -> None:
    """A count that is no whole number from 0 to 2 147 483 647 is refused by name, and nothing is recorded."""
    for record in (run.add_entries, lambda entries: run.set_kpis(entries=entries), Kpis):
        with pytest.raises((TypeError, ValueError), match=f"entries.*{shown}"):
            record(value)
    assert run.kpis == Kpis()


@pytest.mark.parametrize(("value", "shown"), REFUSED_SECONDS)
def test_seconds_that_are_refused(run: Run, value: Any, shown: str) -> None:
    """Seconds that are no finite number from 0 to 2 147 483 647 are refused by name, and nothing is recorded."""
    for record in (
        run.add_seconds_saved,
        lambda seconds: run.set_kpis(seconds_saved=seconds),
        lambda seconds: Kpis(seconds_saved=seconds),
    ):
        with pytest.raises((TypeError, ValueError), match=f"seconds saved.*{shown}"):
            record(value)
    assert run.kpis == Kpis()


@pytest.mark.parametrize(
    ("fill", "more"),
    [
        (lambda run: run.set_kpis(entries=MOST - 5), lambda run: run.add_entries(6)),
        (lambda run: run.set_kpis(seconds_saved=MOST - 5), lambda run: run.add_seconds_saved(5.5)),
        (lambda run: run.set_kpis(entries=1, seconds_saved=MOST), lambda run: run.merge(Kpis(1, 1))),
    ],
)
def test_total_that_would_be_too_large(run: Run, fill: Callable[[Run], None], more: Callable[[Run], None]) -> None:
    """A recording that would take a total over 2 147 483 647 is refused, and neither total changes."""
    fill(run)
    before = run.kpis
    with pytest.raises(ValueError, match="can't pass 2147483647 in all"):
        more(run)
    assert run.kpis == before


def test_largest_totals_fit(run: Run) -> None:
    """The largest values that Anymate takes can be recorded."""
    run.add_entries(MOST)
    run.add_seconds_saved(MOST)
    assert run.kpis == Kpis(MOST, MOST)


def test_counts_of_other_integer_types(run: Run) -> None:
    """A whole number of another library (with __index__) counts, too."""

    class Whole:
        def __index__(self) -> int:
            return 4

    run.add_entries(Whole())
    assert run.entries == 4


def test_recording_from_many_threads(run: Run) -> None:
    """Recordings from eight threads at once add up exactly."""
    start = threading.Barrier(8)

    def record() -> None:
        start.wait()
        for _ in range(2_000):
            run.add_entries()
            run.add_seconds_saved(0.1)

    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.kpis == Kpis(16_000, 1_600)


class Between:
    """Does something once, at one of the moments at which Python may call a signal handler in this thread."""

    def __init__(self, moment: int, do: Callable[[], object]) -> None:
        self.done = False
        self._left = moment
        self._do = do

    def __call__(self, *_: object) -> None:
        """Take part in whatever Python does next, as `sys.setprofile` lets it."""
        self._left -= 1
        if self._left == 0:
            sys.setprofile(None)
            self.done = True
            self._do()


RECORDS: list[tuple[Callable[[Run], object], Kpis]] = [
    (lambda run: run.add_entries(2), Kpis(2)),
    (lambda run: run.add_seconds_saved(2), Kpis(None, 2)),
    (lambda run: run.merge(Kpis(2, 2)), Kpis(2, 2)),
    (lambda run: run.set_kpis(), Kpis()),
]


@pytest.mark.parametrize(("record", "recorded"), RECORDS)
@pytest.mark.parametrize("before", [Kpis(), Kpis(8, 8)])
def test_recording_in_the_midst_of_another(record: Callable[[Run], object], recorded: Kpis, before: Kpis) -> None:
    """What a signal handler records while the same thread records adds up with it, wherever it comes."""
    for moment in itertools.count(1):
        run = Run("invoice-intake")
        run.merge(before)
        between = Between(moment, lambda run=run: run.merge(Kpis(1, 1)))  # type: ignore[misc]
        sys.setprofile(between)
        try:
            record(run)
        finally:
            sys.setprofile(None)
        if not between.done:
            break
        assert run.kpis == before + recorded + Kpis(1, 1), moment
    assert moment > 2


def test_recording_in_the_midst_of_the_end() -> None:
    """What a signal handler records while its run is finished counts, or is refused."""
    for moment in itertools.count(1):
        run = Run("invoice-intake")
        refused: list[RuntimeError] = []

        def record(run: Run = run, refused: list[RuntimeError] = refused) -> None:
            try:
                run.merge(Kpis(1, 1))
            except RuntimeError as error:
                refused.append(error)

        between = Between(moment, record)
        sys.setprofile(between)
        try:
            totals = close(run, "succeeded")
        finally:
            sys.setprofile(None)
        if not between.done:
            break
        assert (run.kpis, totals[0]) == ((Kpis(), None) if refused else (Kpis(1, 1), 1)), moment
    assert moment > 2


def test_kpis_add() -> None:
    """Kpis add field by field; None means not recorded."""
    assert Kpis(1) + Kpis(2, 0.4) + Kpis(None, 0.4) == Kpis(3, 0.8)
    assert Kpis() + Kpis() == Kpis()
    assert Kpis().whole_seconds is None
    with pytest.raises(TypeError):
        Kpis() + 1  # type: ignore[operator]


def test_kpis_are_values() -> None:
    """Kpis compare, hash, pickle and can't be changed."""
    kpis = Kpis(3, timedelta(minutes=1))
    assert pickle.loads(pickle.dumps(kpis)) == kpis == Kpis(3, 60.0)
    assert len({kpis, Kpis(3, 60)}) == 1
    with pytest.raises(AttributeError):
        kpis.entries = 4  # type: ignore[misc]


def test_a_run_is_not_pickled(run: Run) -> None:
    """A run can't travel to a worker, where its recordings would be lost; the error says what to do."""
    ways: list[Callable[[Run], object]] = [pickle.dumps, copy.copy]
    for travel in ways:
        with pytest.raises(TypeError, match="return a Kpis from the worker"):
            travel(run)


def test_recording_after_the_end(sandbox: Sandbox) -> None:
    """What is recorded after the run is finished is refused, as it could not be sent any more."""
    with anymate_run("invoice-intake") as run:
        run.add_entries(3)
    records: list[Callable[[], None]] = [
        run.add_entries,
        lambda: run.add_seconds_saved(1),
        lambda: run.set_kpis(entries=1),
    ]
    for record in records:
        with pytest.raises(RuntimeError, match="'invoice-intake' is finished"):
            record()
    assert (run.kpis, run.outcome) == (Kpis(3), "succeeded")


def test_no_current_run() -> None:
    """Outside a guard, current_run says what to do; it is a LookupError, too."""
    with pytest.raises(NoCurrentRun, match="with anymate_run"):
        current_run()
    with pytest.raises(LookupError):
        current_run()


def test_attempt_counts_if_it_succeeds(run: Run) -> None:
    """An attempt's KPIs count only if its block succeeds, so a retried one is not counted twice."""
    with pytest.raises(OSError, match="flaky"), run.attempt() as attempt:
        attempt.add_entries(3)
        raise OSError("flaky")
    assert (attempt.outcome, run.kpis) == ("failed", Kpis())
    with run.attempt() as attempt:
        assert (attempt.process_key, attempt.run_id) == (run.process_key, run.run_id)
        attempt.add_entries(3)
        attempt.add_seconds_saved(0.5)
        assert run.kpis == Kpis()
    assert (attempt.outcome, run.kpis) == ("succeeded", Kpis(3, 0.5))


@pytest.mark.parametrize(
    ("end", "outcome", "counted"),
    [
        (SystemExit(), "succeeded", Kpis(3)),
        (SystemExit(0), "succeeded", Kpis(3)),
        (SystemExit(1), "failed", Kpis()),
        (KeyboardInterrupt(), "interrupted", Kpis()),
    ],
)
def test_attempt_that_ends_the_program(sandbox: Sandbox, end: BaseException, outcome: str, counted: Kpis) -> None:
    """An attempt ends as a run does: `sys.exit(0)` is a success, whose work counts, and Ctrl-C is an interruption."""
    with pytest.raises(type(end)), anymate_run("invoice-intake") as run, run.attempt() as attempt:
        attempt.add_entries(3)
        raise end
    assert (attempt.outcome, run.outcome, run.kpis) == (outcome, outcome, counted)


def test_current_run_in_an_attempt(sandbox: Sandbox) -> None:
    """Inside an attempt current_run gives the attempt, after it the run; attempts nest."""
    with anymate_run("invoice-intake") as run:
        with run.attempt() as outer:
            assert current_run() is outer
            with outer.attempt() as inner:
                assert current_run() is inner
                inner.add_entries(2)
            assert current_run() is outer
        assert current_run() is run
        assert run.entries == 2


def test_attempt_is_entered_once(run: Run) -> None:
    """An attempt that is entered again, inside itself or later, is refused."""
    attempt = run.attempt()
    with attempt, pytest.raises(RuntimeError, match="take a new one"):
        attempt.__enter__()
    with pytest.raises(RuntimeError, match="take a new one"):
        attempt.__enter__()


def test_attempt_is_left_after_entering(run: Run) -> None:
    """An attempt that is left without having been entered is refused."""
    with pytest.raises(RuntimeError, match="was not entered"):
        run.attempt().__exit__(None, None, None)


def test_attempts_that_add_up_to_too_much(run: Run) -> None:
    """Attempts that are fine each, but too much together, count as the most there is; the loop is not made to retry."""
    for _ in range(2):
        with run.attempt() as attempt:
            attempt.set_kpis(entries=MOST, seconds_saved=MOST - 1)
    assert run.kpis == Kpis(MOST, MOST)
