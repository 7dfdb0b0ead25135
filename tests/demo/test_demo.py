"""What `anymate-guard demo` shows, and what it leaves alone."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from anymate_guard.demo import bot

from .conftest import Demo

INVOICES = Path(bot.__file__).with_name("invoices.csv")
HEADER = ",".join(bot.COLUMNS)
GOOD = "2026-0001,Ærø Skibsværft A/S,DK31285674,2026-01-05,2026-02-04,DKK,100.00,25,25.00,125.00"
TIMEOUT = 60


class Result(NamedTuple):
    """How a demo ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log lines."""
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    @property
    def complaints(self) -> list[str]:
        """The lines on stderr that are not log lines."""
        return [line for line in self.err.splitlines() if not line.startswith("{")]


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


def test_the_invoices_that_come_along(start: Demo) -> None:
    """At least 200 invoices are handled, the flawed ones rejected with a reason; Anymate credits it."""
    result = ended(start)
    with INVOICES.open(encoding="utf-8") as file:
        count = len(list(csv.DictReader(file)))
    rejected = [event["reason"] for event in result.events if event["event"] == "invoice.rejected"]
    assert result.code == 0
    assert count >= 200
    assert {"wrong total", "wrong VAT", "no valid VAT number", "bad date", "duplicate"} <= set(rejected)
    assert f"{count} invoices processed: {count - len(rejected)} booked, {len(rejected)} rejected" in result.out
    for reason in set(rejected):
        assert re.search(rf"^ +{rejected.count(reason)} rejected: {reason}$", result.out, re.MULTILINE)
    saved = 20 * count + 95.5 * (count - len(rejected))
    assert re.search(rf"run \d+ on invoice-intake: finished, {count} entries, {saved:.0f} seconds saved", result.out)


def test_logs_are_json(start: Demo) -> None:
    """Every line on stderr is a JSON object, the bot's own carry the run, and names stay as they are."""
    result = ended(start)
    assert not result.complaints
    assert [event["event"] for event in result.events if event["event"].startswith("anymate.")] == [
        "anymate.run_started",
        "anymate.run_finished",
    ]
    assert len({(event["run_id"], event["process_key"]) for event in result.events}) == 1
    assert any("Ærø" in event.get("supplier", "") for event in result.events)
    assert "Ærø" in result.err


def test_logs_are_json_everywhere(start: Demo) -> None:
    """A terminal that knows ASCII only still gets valid JSON."""
    result = ended(start, PYTHONIOENCODING="ascii")
    assert any("Ærø" in event.get("supplier", "") for event in result.events)


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
    assert "finished, 240 entries" in result.out
    assert not (tmp_path / "users-own").exists()
    assert not list(tmp_path.iterdir())


def test_own_file(run_on: Any) -> None:
    """A file of one's own is handled, with a byte order mark, other columns and spaces in it."""
    result = run_on(f"\ufeffnote,{HEADER}\nfirst, {GOOD.replace(',', ' , ')}\n")
    assert result.code == 0
    assert "1 invoices processed: 1 booked, 0 rejected" in result.out
    assert "125.00 DKK booked" in result.out
    assert "finished, 1 entries, 116 seconds saved" in result.out


def test_no_invoices(run_on: Any) -> None:
    """A file with only a header is a day without invoices."""
    result = run_on(HEADER + "\n")
    assert result.code == 0
    assert "0 invoices processed" in result.out


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
    assert "finished, 0 entries, 0 seconds saved" in result.out


NO_FILE = "Permission denied" if sys.platform == "win32" else "Is a directory"


@pytest.mark.parametrize(("name", "why"), [("nowhere.csv", "No such file"), (".", NO_FILE)])
def test_file_that_cannot_be_read(start: Demo, name: str, why: str) -> None:
    """A missing file or a folder is named in one line; the run is finished, and the failure reported."""
    result = ended(start, name)
    assert result.code == 2
    assert result.complaints == [f"anymate-guard demo: can't read '{name}': {result.complaints[0].split(': ')[2]}"]
    assert why in result.complaints[0]
    assert "finished, 0 entries, 0 seconds saved" in result.out
    assert "anymate.failure_reported" in result.err


def test_without_the_extra(environ: dict[str, str], start: Demo, tmp_path: Path) -> None:
    """Without the extra it says what to install."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['werkzeug'] = None\n")
    result = ended(start, PYTHONPATH=os.pathsep.join([str(tmp_path), environ.get("PYTHONPATH", "")]))
    assert result.code == 2
    assert result.complaints == [
        "anymate-guard sandbox: it is an extra that is not installed: pip install 'anymate_guard[sandbox]'"
    ]


@contextmanager
def at_work(start: Demo, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo whose bot waits for its file."""
    file = folder / "slow.csv"
    os.mkfifo(file)
    with start(file) as process:
        assert process.stderr is not None
        assert "anymate.run_started" in process.stderr.readline()
        yield process


@pytest.mark.skipif(sys.platform == "win32", reason="needs a named pipe, to stop the bot at work")
def test_ctrl_c(start: Demo, tmp_path: Path) -> None:
    """Ctrl-C, which a terminal gives to the sandbox too, finishes the run, and ends without a traceback."""
    with at_work(start, tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "finished, 0 entries, 0 seconds saved" in out


@pytest.mark.skipif(sys.platform == "win32", reason="needs a named pipe, to stop the bot at work")
def test_killed(start: Demo, tmp_path: Path) -> None:
    """A demo that is killed leaves no sandbox behind."""
    with at_work(start, tmp_path) as process:
        process.kill()
        process.communicate(timeout=TIMEOUT)  # ends when nobody has stderr open any more, the sandbox included
    assert process.returncode == -signal.SIGKILL
