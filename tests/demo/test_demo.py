"""What `anymate-guard demo` shows, and what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

from anymate_guard.demo import bot

from .conftest import Demo

HEADER = ",".join(bot.COLUMNS)
GOOD = "2026-0001,Ærø Skibsværft A/S,DK31285674,2026-01-05,2026-02-04,DKK,100.00,25,25.00,125.00"
TIMEOUT = 60


class Result(NamedTuple):
    """How a demo ended, with what it wrote."""

    code: int
    out: str
    err: str

    @property
    def runs(self) -> list[str]:
        """What Anymate recorded, without the numbers of runs."""
        lines = self.out.partition("What Anymate recorded of each\n")[2].splitlines()[1:]
        return [" ".join(line.split()[1:]) for line in lines]

    @property
    def complaints(self) -> list[str]:
        """The lines on stderr that are not log lines."""
        return [line for line in self.err.splitlines() if not line.startswith(("{", " "))]


def ended(start: Demo, *arguments: str | Path, **environ: str) -> Result:
    """Run a demo to its end."""
    with start(*arguments, **environ) as process:
        out, err = process.communicate(timeout=TIMEOUT)
        return Result(process.returncode, out, err)


@pytest.fixture(name="run_on")
def _run_on(start: Demo, tmp_path: Path) -> Any:
    """Runs the demo on a file with this content."""

    def run_on(content: str | bytes) -> Result:
        file = tmp_path / "invoices.csv"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return ended(start, file)

    return run_on


def test_what_the_package_is_for(start: Demo) -> None:
    """On a pipe, 40 plain lines of 80 columns tell of a run, a crash, an outage, and what Anymate recorded of each."""
    with start(stderr=subprocess.STDOUT) as process:
        text, _ = process.communicate(timeout=TIMEOUT)
    text = re.sub(r"\brun \d+", "run N", text)
    lines = text.splitlines()
    assert process.returncode == 0
    assert len(lines) < 40
    assert max(map(len, lines)) <= 80
    assert "\033" not in text
    assert "\r" not in text
    story = [
        "1. A bot counts what it does: each invoice, and the time that it saved",
        "   anymate.run_started      run N",
        "   240 of 240 invoices",
        "   anymate.run_finished     run N, succeeded, 240 entries, 25810 s",
        "   220 booked, 20 rejected: 6 wrong total, 4 no valid VAT number, 3 bad date, …",
        "",
        "2. The bot crashes half way: its run is finished all the same",
        "   anymate.run_started      run N",
        "   120 of 240 invoices",
        "   anymate.run_finished     run N, failed, 120 entries, 13096 s",
        "   anymate.failure_reported run N",
        "   The bot ends with its own exception: the accounts are closed for the night",
        "",
        "3. Anymate is down: the work goes on, and the finish waits in a journal",
    ]
    assert lines[2 : 2 + len(story)] == story
    rest = "\n".join(lines[2 + len(story) :])
    assert "anymate.start_deferred   HTTP 503: The sandbox was asked to answer 503.\n" in rest
    assert "anymate.finish_stored    240 entries, 25810 s, HTTP 503: The sandbox was ...\n" in rest
    assert "anymate.finish_delivered run N, 240 entries, 25810 s" in rest
    assert sorted(Result(0, text, "").runs) == [
        "invoice-intake finished 120 3 h 38 min 16 s",
        "invoice-intake finished 240 7 h 10 min 10 s",
        "invoice-intake finished 240 7 h 10 min 10 s",
        "payment-run finished 7 0 h 10 min 30 s",
    ]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_log_format(start: Demo, log_format: str) -> None:
    """`--log-format` prints whole log lines to stderr, the bot's own with the run that they belong to."""
    result = ended(start, "--log-format", log_format)
    names = re.findall(r"(?:anymate|invoices)\.\w+", result.err)
    assert names[:3] == ["anymate.run_started", "invoices.processed", "anymate.run_finished"]
    lines = result.err.splitlines()
    assert len(lines) == len(names)
    if log_format == "json":
        events = [json.loads(line) for line in lines]
        assert len({(event["run_id"], event["process_key"]) for event in events[:3]}) == 1
        assert events[1]["rejected"]["wrong total"] == 6
        assert {"level", "timestamp"} <= set(events[0])
    else:
        assert re.match(
            r"\d\d:\d\d:\d\d \[info     \] anymate.run_started process_key=invoice-intake run_id=\d", lines[0]
        )
    assert "anymate." not in result.out


def test_log_of_an_old_console(start: Demo) -> None:
    """A console that knows ASCII only gets JSON and a story all the same."""
    result = ended(start, "--log-format", "json", PYTHONIOENCODING="ascii")
    assert result.code == 0
    assert all(json.loads(line) for line in result.err.splitlines())


def test_leaves_the_user_alone(start: Demo, tmp_path: Path) -> None:
    """The user's own settings, proxy and journal are not touched, whatever they are."""
    result = ended(
        start,
        ANYMATE_DISABLED="1",
        ANYMATE_API_URL="https://anymate.example.com",
        ANYMATE_DEADLINE="nonsense",
        HTTP_PROXY="http://127.0.0.1:9",
    )
    assert result.code == 0
    assert len(result.runs) == 4
    assert not (tmp_path / "users-own").exists()
    assert not list(tmp_path.iterdir())


def test_leaves_nothing_behind(start: Demo, tmp_path: Path) -> None:
    """The journal and everything else that it made is gone when it ends."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    assert ended(start, TMPDIR=str(folder), TEMP=str(folder), TMP=str(folder)).code == 0
    assert not list(folder.iterdir())


def test_own_file(run_on: Any) -> None:
    """A file of one's own is handled, with a byte order mark, other columns and spaces in it."""
    result = run_on(f"\ufeffnote,{HEADER}\nfirst, {GOOD.replace(',', ' , ')}\n")
    assert result.code == 0
    assert "   1 of 1 invoices\n   1 booked, 0 rejected\n" in result.out
    assert result.runs[0] == "invoice-intake finished 1 0 h 1 min 56 s"


def test_no_invoices(run_on: Any) -> None:
    """A file with only a header is a day without invoices, for which Anymate credits nothing."""
    result = run_on(HEADER + "\n")
    assert result.code == 0
    assert "   0 of 0 invoices\n   0 booked, 0 rejected\n" in result.out
    assert result.runs.count("invoice-intake finished 0 0 h 0 min 0 s") == 3


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        (GOOD + ",more", "wrong number of fields"),
        (GOOD.removesuffix(",125.00"), "wrong number of fields"),
        (GOOD.replace("DK31285674", ""), "no valid VAT number"),
        (GOOD.replace("2026-02-04", "2026-02-30"), "bad date"),
        (GOOD.replace("2026-02-04", "2026-01-04"), "due before it was issued"),
        (GOOD.replace("DKK", "XXX"), "unknown currency"),
        (GOOD.replace("100.00", "1e2x"), "bad amount"),
        (GOOD.replace("100.00", "NaN"), "bad amount"),
        (GOOD.replace("100.00", "-100.00"), "bad amount"),
        (GOOD.replace("100.00", "1e999999"), "bad amount"),
        (GOOD.replace(",25.00,", ",25.01,"), "wrong VAT"),
        (GOOD.replace("125.00", "125.01"), "wrong total"),
        (f"{GOOD}\n{GOOD}", "duplicate"),
    ],
)
def test_flaws(flaw: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invoice with a flaw is rejected with the reason, and the others are booked."""
    monkeypatch.setenv("ANYMATE_DISABLED", "1")
    file = tmp_path / "invoices.csv"
    file.write_text(f"{HEADER}\n{flaw}\n{GOOD.replace('0001', '0002')}\n", encoding="utf-8")
    report = bot.process(file)
    assert report.rejected == {reason: 1}
    assert report.booked == report.processed - 1 == len(flaw.splitlines())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is empty; its first line must be number,"),
        (GOOD, "lacks number, supplier, "),
        (HEADER.replace("vat_number,", ""), "lacks vat_number in its header"),
        (bytes(range(256)), "is not UTF-8 text in line 2"),
        (f"{HEADER}\n{GOOD}".encode("utf-16"), "is not UTF-8 text in line 1"),
        (f"{HEADER}\n{GOOD}".encode("latin-1"), "is not UTF-8 text in line 2"),
        (f'{HEADER}\n"{GOOD}', "is not a CSV file: unexpected end of data after line 1"),
        (f"{HEADER}\n{'x' * 200_000}", "is not a CSV file: field larger than field limit"),
    ],
)
def test_malformed_file(run_on: Any, content: str | bytes, complaint: str) -> None:
    """A file that can't be used is named in one clear line, with exit code 2, and the run is finished."""
    result = run_on(content)
    assert result.code == 2
    assert len(result.complaints) == 1
    assert result.complaints[0].startswith("anymate-guard demo: ")
    assert complaint in result.complaints[0]
    assert "invoices.csv" in result.complaints[0]
    assert result.runs == ["invoice-intake finished 0 0 h 0 min 0 s"]


NO_FILE = "Permission denied" if sys.platform == "win32" else "Is a directory"


@pytest.mark.parametrize(("name", "why"), [("nowhere.csv", "No such file"), (".", NO_FILE)])
def test_file_that_cannot_be_read(start: Demo, name: str, why: str) -> None:
    """A missing file or a folder is named in one line; the run is finished, and the failure reported."""
    result = ended(start, name)
    assert result.code == 2
    assert result.complaints == [f"anymate-guard demo: can't read '{name}': {result.complaints[0].split(': ')[2]}"]
    assert why in result.complaints[0]
    assert result.runs == ["invoice-intake finished 0 0 h 0 min 0 s"]
    assert "anymate.failure_reported" in result.err


def test_without_the_extra(environ: dict[str, str], start: Demo, tmp_path: Path) -> None:
    """Without the extra it says what to install."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['werkzeug'] = None\n")
    result = ended(start, PYTHONPATH=os.pathsep.join([str(tmp_path), environ.get("PYTHONPATH", "")]))
    assert result.code == 2
    assert result.complaints == [
        "anymate-guard sandbox: the sandbox is an extra that is not installed: pip install 'anymate-guard[sandbox]'"
    ]


@contextmanager
def at_work(start: Demo, folder: Path) -> Iterator[tuple[subprocess.Popen[str], Callable[[], None]]]:
    """A demo whose bot waits for its file, and what ends that file."""
    file = folder / "slow.csv"
    os.mkfifo(file)
    with start(file, TMPDIR=str(folder)) as process, writer(file) as pipe:
        yield process, pipe.close


@contextmanager
def writer(path: Path) -> Iterator[IO[bytes]]:
    """A pipe that somebody waits to read from, open for writing."""
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:
            assert time.monotonic() < end, "nobody came to read"
            time.sleep(0.01)
    with open(pipe, "wb") as file:  # noqa: PTH123  # it is open already
        yield file


@pytest.mark.skipif(sys.platform == "win32", reason="needs a named pipe, to stop the bot at work")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped(start: Demo, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, which a terminal gives to the sandbox too, or SIGTERM finishes the run and leaves nothing behind."""
    with at_work(start, tmp_path) as (process, hang_up):
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        hang_up()  # a signal that comes just before the read, after Python's last look for one, does not end it
        out, err = process.communicate(timeout=TIMEOUT)
    assert "Traceback" not in err
    assert process.returncode == 130
    assert Result(130, out, err).runs == ["invoice-intake finished 0 0 h 0 min 0 s"]
    assert [path.name for path in tmp_path.iterdir()] == ["slow.csv"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a named pipe, to stop the bot at work")
def test_killed(start: Demo, tmp_path: Path) -> None:
    """A demo that is killed leaves no sandbox behind."""
    with at_work(start, tmp_path) as (process, _):
        process.kill()
        process.communicate(timeout=TIMEOUT)  # ends when nobody has stderr open any more, the sandbox included
    assert process.returncode == -signal.SIGKILL
