"""The page at `/`, as the server gives it; what its script does is tested in a browser elsewhere."""

from __future__ import annotations

import re
from datetime import datetime
from html import unescape
from typing import TYPE_CHECKING

import pytest

from ..support import Bot, Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymate_guard.sandbox import Sandbox

NOT_YET = "\N{EN DASH}"
PARTS = ["summary", "processes", "runs", "faults", "failures", "requests"]
NASTY = "<img src=x onerror=alert(1)>&\"'{0}"


def text(html: str) -> str:
    """Return the words of a piece of HTML."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


@pytest.fixture(name="browser")
def _browser(sandbox: Sandbox) -> Iterator[Bot]:
    browser = Bot(sandbox)
    yield browser
    browser.close()


def part(browser: Bot, name: str, query: str = "") -> str:
    """Return the words of one part of the page."""
    return text(browser.get(f"/page/parts{query}").json[name])


def local(clock: Clock, seconds: float = 0) -> str:
    """Return a time as the page shows it today."""
    return f"{datetime.fromtimestamp(clock.now + seconds).astimezone():%H:%M:%S}"


def test_page_and_parts(browser: Bot, bot: Bot) -> None:
    """The page comes whole, filled with the very parts that its script asks for later."""
    bot.start("invoices")
    page = browser.get("/")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    parts = browser.get("/page/parts").json
    assert list(parts) == PARTS
    for name, html in parts.items():
        assert f'<div id="{name}">{html}</div>' in page.text
    assert browser.get("/?window=60").status == 200


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
    """An empty sandbox says how to point a bot at it, with the address the reader uses."""
    page = browser.get("/", Host="localhost:4711")
    assert '<details class="card setup" open>' in page.text
    shown = unescape(page.text)
    for name, value in browser.sandbox.environ.items():
        here = value.replace(browser.sandbox.url, "http://localhost:4711")
        assert f"export {name}={here}" in shown
        assert f'$env:{name} = "{here}"' in shown
    parts = {name: text(html) for name, html in browser.get("/page/parts").json.items()}
    assert parts == {
        "summary": "Runs 0 Running 0 Entries 0 Time saved 0 s Failures 0",
        "processes": "No bot has called yet. “Point a bot here”, above, has the settings it needs.",
        "runs": "No runs yet.",
        "faults": "Nothing is set to fail.",
        "failures": "No failure was reported.",
        "requests": "No request came yet.",
    }


def test_markup_stays_text(browser: Bot, bot: Bot, sandbox: Sandbox) -> None:
    """Whatever a bot or an address brings is shown as text: keys, messages, bodies, paths, the choice."""
    bot.start(NASTY)
    bot.post("/api/Failure/", {"processKey": NASTY, "message": NASTY * 20})
    bot.get(f"/api/{NASTY.replace(' ', '%20')}")
    sandbox.fail_next("StartRun", process_key=NASTY)
    for path in ("/", f"/?process={NASTY.replace(' ', '%20').replace('&', '%26')}&page={NASTY[:4]}"):
        page = browser.get(path).text
        assert "<img" not in page
        assert text(page).count("<img src=x") >= 5
    assert not browser.get("/").text.count("&amp;lt;")


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        ({}, "2 default 1 min default"),
        ({"overwriteEntries": 3}, "3 override 1 min 30 s by entries"),
        ({"overwriteSecondsSaved": 7200}, "2 default 2 h override"),
        ({"overwriteEntries": 0, "overwriteSecondsSaved": 3723}, "0 override 1 h 02 min override"),
    ],
)
def test_credit(bot: Bot, browser: Bot, sandbox: Sandbox, overrides: dict[str, int], shown: str) -> None:
    """A finished run shows what is credited, and whether by default, by an override, or by the entries."""
    sandbox.set_process("invoices", entries=2, seconds_saved_per_entry=30)
    run_id = bot.start("invoices")
    bot.finish(run_id, **overrides)
    assert part(browser, "runs").endswith(f"invoices {run_id} {local_time(sandbox)} 0 s Finished {shown}")


def local_time(sandbox: Sandbox) -> str:
    """Return when the first run was started, as the page shows it."""
    return f"{datetime.fromisoformat(sandbox.runs()[0]['startedAt']).astimezone():%H:%M:%S}"


def test_credit_by_task(bot: Bot, browser: Bot, sandbox: Sandbox) -> None:
    """A run on a process with tasks is credited by task, and the process shows how many are ready."""
    sandbox.set_process("invoices", tasks_enabled=True)
    bot.post("/api/CreateTask/invoices", {"a": 1})
    bot.post("/api/CreateTask/invoices", {"a": 2})
    assert "invoices 2 tasks" in part(browser, "processes")
    task = bot.get("/api/TakeNext/invoices").json
    assert "invoices Running 1 task" in part(browser, "processes")
    bot.post("/api/Solved/", {"taskId": task["taskId"]})
    bot.finish(task["runId"])
    assert "1 by task 1 min by task" in part(browser, "runs")


def test_outcomes(bot: Bot, browser: Bot, clock: Clock) -> None:
    """A run is running, finished, or has a failure reported: the last run started before the failure came."""
    bot.post("/api/Failure/", {"processKey": "a", "message": "before any run"})
    clock.now += 1
    first = bot.start("a")
    clock.now += 75.2
    bot.finish(first)
    clock.now += 1
    bot.post("/api/Failure/", {"processKey": "a", "message": "of the first"})
    clock.now += 1
    second = bot.start("a")
    third = bot.start("b")
    clock.now += 4
    bot.post("/api/Failure/", {"processKey": "b", "message": "of the third"})
    began, later = local(clock, -81.2), local(clock, -4)
    assert part(browser, "runs").endswith(
        f"b {third} {later} 4 s Running Failure reported {NOT_YET} {NOT_YET} "
        f"a {second} {later} 4 s Running {NOT_YET} {NOT_YET} "
        f"a {first} {began} 1 min 15 s Failure reported 1 default 1 min default"
    )
    assert part(browser, "summary") == "Runs 3 Running 2 Entries 1 Time saved 1 min Failures 3"
    assert part(browser, "failures") == (
        f"b {local(clock)} of the third a {local(clock, -5)} of the first a {local(clock, -82.2)} before any run"
    )


def test_states(bot: Bot, browser: Bot, sandbox: Sandbox) -> None:
    """A process shows its states, its sums, its failure, and the button that changes it."""
    bot.finish(bot.start("invoices"))
    assert part(browser, "processes").endswith("invoices Idle Finished, " + finished(sandbox))
    sandbox.set_process("invoices", stopped=True, blocked_date="2026-12-24")
    bot.start("invoices")
    bot.post("/api/Failure/", {"processKey": "invoices", "message": "broke"})
    shown = part(browser, "processes")
    assert "invoices Running Stopped Failed Blocked on 2026-12-24" in shown
    assert shown.endswith("2 runs, 1 entry, 1 min saved Resume invoices broke")
    bot.get("/api/OkToRun/other")
    assert part(browser, "processes").endswith("other Idle no runs Stop other")


def finished(sandbox: Sandbox) -> str:
    """Return what stands behind a process with one finished run."""
    return f"{local_time(sandbox)} to {local_time(sandbox)}, 0 s 1 run, 1 entry, 1 min saved Stop invoices"


def bars(browser: Bot, query: str = "") -> list[tuple[str, float, float, str]]:
    """Return the bars on the time lines: kind, start and width in percent, and their words."""
    html = browser.get(f"/page/parts{query}").json["processes"]
    found = re.findall(r'<rect class="(\w+)" x="([\d.]+)%" width="([\d.]+)%" [^>]*><title>([^<]*)</title>', html)
    return [(kind, float(start), float(width), words) for kind, start, width, words in found]


def test_time_line(bot: Bot, browser: Bot, clock: Clock) -> None:
    """Runs lie on a common time line by start and duration; one that runs reaches until now."""
    first = bot.start("a")
    clock.now += 50
    bot.finish(first)
    bot.start("b")
    clock.now += 50
    one, two = bars(browser)
    assert one == ("finished", 0, 50, f"Finished, {local(clock, -100)} to {local(clock, -50)}, 50 s")
    assert two == ("running", 50, 50, f"Running, {local(clock, -50)} until now")
    ticks = [local(clock, seconds) for seconds in (-100, -50, 0)]
    assert f"All 1 hour 10 minutes 1 minute {' '.join(ticks)}" in part(browser, "processes")


def test_time_line_of_a_window(bot: Bot, browser: Bot, clock: Clock) -> None:
    """A shorter time line shows the end of it: older runs are left out, one that reaches into it is cut."""
    for duration, pause in ((500, 20), (100, 10), (30, 10)):
        run_id = bot.start("a")
        clock.now += duration
        bot.finish(run_id)
        clock.now += pause
    (older, newer) = bars(browser, "?window=60")
    assert older[1:3] == pytest.approx((0, 100 / 3), abs=0.001)
    assert newer[1:3] == pytest.approx((50, 50))
    assert len(bars(browser)) == 3
    clock.now += 1000  # nothing runs, so nothing moves
    assert bars(browser, "?window=60") == [older, newer]


def test_time_line_of_many_runs(bot: Bot, browser: Bot, clock: Clock) -> None:
    """Short runs stay visible; those that cannot be told apart are one bar, but not across kinds."""
    for number in range(300):
        run_id = bot.start("a")
        clock.now += 0.01
        bot.finish(run_id)
        if number == 150:
            bot.post("/api/Failure/", {"processKey": "a"})
        clock.now += 0.5 if number < 299 else 0
    drawn = bars(browser)
    assert [(kind, words.split(",")[0]) for kind, _, _, words in drawn] == [
        ("finished", "150 runs: Finished"),
        ("finished", "149 runs: Finished"),
        ("failed", "Failure reported"),
    ]
    assert all(width >= 0.5 and start + width <= 100.001 for _, start, width, _ in drawn)
    clock.now += 500
    bot.finish(bot.start("a"))
    assert [words.split(",")[0] for *_, words in bars(browser)] == [
        "299 runs: Finished",
        "Finished",
        "Failure reported",
    ]


def test_short_time_line(bot: Bot, browser: Bot) -> None:
    """One short run does not fill the time line."""
    bot.finish(bot.start("a"))
    ((_, start, width, _),) = bars(browser)
    assert (start, width) == (99.5, 0.5)


def test_thousand_runs(bot: Bot, browser: Bot, clock: Clock) -> None:
    """With 1 000 runs the page stays small: the newest first, page by page, in the chosen process."""
    ids = []
    for number in range(1000):
        ids.append(bot.start("a" if number % 10 else "b"))
        clock.now += 1
        bot.finish(ids[-1])
    assert len(browser.get("/").text) < 100_000

    def shown(query: str) -> list[int]:
        html = browser.get(f"/page/parts{query}").json["runs"]
        return [int(number) for number in re.findall(r'id="run-(\d+)"', html)]

    assert shown("") == ids[:-26:-1]
    assert part(browser, "runs").endswith("1 000 to 976 of 1 000 runs Older")
    assert shown("?page=2") == ids[-26:-51:-1]
    assert part(browser, "runs", "?page=2").endswith("Older")
    assert " Newer " in part(browser, "runs", "?page=2")
    assert shown("?page=40") == shown("?page=4000") == ids[24::-1]
    assert part(browser, "runs", "?page=40").endswith("Newer 25 to 1 of 1 000 runs")
    assert shown("?process=b&page=4") == ids[::10][24::-1]
    assert part(browser, "runs", "?process=b").startswith("Only b . Show all")
    assert part(browser, "runs", "?process=c") == "Only c . Show all No runs yet."
    for nonsense in ("0", "-1", "x", "%C2%B2", "9" * 5000):
        assert shown(f"?page={nonsense}&window={nonsense}") == shown("")


def test_links_keep_the_choice(bot: Bot, browser: Bot) -> None:
    """A link changes one thing that the reader chose and keeps the others."""
    for _ in range(26):
        bot.finish(bot.start("a/b c"))
    parts = browser.get("/page/parts?window=60&process=a/b%20c").json
    links = [unescape(link) for html in parts.values() for link in re.findall(r'href="([^"]*)"', html)]
    assert links == [
        "?process=a%2Fb+c",
        "?window=3600&process=a%2Fb+c",
        "?window=600&process=a%2Fb+c",
        "?window=60&process=a%2Fb+c",
        "?window=60&process=a%2Fb+c",
        "?window=60",
        "?window=60&process=a%2Fb+c&page=2",
    ]
    assert re.findall(r'<a [^>]*aria-current="true">([^<]*)', parts["processes"]) == ["1 minute"]


def test_many_of_everything(bot: Bot, browser: Bot) -> None:
    """More processes, failures and requests than fit are counted, not shown."""
    for number in range(103):
        bot.post("/api/Failure/", {"processKey": f"key {number}", "message": f"failure {number}."})
    assert part(browser, "processes").endswith("key 99 Failed no runs Stop key 99 failure 99. And 3 more.")
    failures = part(browser, "failures")
    assert re.findall(r"failure (\d+)\.", failures) == [str(number) for number in range(102, 92, -1)]
    assert failures.endswith("And 93 before these.")
    assert part(browser, "requests").count("Failure POST") == 40
    assert part(browser, "requests").endswith("The latest 40.")


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ({"operation": "StartRun", "status": 503}, "Next call of StartRun : 503 Service Unavailable"),
        ({"operation": "StartRun", "status": 299}, "Next call of StartRun : 299"),
        (
            {"operation": "*", "status": 429, "times": 3},
            "Next 3 calls of any operation : 429 Too Many Requests",
        ),
        ({"operation": "token", "reset": "after"}, "Next call of token : reset after it counts"),
        ({"operation": "FinishRun", "hang": True, "processKey": "a"}, "Next call of FinishRun for a: hang"),
        ({"operation": "OkToRun", "html": True}, "Next call of OkToRun : html"),
        ({"operation": "OkToRun", "answer": {}}, "Next call of OkToRun : a made-up answer"),
    ],
)
def test_faults(browser: Bot, fault: dict[str, object], shown: str) -> None:
    """What is set to fail is listed."""
    assert browser.post("/sandbox/faults", fault).status == 200
    assert part(browser, "faults").replace(" :", ":") == f"{shown} Let all calls through".replace(" :", ":")


def test_every_fault_of_the_form(browser: Bot) -> None:
    """Each call and each way to fail that the form offers is one the sandbox can do."""
    page = browser.get("/").text
    form = page.split("<form")[1].split("</form>")[0]
    shapes = [unescape(value) for value in re.findall(r"<option value='([^']*)'", form)]
    operations = re.findall(r"<option(?: selected)?>(\w+)<", form)
    assert len(shapes) == 12
    assert len(operations) == 6
    for operation in ["*", *operations]:
        for shape in shapes:
            body = f'{{"operation": "{operation}", "times": 1, {shape[1:]}'.encode()
            assert browser.send("POST", "/sandbox/faults", body, Content_Type="application/json").status == 200


def test_requests(bot: Bot, browser: Bot, sandbox: Sandbox, clock: Clock) -> None:
    """Requests are listed with what was sent and answered: long texts folded, tokens and secrets left out."""
    run_id = bot.start("a")
    bot.get("/api/nonsense")
    bot.post("/api/Failure/", {"processKey": "a", "message": "x" * 200})
    bot.finish(run_id)
    bot.finish(run_id)
    shown = part(browser, "requests")
    now = local(clock)
    assert shown.startswith("Requests, the newest first Time Call Sent Answer Said ")
    finish = f'{now} FinishRun POST /api/FinishRun/ {{"runId": {run_id}}} 200 OK {{"succeeded": '
    assert f'{finish}false, "message": "Run {run_id} is already finished."}}' in shown
    assert f'{finish}true, "message": ""}}' in shown
    assert f"{now} unknown GET /api/nonsense 404 Not Found" in shown
    assert f'{"x" * 56}… {{"processKey": "a", "message": "{"x" * 200}"}}' in shown
    assert f'StartRun GET /api/StartRun/a 200 OK {{"processKey": "a", "runId": {run_id}}}' in shown
    assert shown.endswith("200 OK (a token)")
    assert bot.headers["Authorization"].split()[1] not in browser.get("/").text
    assert "sandbox-password" not in shown
    assert sandbox.requests()[0]["answer"] == "(a token)"


def test_request_without_an_answer(bot: Bot, browser: Bot, sandbox: Sandbox) -> None:
    """A request that got no answer says so."""
    sandbox.fail_next("OkToRun", reset="before")
    with pytest.raises(ConnectionError):
        bot.get("/api/OkToRun/a")
    assert "OkToRun GET /api/OkToRun/a No answer" in part(browser, "requests")


def test_another_day(bot: Bot, browser: Bot, clock: Clock) -> None:
    """A time of another day has its date."""
    bot.finish(bot.start("a"))
    began = datetime.fromtimestamp(clock.now).astimezone()
    clock.now += 100_000
    assert f"{began:%Y-%m-%d %H:%M:%S}" in part(browser, "runs")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0 s"),
        (0.26, "0.3 s"),
        (9, "9 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 01 s"),
        (3600, "1 h"),
        (3_600_060, "1 000 h 01 min"),
    ],
)
def test_durations(bot: Bot, browser: Bot, clock: Clock, seconds: float, shown: str) -> None:
    """A duration reads well, whatever its size."""
    bot.start("a")
    clock.now += seconds
    assert f" {shown} Running" in part(browser, "runs")
