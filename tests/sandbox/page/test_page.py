"""The page at `/`, as the server gives it; what its script does is tested in a browser elsewhere."""

from __future__ import annotations

import re
from html import unescape

import pytest

from anymate_guard.sandbox import Sandbox

from ..support import Bot, Clock
from .support import NASTY, local, part, text

PARTS = ["summary", "charts", "processes", "runs", "faults", "failures", "journal", "tokens", "requests"]


def test_page_and_parts(browser: Bot, bot: Bot) -> None:
    """The page comes whole, filled with the very parts that its script asks for later."""
    bot.start("invoices")
    page = browser.get("/?window=60&find=voice")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    parts = browser.get("/page/parts?window=60&find=voice").json
    assert list(parts) == PARTS
    for name, html in parts.items():
        assert f'<div id="{name}">{html}</div>' in page.text
    assert '<input type="search" id="find" value="voice"' in page.text


def test_files(browser: Bot) -> None:
    """Style, script and icon come from the sandbox itself, and the page asks for nothing from elsewhere."""
    page = browser.get("/").text
    wanted = re.findall(r'(?:src|href)="(page/[^"]*)"', page)
    assert sorted(wanted) == ["page/icon.svg", "page/page.css", "page/page.js"]
    types = [browser.get(f"/{name}").headers["Content-Type"] for name in sorted(wanted)]
    assert types == ["image/svg+xml", "text/css; charset=utf-8", "text/javascript; charset=utf-8"]
    for content in (page, *(browser.get(f"/{name}").text for name in wanted)):
        assert not re.search(r"(?:src|href|url|import|fetch)\W{1,3}(?:https?:|//)", content)


def test_policy(browser: Bot) -> None:
    """No inline script or style and nothing from elsewhere may run, and no page may frame this one."""
    for path in ("/", "/page/parts", "/page/page.js"):
        headers = browser.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["Cache-Control"] == "no-store"
    page = browser.get("/").text
    assert not re.search(r"<script(?! src)|<style|\sstyle=|\son[a-z]+=|javascript:", page)


def test_only_looking(sandbox: Sandbox, browser: Bot) -> None:
    """The page changes nothing, takes nothing, and its own requests are not listed."""
    for path in ("/", "/page/parts", "/page/page.css"):
        assert browser.post(path, {}).status == 405
        assert browser.send("HEAD", path).text == ""
    assert sandbox.requests() == []
    assert sandbox.processes() == []


def test_nothing_yet(browser: Bot) -> None:
    """An empty sandbox says how to point a bot at it from each shell, with the address the reader uses."""
    page = browser.get("/", Host="localhost:4711")
    assert '<details class="card setup" open>' in page.text
    shown = unescape(page.text)
    for name, value in browser.sandbox.environ.items():
        here = value.replace(browser.sandbox.url, "http://localhost:4711")
        assert f"export {name}='{here}'\n" in f"{shown}".replace("</pre>", "\n")
        assert f'$env:{name} = "{here}"' in shown
        assert f"set {name}={here}\n" in f"{shown}".replace("</pre>", "\n")
    parts = {name: text(html) for name, html in browser.get("/page/parts").json.items()}
    assert parts == {
        "summary": "Runs 0 Running 0 Entries 0 Time saved 0 s Failures 0",
        "charts": "",
        "processes": "No bot has called yet. “Point a bot here”, above, has the settings it needs.",
        "runs": "Runs No runs yet.",
        "faults": "Nothing is set to fail.",
        "failures": "No failure was reported.",
        "journal": "",
        "tokens": "Show token calls",
        "requests": "No request came yet.",
    }


def test_setup_is_folded(browser: Bot, bot: Bot) -> None:
    """Once a bot has called, the settings are folded."""
    bot.start()
    assert '<details class="card setup">' in browser.get("/").text


def test_summary(bot: Bot, browser: Bot, clock: Clock) -> None:
    """The sums are over everything, whatever is chosen."""
    for key in ("a", "b"):
        bot.finish(bot.start(key), overwriteEntries=600, overwriteSecondsSaved=4000)
    bot.start("c")
    bot.post("/api/Failure/", {"processKey": "a", "message": "broke"})
    summary = "Runs 3 Running 1 Entries 1 200 Time saved 2 h 13 min Failures 1"
    assert part(browser, "summary") == part(browser, "summary", "?process=a&find=x&state=failed") == summary


def test_markup_stays_text(browser: Bot, bot: Bot, sandbox: Sandbox) -> None:
    """Whatever a bot or an address brings is shown as text: keys, messages, bodies, paths, the choice."""
    run_id = bot.start(NASTY)
    bot.post("/api/Failure/", {"processKey": NASTY, "message": NASTY * 20})
    bot.get(f"/api/{NASTY.replace(' ', '%20')}")
    sandbox.fail_next("StartRun", process_key=NASTY)
    key = NASTY.replace(" ", "%20").replace("&", "%26")
    for path in ("/", f"/?process={key}&run={run_id}&find={key}", f"/?find={key}x&state={key}&page={NASTY[:4]}"):
        page = browser.get(path).text
        assert "<img" not in page
        assert text(page).count("<img src=x") >= 5
    assert not browser.get("/").text.count("&amp;lt;")


def test_links_keep_the_choice(bot: Bot, browser: Bot) -> None:
    """A link changes one thing that the reader chose and keeps the others."""
    for _ in range(26):
        bot.finish(bot.start("a/b c"))
    choice = "window=60&find=A&process=a%2Fb+c"
    parts = browser.get(f"/page/parts?{choice}").json
    links = [unescape(link) for html in parts.values() for link in re.findall(r'href="([^"]*)"', html)]
    runs = [f"?{choice}&run={run['runId']}" for run in bot.sandbox.runs()]
    assert links == [
        "?find=A&process=a%2Fb+c",
        "?window=3600&find=A&process=a%2Fb+c",
        "?window=600&find=A&process=a%2Fb+c",
        f"?{choice}",
        "?window=60&find=A",
        f"?{choice}",
        f"?{choice}&state=failed",
        f"?{choice}&state=running",
        f"?{choice}&state=finished",
        "?window=60&find=A",
        *runs[:0:-1],
        f"?{choice}&page=2",
        f"?{choice}&tokens=1",
    ]
    assert re.findall(r'<a [^>]*aria-current="true">([^<]*)', "".join(parts.values())) == ["1 minute", "All 26"]


@pytest.mark.parametrize("nonsense", ["0", "-1", "x", "%C2%B2", "9" * 5000])
def test_nonsense_in_the_address(bot: Bot, browser: Bot, nonsense: str) -> None:
    """What makes no sense in an address is left out."""
    bot.finish(bot.start("a"))
    plain = browser.get("/page/parts").json
    assert browser.get(f"/page/parts?page={nonsense}&window={nonsense}&run={nonsense}&tokens={nonsense}").json == plain


def test_another_day(bot: Bot, browser: Bot, clock: Clock) -> None:
    """A time of another day has its date."""
    bot.finish(bot.start("a"))
    today = local(clock)
    assert f" {today} " in part(browser, "runs")
    clock.now += 100_000
    assert re.search(rf"\d{{4}}-\d\d-\d\d {today}", part(browser, "runs"))
