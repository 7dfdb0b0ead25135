"""What a developer sees and does on the page while a bot runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from anymate_guard import AnymateClient, NotOkToRun, Settings, anymate_run

if TYPE_CHECKING:
    from anymate_guard.sandbox import Sandbox

    from .support import Reader

NASTY = "<img src=x onerror=\"document.title='gone'\"><b>&amp;</b>'"

# Contrast as WCAG 2 computes it, of every visible text against the backgrounds below it.
CONTRAST = """
const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const colour = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (at) => {
  for (; at; at = at.parentElement) {
    const found = colour(getComputedStyle(at).backgroundColor);
    if (found.length === 3 || found[3] === 1) return found;
  }
};
const faint = [];
for (const at of document.body.querySelectorAll("*")) {
  const own = [...at.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !at.checkVisibility() || at.closest("option, title")) continue;
  const [a, b] = [light(colour(getComputedStyle(at).color)), light(ground(at))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(`${at.tagName} ${at.className}: ${at.textContent}`);
}
return faint;
"""


# What reaches over the right edge, but for what scrolls by itself or is there for screen readers only.
SPILT = """
return [...document.querySelectorAll("main *")].filter((at) =>
  at.checkVisibility() &&
  !at.closest("pre, svg, thead, .unseen") &&
  at.getBoundingClientRect().right > innerWidth + 1
).map((at) => at.outerHTML);
"""


def test_run_appears(reader: Reader) -> None:
    """A bot's run appears without a reload, as running while it runs, then with what was credited."""
    reader.reads("runs", "No runs yet.")
    with anymate_run("invoice-intake") as run:
        reader.reads("runs", f"invoice-intake {run.run_id}", "Running")
        reader.reads("processes", "invoice-intake Running")
        assert reader.one("#processes rect.running")
        run.add_entries(3)
        run.add_seconds_saved(90)
    reader.reads("runs", "Finished 3 override 1 min 30 s override")
    reader.reads("summary", "Runs 1 Running 0 Entries 3 Time saved 1 min 30 s Failures 0")
    assert reader.one("#processes rect.finished")


def test_failure_appears(reader: Reader) -> None:
    """A reported failure appears at its run, its process and among the notifications."""
    with pytest.raises(ValueError, match="negative"), anymate_run("invoice-intake", report_failure=True):
        raise ValueError("negative total")
    reader.reads("failures", "invoice-intake", "ValueError: negative total")
    reader.reads("runs", "Failure reported 1 default 1 min default")
    reader.reads("processes", "Failed", "ValueError: negative total")


def test_stop_and_resume(reader: Reader) -> None:
    """Stop makes `check_ok_to_run` raise, and Resume lets the bot run again."""
    with anymate_run("invoice-intake"):
        pass
    reader.one("#processes button").click()
    reader.reads("processes", "Stopped", "Resume")
    reader.reads("said", "invoice-intake is stopped: OkToRun says no.")
    with pytest.raises(NotOkToRun), anymate_run("invoice-intake", check_ok_to_run=True):
        pass
    reader.one("#processes button").click()
    reader.reads("processes", "Idle", "Stop")
    with anymate_run("invoice-intake", check_ok_to_run=True):
        pass


@pytest.mark.parametrize(
    ("how", "listed", "logged"),
    [
        ("503 Service Unavailable", "503 Service Unavailable", "503 Service Unavailable"),
        ("Reset after it counted", "reset after it counts", "No answer"),
        ("Hang", "hang", "No answer"),
    ],
)
def test_make_it_fail(reader: Reader, monkeypatch: pytest.MonkeyPatch, how: str, listed: str, logged: str) -> None:
    """The fault that was set is listed, hits the next call, shows in the log; the guard copes."""
    monkeypatch.setenv("ANYMATE_TIMEOUT", "0.5")
    Select(reader.one("#operation")).select_by_visible_text("FinishRun")
    Select(reader.one("#shape")).select_by_visible_text(how)
    reader.one("#fault button").click()
    reader.reads("faults", "Next call of FinishRun", listed)
    reader.reads("said", f"The next FinishRun goes wrong: {how}.")
    with anymate_run("invoice-intake") as run:
        run.add_entries(2)
    reader.reads("faults", "Nothing is set to fail.")
    requests = reader.reads("requests", logged, "FinishRun POST /api/FinishRun/")
    assert requests.count("FinishRun POST") == 2
    reader.reads("runs", "Finished 2 override")


def test_let_all_calls_through(reader: Reader, sandbox: Sandbox) -> None:
    """An outage that was set up ends at the press of a button, also for the call that hangs in it."""
    Select(reader.one("#operation")).select_by_visible_text("any")
    Select(reader.one("#shape")).select_by_visible_text("Hang")
    reader.run("document.querySelector('#times').value = 1000")
    reader.one("#fault button").click()
    reader.reads("faults", "Next 1000 calls of any operation: hang")
    with ThreadPoolExecutor() as pool, AnymateClient(Settings.from_env()) as client:
        started = pool.submit(client.start_run, "invoice-intake")
        reader.reads("faults", "Next 999 calls")
        reader.one("#end-faults").click()
        reader.reads("faults", "Nothing is set to fail.")
        assert started.result(10) == sandbox.runs()[0]["runId"]


def test_refused_fault(reader: Reader) -> None:
    """What the sandbox refuses is said, not swallowed."""
    reader.provoke("400 (BAD REQUEST)")
    reader.run("document.querySelector('#operation option').value = 'nonsense'")
    Select(reader.one("#operation")).select_by_index(0)
    reader.one("#fault button").click()
    reader.reads("said", "operation has to be one of")


def test_markup_stays_text(reader: Reader) -> None:
    """Markup in names and messages stays text, at first and in updates, and the buttons still work."""
    for _ in range(2):
        with pytest.raises(KeyError), anymate_run(NASTY, report_failure=True):
            raise KeyError(NASTY)
        reader.reads("runs", NASTY)
        reader.reads("failures", NASTY)
        reader.reads("requests", "Failure POST")
        assert reader.all("main img, main b b") == []
        assert reader.driver.title == "Anymate sandbox"
        reader.one("#processes button").click()
        reader.reads("processes", NASTY, "Stopped")
        reader.one("#processes button").click()
        reader.reads("processes", "Stop")
        reader.open()


def test_keyboard(reader: Reader, sandbox: Sandbox) -> None:
    """Everything can be done by keyboard alone, the focus is visible, and updates do not move it."""
    with anymate_run("invoice-intake"):
        pass
    reader.reads("processes", "invoice-intake")

    def tab_to(name: str) -> None:
        for _ in range(30):
            reader.press(Keys.TAB)
            if reader.focused()["id"] == name:
                assert reader.focused()["ring"] == "solid"
                return
        raise AssertionError(f"no way to {name} by the Tab key")

    reader.press(Keys.TAB)
    assert reader.focused()["text"] == "Skip to the processes"
    reader.press(Keys.ENTER)
    tab_to("stop-0")
    reader.press(Keys.ENTER)
    reader.reads("processes", "Stopped", "Resume")
    assert reader.focused()["id"] == "stop-0"
    with anymate_run("another", check_ok_to_run=True):
        reader.reads("processes", "another Running")
    assert reader.focused()["id"] == "stop-0"
    reader.press(Keys.SPACE)
    reader.reads("processes", "Idle")
    tab_to("operation")
    reader.press("Start")
    reader.press(Keys.TAB, "500")
    reader.press(Keys.TAB, Keys.ARROW_UP, Keys.ENTER)
    reader.reads("faults", "Next 2 calls of StartRun: 500 Internal Server Error")
    assert sandbox.faults() == [{"operation": "StartRun", "status": 500, "times": 2}]


def test_names_for_those_who_listen(reader: Reader) -> None:
    """Every control has a name of its own, sections have headings, and only one quiet line speaks up."""
    for key in ("one", "two"):
        with anymate_run(key):
            pass
    reader.reads("runs", "two")
    names = [control.accessible_name for control in reader.all("button, select, input, pre")]
    assert all(names)
    assert {"Stop one", "Stop two", "Call", "How", "Times", "Make it fail"} <= set(names)
    assert [section.accessible_name for section in reader.all("section")] == [
        "Processes",
        "Runs",
        "Make the next call fail",
        "Failure notifications",
        "Requests",
    ]
    assert reader.one(".lane").accessible_name == "Time line of one: 1 run"
    assert [live.get_attribute("id") for live in reader.all("[role=status], [role=alert], [aria-live]")] == ["said"]


@pytest.mark.parametrize("width", [320, 390, 700, 1000])
def test_narrow_screens(reader: Reader, width: int) -> None:
    """Nothing scrolls sideways on a phone, whatever the names and texts are, and fingers hit the buttons."""
    reader.look_like(width)
    long = "a" * 300
    with pytest.raises(ValueError, match="a"), anymate_run(long, report_failure=True):
        raise ValueError(long)
    with anymate_run("claims/mail sorting") as run:
        run.add_entries(2_000_000)
        run.add_seconds_saved(2_000_000)
    reader.reads("requests", "Failure POST")
    reader.reads("runs", "claims", "Finished")
    reader.run("for (const folded of document.querySelectorAll('details')) folded.open = true")
    assert reader.run("return document.documentElement.scrollWidth") <= width
    assert reader.run(SPILT) == []
    if width < 700:
        assert all(button.size["height"] >= 44 for button in reader.all("button, select, input"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(reader: Reader, scheme: str) -> None:
    """The page follows the system's light or dark, with enough contrast (WCAG AA), and is still if asked."""
    reader.look_like(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    with pytest.raises(ValueError, match="x"), anymate_run("failed", report_failure=True):
        raise ValueError("x" * 100)
    with anymate_run("running"), AnymateClient(Settings.from_env()) as client:
        reader.one("#processes button").click()
        client.ok_to_run("asked")
        reader.reads("processes", "Stopped", "Running", "Idle", "Failed")
        reader.reads("requests", "OkToRun")
        red = int(reader.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))
        assert (red < 64) == (scheme == "dark")
        assert reader.run(CONTRAST) == []
        assert reader.run("return document.getAnimations().length") == 0
        reader.look_like(prefers_color_scheme=scheme)
        assert reader.run("return document.getAnimations().length") > 0


def test_thousand_runs(reader: Reader, sandbox: Sandbox) -> None:
    """With 1 000 runs the page is quick, turns pages without a reload, and Back goes back."""
    with AnymateClient(Settings.from_env()) as client:
        for number in range(1000):
            client.finish_run(client.start_run(f"process {number % 20}"))
    newest = sandbox.runs()[-1]["runId"]
    reader.reads("summary", "Runs 1 000")
    assert len(reader.all("*")) < 3000
    took = reader.run("const began = performance.now(); return lookNow().then(() => performance.now() - began)")
    assert took < 1000
    reader.run("for (const link of document.querySelectorAll('.pager a')) link.click()")
    reader.reads("runs", "975 to 951 of 1 000 runs")
    assert reader.driver.current_url.endswith("/?page=2")
    reader.driver.back()
    reader.reads("runs", f"{newest}", "1 000 to 976 of 1 000 runs")
    reader.one("#process-7 a").click()
    reader.reads("runs", "Only process 7.", "50 to 26 of 50 runs")
    reader.one(".axis nav a:last-child").click()
    reader.until(lambda: reader.one("a[aria-current]").text == "1 minute")
    assert reader.text("runs").startswith("Only process 7.")


def test_what_the_reader_does_stays(reader: Reader) -> None:
    """An update leaves open what is open, and keeps the selection and what is typed in the form."""
    with pytest.raises(ValueError, match="x"), anymate_run("first", report_failure=True):
        raise ValueError("x" * 200)
    reader.reads("requests", "Failure POST")
    folded = reader.one("#requests details")
    folded.find_element("css selector", "summary").click()
    reader.one("#times").send_keys("7")
    reader.run("getSelection().selectAllChildren(document.querySelector('#failures .said'))")
    with anymate_run("second"):
        reader.reads("runs", "second", "Running")
    reader.reads("runs", "second", "Finished")
    assert folded.get_attribute("open") is not None
    assert reader.one("#times").get_attribute("value") == "71"
    assert str(reader.run("return getSelection().toString()")).startswith("ValueError: xxx")


def test_sandbox_away(reader: Reader, sandbox: Sandbox) -> None:
    """When the sandbox stops, the page says so and keeps trying; when it is back, so is the page."""
    reader.provoke("net::ERR_CONNECTION_REFUSED")
    reader.reads("processes", "No bot has called yet.")
    sandbox.close()
    reader.until(lambda: reader.text("connection") == "Not connected")
    reader.reads("said", "The sandbox does not answer; trying again.")
    reader.one("#fault button").click()
    sandbox.start()
    reader.until(lambda: reader.text("connection") == "Live")
    reader.until(lambda: reader.text("said") == "")


def test_reset(reader: Reader, sandbox: Sandbox) -> None:
    """A sandbox that forgot everything shows so."""
    with anymate_run("invoice-intake"):
        reader.reads("runs", "Running")
        sandbox.reset()
        reader.reads("runs", "No runs yet.")
        reader.reads("processes", "No bot has called yet.")
