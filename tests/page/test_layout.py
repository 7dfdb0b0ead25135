"""What the page looks like with 31 processes and 1 000 runs, on screens from a phone's to a wide one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium import webdriver

from anymate_guard.sandbox import Sandbox

from .bots import LONG_KEY, Clock, Journal, work
from .support import Reader

WIDTHS = (320, 390, 768, 1180, 1181, 1280, 1920)

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
  if (!own || !at.checkVisibility() || at.closest("option, title, :disabled")) continue;
  const [a, b] = [light(colour(getComputedStyle(at).color)), light(ground(at))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(`${at.tagName} ${at.className}: ${at.textContent}`);
}
return faint;
"""

# What reaches over the right edge of the screen or of its own cell, but for what scrolls by itself or is there for
# screen readers only.
SPILT = """
const seen = [...document.querySelectorAll("header *, main *")].filter(
  (at) =>
    at.checkVisibility() && at.closest("thead")?.offsetWidth !== 1 &&
    !at.closest("pre, svg, option, summary > *, .unseen")
);
const tight = (at) => getComputedStyle(at).overflowX === "visible" && at.scrollWidth > at.clientWidth + 1;
const spilt = (at) => at.getBoundingClientRect().right > innerWidth + 1;
return seen
  .filter((at) => spilt(at) || (at.matches("th, td, button, .chip") && tight(at)))
  .map((at) => `${at.scrollWidth} in ${at.clientWidth}: ${at.outerHTML}`);
"""

# Words that are broken over two lines, and names that are cut where not even a word fits.
BROKEN = """
const broken = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const range = document.createRange();
while (walker.nextNode()) {
  const node = walker.currentNode;
  const at = node.parentElement;
  if (!at.checkVisibility() || at.closest("svg, option, script, .unseen")) continue;
  for (const word of node.data.matchAll(/\\S+/g)) {
    if (word[0].length > 16 || /[-/]/.test(word[0])) continue;
    range.setStart(node, word.index);
    range.setEnd(node, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map((line) => Math.round(line.top))).size > 1) broken.push(at.outerHTML);
  }
}
const cut = [...document.querySelectorAll("main *")].filter(
  (at) =>
    at.checkVisibility() && getComputedStyle(at).textOverflow === "ellipsis" &&
    at.clientWidth < 100 && at.closest("thead")?.offsetWidth !== 1
);
return [...broken, ...cut.map((at) => at.outerHTML)];
"""


@pytest.fixture(scope="module", name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module", name="busy")
def _busy(clock: Clock) -> Iterator[Sandbox]:
    with Sandbox(clock=clock) as sandbox:
        work(sandbox, clock, processes=31, runs=1000)
        sandbox.show_journal(Journal())
        yield sandbox


@pytest.fixture(name="page")
def _page(busy: Sandbox, chromium: webdriver.Chrome) -> Iterator[Reader]:
    reader = Reader(chromium, busy.url)
    reader.look_like()
    yield reader
    reader.leave()
    assert reader.console == []
    assert reader.strange_requests == []


def states(busy: Sandbox) -> list[str]:
    """Return the addresses of the page in which it looks different."""
    failed = [failure["processKey"] for failure in busy.failures()]
    run = next(run for run in busy.runs()[::-1] if run["processKey"] == failed[-2] and run["finished"])
    key = LONG_KEY.replace(" ", "+")
    return ["/", f"/?process={key}&run={run['runId']}&state=failed", f"/?run={run['runId']}&tokens=1&window=600&find=a"]


@pytest.fixture(name="day", params=["today", "yesterday"])
def _day(request: pytest.FixtureRequest, clock: Clock) -> Iterator[None]:
    clock.back = -86_400 if request.param == "yesterday" else 0
    yield
    clock.back = 0


@pytest.mark.usefixtures("day")
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows(page: Reader, busy: Sandbox, width: int) -> None:
    """Nothing scrolls sideways, spills or is broken within a word, and fingers hit the buttons of a small screen.

    What was yesterday is shown with its date.
    """
    for state in states(busy):
        page.look_like(width)
        page.open(state)
        for unfolded in (False, True):
            page.run("for (const text of document.querySelectorAll('details')) text.open = arguments[0]", unfolded)
            assert page.run("return document.documentElement.scrollWidth") <= width
            assert page.run(SPILT) == []
            assert page.run(BROKEN) == []
        if width < 1181:
            small = "return [...document.querySelectorAll('button, select, input')].filter((at) =>"
            assert page.run(f"{small} at.checkVisibility() && at.offsetHeight < 44).map((at) => at.outerHTML)") == []


@pytest.mark.parametrize(("width", "height"), [(390, 50), (1280, 44)])
def test_one_line_per_process(page: Reader, width: int, height: int) -> None:
    """Each process is one line, failed and running ones first; only states that fit in no line take a second one."""
    page.look_like(width)
    page.open()
    names = [name.text for name in page.all(".processes tbody a")]
    assert len(names) == 31
    states = [state.text for state in page.all(".processes tbody .state")]
    ranks = [("Failed" not in state, "Running" not in state) for state in states]
    assert ranks == sorted(ranks)
    heights = {name: row.size["height"] for name, row in zip(names, page.all(".processes tbody tr"), strict=True)}
    high = {name for name, found in heights.items() if found > height}
    assert high <= ({"month-end-closing"} if width == 390 else set())
    assert sum(heights.values()) < 33 * height


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_light_and_dark(page: Reader, busy: Sandbox, scheme: str, width: int) -> None:
    """The page follows the system's light or dark, with enough contrast (WCAG AA), and is still if asked."""
    for state in states(busy):
        page.look_like(width, prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
        page.open(state)
        red = int(page.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))
        assert (red < 64) == (scheme == "dark")
        assert page.run(CONTRAST) == []
        assert page.run("return document.getAnimations().length") == 0
    page.look_like(width, prefers_color_scheme=scheme)
    page.open()
    assert page.run("return document.getAnimations().length") > 0


def test_thousand_runs(page: Reader, busy: Sandbox) -> None:
    """With 1 000 runs the page stays small, turns its pages without a reload, and Back goes back."""
    newest = busy.runs()[-1]["runId"]
    page.open()
    page.reads("summary", "Runs 1 002")
    assert len(page.all("*")) < 5000
    page.run("for (const link of document.querySelectorAll('.pager a')) link.click()")
    page.reads("runs", "26 to 50 of 1 002 runs")
    assert page.driver.current_url.endswith("/?page=2")
    page.driver.back()
    page.reads("runs", f"{newest}", "1 to 25 of 1 002 runs")
    page.one("#process-vat-report a").click()
    page.reads("runs", "Runs of vat-report")
    page.one("[aria-label='Time shown'] a:last-child").click()
    page.until(lambda: page.one("#charts a[aria-current]").text == "1 minute")
    assert page.text("runs").startswith("Runs of vat-report")


def test_filter(page: Reader) -> None:
    """What is typed into the filter leaves the processes and runs of that name; Back and a reload keep it."""
    page.open()
    find = page.one("#find")
    find.send_keys("VAT-REP")
    page.until(lambda: len(page.all(".processes tbody tr")) == 5)
    assert page.focused()["id"] == "find"
    page.reads("runs", "vat-report")
    assert "invoice" not in page.text("runs")
    page.driver.refresh()
    page.run("window.marked = true")
    assert page.one("#find").get_attribute("value") == "VAT-REP"
    assert len(page.all(".processes tbody tr")) == 5
    page.one(".processes a").click()
    page.reads("runs", "Runs of vat-report")
    page.driver.back()
    page.reads("runs", "Runs All")
    assert page.one("#find").get_attribute("value") == "VAT-REP"
    page.one("#find").clear()
    page.one("#find").send_keys("x")
    page.reads("processes", "payroll-export")


def test_stop_on_a_phone(page: Reader, busy: Sandbox) -> None:
    """On a phone, where the lines have no room for buttons, a process is stopped and resumed in its details."""
    page.look_like(390)
    page.open()
    assert not page.one("#stop-payroll-export").is_displayed()
    page.one("#process-payroll-export a").click()
    page.one("#settings-payroll-export [data-process]").click()
    page.until(lambda: next(one for one in busy.processes() if one["processKey"] == "payroll-export")["stopped"])
    page.reads("process-payroll-export", "Stopped")
    page.one("#settings-payroll-export [data-process]").click()
    page.reads("said", "payroll-export may run again.")
