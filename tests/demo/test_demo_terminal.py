"""What `anymate-guard demo` looks like in a terminal of 80 columns."""

from __future__ import annotations

import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("no pseudo-terminals there", allow_module_level=True)

from tests.support.screen import screen


def test_colours_and_progress() -> None:
    """A terminal shows a bar that fills, the crash's half full, log lines and warnings in colours; nothing wraps."""
    with screen("demo") as shown:
        shown.until("░")
        assert shown.ended() == 0
    assert "   ██████████████████████████████ 240 of 240 invoices" in shown.lines
    assert "   ███████████████░░░░░░░░░░░░░░░ 120 of 240 invoices" in shown.lines
    assert {"green", "cyan", "brown"} <= shown.colours
    assert len(shown.lines) < 40
    assert not [line for line in shown.lines if line[0].isspace() and not line.startswith("   ")]
    assert any(line.endswith("0 h 10 min 30 s") for line in shown.lines[-2:])


@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours(plain: dict[str, str]) -> None:
    """`NO_COLOR`, or a terminal that knows none, has the same text in no colour."""
    with screen("demo", **plain) as shown:
        assert shown.ended() == 0
    assert "   ██████████████████████████████ 240 of 240 invoices" in shown.lines
    assert shown.colours == set()


def test_open(tmp_path: Path) -> None:
    """`--open` shows the page in the browser and keeps Anymate up until Ctrl-C, which leaves nothing behind."""
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.part\nmv {opened}.part {opened}\n')
    browser.chmod(0o700)
    folder = tmp_path / "temporary"
    folder.mkdir()
    with screen("demo", "--open", BROWSER=f"{browser} %s", TMPDIR=str(folder)) as shown:
        shown.until("until you press Ctrl-C.")
        while not opened.exists():
            assert shown.process.poll() is None
            time.sleep(0.01)
        url = opened.read_text()
        connection = HTTPConnection(url.removeprefix("http://").rstrip("/"), timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        assert f"Its page is on {url} until you press Ctrl-C." in shown.lines
        shown.type("\x03")
        # A terminal gives it to the foreground only, which this one has not got.
        shown.process.send_signal(2)
        assert shown.ended() == 0
    assert not list(folder.iterdir())
