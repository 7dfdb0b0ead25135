"""What a developer sees and does on the page while a bot runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from anymate_guard import AnymateClient, NotOkToRun, Settings, anymate_run

from .bots import Journal

if TYPE_CHECKING:
    from anymate_guard.sandbox import Sandbox

    from .support import Reader

NASTY = "<img src=x onerror=\"document.title='gone'\"><b>&amp;</b>'"


def test_run_appears(reader: Reader) -> None:
    """A bot's run appears without a reload, as running while it runs, then with what was credited."""
    reader.reads("runs", "No runs yet.")
    with anymate_run("invoice-intake") as run:
        reader.reads("runs", f"invoice-intake {run.run_id} Running")
        reader.reads("processes", "invoice-intake Running")
        assert reader.one("#processes rect.running")
        run.add_entries(3)
        run.add_seconds_saved(90)
    reader.reads("runs", f"invoice-intake {run.run_id} Finished", "3 override 1 min 30 s override")
    reader.reads("summary", "Runs 1 Running 0 Entries 3 Time saved 1 min 30 s Failures 0")
    assert reader.one("#processes rect.finished")


def test_failure_appears(reader: Reader) -> None:
    """A reported failure appears at its run, its process and among the notifications."""
    with pytest.raises(ValueError, match="negative"), anymate_run("invoice-intake", report_failure=True):
        raise ValueError("negative total")
    reader.reads("failures", "invoice-intake", "ValueError: negative total")
    reader.reads("runs", "Failed", "1 default 1 min default")
    reader.reads("processes", "invoice-intake Failed")
    reader.one("#processes a").click()
    reader.reads("processes", "ValueError: negative total")


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
    reader.reads("runs", "Finished", "2 override")


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
    tab_to("stop-invoice-intake")
    reader.press(Keys.ENTER)
    reader.reads("processes", "Stopped", "Resume")
    assert reader.focused()["id"] == "stop-invoice-intake"
    with anymate_run("another", check_ok_to_run=True):
        reader.reads("processes", "another Running")
    assert reader.focused()["id"] == "stop-invoice-intake"
    reader.press(Keys.SPACE)
    reader.reads("processes", "Idle")
    tab_to("find")
    reader.press("another")
    reader.until(lambda: len(reader.all(".processes tbody tr")) == 1)
    reader.press(Keys.TAB, Keys.ENTER)
    reader.reads("runs", "Runs of another")
    assert reader.focused()["text"] == "another"
    reader.press(Keys.TAB, Keys.TAB)
    assert reader.focused()["name"] == "mode"
    reader.press("A", Keys.TAB, "20", Keys.TAB, "30", Keys.ENTER)
    reader.reads("said", "The settings of another are saved.")
    tab_to("operation")
    reader.press("Start")
    reader.press(Keys.TAB, "500")
    reader.press(Keys.TAB, Keys.ARROW_UP, Keys.ENTER)
    reader.reads("faults", "Next 2 calls of StartRun: 500 Internal Server Error")
    assert sandbox.processes()[1]["entries"] == 20
    assert sandbox.processes()[1]["secondsSavedPerEntry"] == 30
    assert sandbox.faults() == [{"operation": "StartRun", "status": 500, "times": 2}]


def test_names_for_those_who_listen(reader: Reader, sandbox: Sandbox) -> None:
    """Every control has a name of its own, sections have headings, and only one quiet line speaks up."""
    sandbox.show_journal(Journal())
    for key in ("one", "two"):
        with anymate_run(key):
            pass
    reader.open("/?process=one")
    reader.run("document.querySelector('.setup').open = true")
    controls = [control for control in reader.all("button, select, input, pre") if control.is_displayed()]
    names = [control.accessible_name for control in controls]
    assert all(names)
    assert {"Stop one", "Stop two", "Call", "How", "Times", "Make it fail", "Blocked date", "Reset"} <= set(names)
    assert {"Copy the address", "Copy the settings for PowerShell", "Filter processes and runs by name"} <= set(names)
    assert [section.accessible_name for section in reader.all("section")] == [
        "one over time",
        "Processes",
        "Runs of one",
        "Make the next call fail",
        "Failure notifications",
        "Journal of this machine",
        "Requests",
    ]
    assert reader.one(".lane").accessible_name == "Time line of one"
    assert reader.one(".chart").accessible_name == "Time saved over time: 1 min"
    assert [live.get_attribute("id") for live in reader.all("[role=status], [role=alert], [aria-live]")] == ["said"]


def test_settings(reader: Reader, sandbox: Sandbox) -> None:
    """KPI defaults and the blocked date of a process can be changed, in both modes; what is refused is said."""
    with anymate_run("invoice-intake"):
        pass
    reader.one(".processes a").click()
    form = reader.one(".settings")
    assert [label.text.splitlines()[0] for label in reader.all(".settings label") if label.is_displayed()] == [
        "KPIs",
        "Seconds saved per run",
        "Blocked date",
    ]
    Select(form.find_element("name", "mode")).select_by_value("advanced")
    assert [label.text.splitlines()[0] for label in reader.all(".settings label") if label.is_displayed()] == [
        "KPIs",
        "Entries per run",
        "Seconds saved per entry",
        "Blocked date",
    ]
    reader.run(
        "const { entries, seconds, blocked } = document.querySelector('.settings').elements;"
        "entries.value = 7; seconds.value = 30; blocked.value = '2026-12-24'"
    )
    form.find_element("css selector", "[type=submit]").click()
    reader.reads("said", "The settings of invoice-intake are saved.")
    reader.reads("processes", "Blocked 2026-12-24")
    with anymate_run("invoice-intake"):
        pass
    reader.reads("runs", "7 default 3 min 30 s default")
    reader.provoke("400 (BAD REQUEST)")
    reader.run("document.querySelector('.settings').elements.seconds.value = ''")
    form.find_element("css selector", "[type=submit]").click()
    reader.reads("said", "secondsSavedPerEntry has to be an integer")
    assert sandbox.processes()[0]["secondsSavedPerEntry"] == 30


def test_settings_of_another_process(reader: Reader) -> None:
    """What was typed for one process does not appear in the settings of another."""
    for key in ("one", "two"):
        with anymate_run(key):
            pass
    reader.one("#process-one a").click()
    reader.one("#settings-one [name=seconds]").send_keys("9")
    reader.one("#process-two a").click()
    assert reader.one("#settings-two [name=seconds]").get_attribute("value") == "60"


def test_details_of_a_run(reader: Reader) -> None:
    """A run's number opens its requests and failure, and closes them again, with the focus where it was."""
    with pytest.raises(ValueError, match="no VAT"), anymate_run("invoice-intake", report_failure=True) as run:
        run.add_entries(3)
        raise ValueError("no VAT number")
    name = f"run-{run.run_id}-details"
    reader.one(f"#run-{run.run_id} a").click()
    reader.one(f"#{name}")
    details = reader.text(name)
    assert "Reported entries 3 Reported time saved" in details
    assert "ValueError: no VAT number Requests" in details
    assert [word for word in details.split() if word in {"Failure", "FinishRun", "StartRun"}] == [
        "Failure",
        "FinishRun",
        "StartRun",
    ]
    assert reader.focused()["text"] == str(run.run_id)
    assert reader.one(f"#run-{run.run_id} a").get_attribute("aria-expanded") == "true"
    reader.press(Keys.ENTER)
    reader.until(lambda: not reader.all(f"#{name}"))


def test_token_calls(reader: Reader) -> None:
    """Token calls are hidden unless they are asked for."""
    with anymate_run("invoice-intake"):
        pass
    reader.reads("requests", "FinishRun POST")
    assert "token" not in reader.text("requests")
    reader.one("#tokens a").click()
    reader.reads("requests", "token POST /connect/token")
    reader.one("#tokens a").click()
    reader.until(lambda: "token" not in reader.text("requests"))


def test_journal(reader: Reader, sandbox: Sandbox) -> None:
    """The journal of the machine, if there is one, shows what it owes, and a button delivers it."""
    assert not reader.one("#journal").is_displayed()
    sandbox.show_journal(Journal())
    reader.reads("journal", "invoice-intake 17955347591234 Open 41 s 12 5 min 40 s")
    reader.reads("journal", "payroll-export – Owed 1 h 06 min 3 – StartRun: connection refused")
    reader.one("#deliver").click()
    reader.reads("said", "1 delivered, 0 still owed.")
    reader.until(lambda: "Owed" not in reader.text("journal"))
    assert not reader.one("#deliver").is_enabled()
    reader.open()
    assert "Refused" in reader.text("journal")


def test_copy(reader: Reader) -> None:
    """Copy puts the text beside it on the clipboard, as it is."""
    permission = {"origin": reader.address, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    reader.driver.execute_cdp_cmd("Browser.grantPermissions", permission)
    assert copied(reader, "header .copy") == reader.address
    lines = copied(reader, ".setup .copy").splitlines()
    assert lines[0] == "export ANYMATE_CLIENT_ID='sandbox'"
    assert len(lines) == 6
    with pytest.raises(ValueError, match="x"), anymate_run("first", report_failure=True):
        raise ValueError("x" * 200)
    reader.one("#failures summary").click()
    assert copied(reader, "#failures .copy") == f"ValueError: {'x' * 200}"


def copied(reader: Reader, button: str) -> str:
    """Press a button and return what is on the clipboard."""
    reader.run("document.querySelector('#said').textContent = ''")
    reader.one(button).click()
    reader.reads("said", "Copied.")
    text: str = reader.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    return text


def test_copy_that_is_not_allowed(reader: Reader) -> None:
    """A browser that forbids copying is quoted to the reader."""
    reader.run("navigator.clipboard.writeText = () => Promise.reject()")
    reader.one("header .copy").click()
    reader.reads("said", "The browser does not let the page copy.")


def test_focus_follows(reader: Reader) -> None:
    """A process that moves up, as it runs now, keeps the focus that it has."""
    for key in ("a", "b", "c"):
        with anymate_run(key):
            pass
    reader.reads("processes", "c Idle")
    reader.run("document.querySelector('#stop-b').focus()")
    with anymate_run("b"):
        reader.until(lambda: reader.one(".processes tbody a").text == "b")
        assert reader.focused()["id"] == "stop-b"
    with anymate_run("c"):
        reader.until(lambda: reader.one(".processes tbody a").text == "c")
        assert reader.focused()["id"] == "stop-b"


def test_what_the_reader_does_stays(reader: Reader) -> None:
    """An update leaves open what is open, and keeps the selection and what is typed in the form."""
    with pytest.raises(ValueError, match="x"), anymate_run("first", report_failure=True):
        raise ValueError("x" * 200)
    reader.reads("requests", "Failure POST")
    folded = reader.one("#requests details")
    folded.find_element("css selector", "summary").click()
    reader.one("#times").send_keys("7")
    reader.run("getSelection().selectAllChildren(document.querySelector('#failures .failed-text'))")
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
    """Reset asks first, then forgets everything."""
    with anymate_run("invoice-intake"):
        pass
    reader.reads("runs", "Finished")
    reader.one("#reset").click()
    question = reader.driver.switch_to.alert
    assert question.text == "Forget all runs, failures, requests and settings of processes?"
    question.dismiss()
    assert len(sandbox.runs()) == 1
    reader.one("#reset").click()
    reader.driver.switch_to.alert.accept()
    reader.reads("said", "Everything is forgotten.")
    reader.reads("runs", "No runs yet.")
    reader.reads("processes", "No bot has called yet.")
    assert sandbox.runs() == []
