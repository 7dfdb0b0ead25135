"""The calls themselves: what reaches the server, and what comes back."""

from __future__ import annotations

import json
import os
import sys
import threading
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymate_guard import AnymateClient, ApiError, ConfigurationError, Kpis
from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.clients import client_of
from tests.support.proxy import Exchange, FaultProxy
from tests.support.waiting import LONGEST, until

KEYS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).filter(
    lambda key: key.strip() and key not in {".", ".."}
)


def test_start_and_finish(sandbox: Sandbox, client: AnymateClient) -> None:
    """A run is started on its process, and finished with the KPIs that were recorded, rounded half up."""
    run_id = client.start_run("invoice-intake")
    client.finish_run(run_id, Kpis(3, 2.5))
    (run,) = sandbox.runs()
    assert (run["runId"], run["processKey"], run["finished"]) == (run_id, "invoice-intake", True)
    assert (run["overwriteEntries"], run["overwriteSecondsSaved"]) == (3, 3)


@pytest.mark.parametrize(
    ("kpis", "sent"),
    [
        (Kpis(), {}),
        (Kpis(entries=0), {"overwriteEntries": 0}),
        (Kpis(seconds_saved=0.4), {"overwriteSecondsSaved": 0}),
        (Kpis(1, 2), {"overwriteEntries": 1, "overwriteSecondsSaved": 2}),
    ],
)
def test_only_what_was_recorded(sandbox: Sandbox, client: AnymateClient, kpis: Kpis, sent: dict[str, int]) -> None:
    """A recorded 0 is sent as 0, and what was not recorded is not sent."""
    run_id = client.start_run("invoice-intake")
    client.finish_run(run_id, kpis)
    assert json.loads(sandbox.requests()[-1]["body"]) == {"runId": run_id, **sent}


def test_resumed_run(client: AnymateClient) -> None:
    """StartRun on a process with an open run gives that run."""
    assert client.start_run("invoice-intake") == client.start_run("invoice-intake")


def test_failure(sandbox: Sandbox, client: AnymateClient) -> None:
    """Failure reaches people with its message, cut at 4 000 characters."""
    client.failure("invoice-intake", "ä" * 5_000)
    (failure,) = sandbox.failures()
    assert (failure["processKey"], failure["message"]) == ("invoice-intake", "ä" * 4_000)


def test_failure_without_secrets(sandbox: Sandbox, client: AnymateClient) -> None:
    """A message that holds a secret, as an exception's text may, is sent without it."""
    client.start_run("other")
    secrets = [sandbox.environ["ANYMATE_PASSWORD"], sandbox.environ["ANYMATE_CLIENT_SECRET"]]
    client.failure("invoice-intake", f"can't log in with {secrets}")
    assert sandbox.failures()[0]["message"] == "can't log in with ['***', '***']"


def test_ok_to_run(sandbox: Sandbox, client: AnymateClient) -> None:
    """OkToRun gives Anymate's advice and its reasons."""
    assert client.ok_to_run("invoice-intake").ok_to_run
    sandbox.set_process("invoice-intake", stopped=True)
    advice = client.ok_to_run("invoice-intake")
    assert (advice.ok_to_run, advice.gate_open) == (False, False)
    assert (advice.tasks_available, advice.not_blocked_date) == (False, True)


@settings(max_examples=50)
@given(key=KEYS)
def test_any_process_key(sandbox: Sandbox, client: AnymateClient, key: str) -> None:
    """Every key that is allowed reaches the server as one segment of the path, unchanged."""
    client.ok_to_run(key)
    path = sandbox.requests()[-1]["path"]
    prefix, segment = path[: len("/api/OkToRun/")], path[len("/api/OkToRun/") :]
    assert (prefix, unquote(segment)) == ("/api/OkToRun/", key)
    assert "/" not in segment


@pytest.mark.parametrize("key", ["a/b", "a b", "a#b", "a?b", "a%2Fb", "a%b", "Rechnung-äöü-票", "...", "a+b&c=d"])
def test_awkward_process_keys(sandbox: Sandbox, client: AnymateClient, key: str) -> None:
    """Slash, space, #, ?, % and letters of any language are part of the key."""
    client.start_run(key)
    client.failure(key, "boom")
    assert [run["processKey"] for run in sandbox.runs()] == [key]
    assert [failure["processKey"] for failure in sandbox.failures()] == [key]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "process_key: must not be blank, got ''"),
        (" \t", "process_key: must not be blank, got ' \\t'"),
        (".", "process_key: '.' would name another path at the server; use the process's own key"),
        ("..", "process_key: '..' would name another path at the server; use the process's own key"),
        ("a\nb", "process_key: must not hold control characters, got 'a\\nb'"),
        ("a\x85b", "process_key: must not hold control characters, got 'a\\x85b'"),
        (7, "process_key: must be a string, got 7"),
    ],
)
def test_refused_process_keys(sandbox: Sandbox, client: AnymateClient, key: str, message: str) -> None:
    """A key that can't be one segment of a path is refused before anything is sent, by every call."""
    for call in (client.start_run, client.ok_to_run, lambda key: client.failure(key, "boom")):
        with pytest.raises(ConfigurationError) as caught:
            call(key)
        assert str(caught.value) == message
    assert sandbox.requests() == []


@pytest.mark.parametrize("status", [404, 405])
def test_other_route(proxy: FaultProxy, client: AnymateClient, status: int) -> None:
    """A server without the documented route is asked by the one that Anymate's own SDKs call, and that is kept."""
    paths: list[str] = []

    def only_the_other(exchange: Exchange) -> None:
        paths.append(exchange.path.split("/")[2])
        if paths[-1] == "StartRun":
            exchange.answer(status)
        else:
            exchange.answer(*exchange.forward())

    proxy.break_next("StartRun", only_the_other, times=3)
    client.start_run("invoice-intake")
    client.start_run("invoice-intake")
    assert paths == ["StartRun", "StartOrGetRun", "StartOrGetRun"]


def test_unknown_process(proxy: FaultProxy, client: AnymateClient) -> None:
    """A process that neither route knows is an error that names it and what to check."""
    proxy.break_next("StartRun", faults.says(404, {"message": "Not here."}), times=2)
    with pytest.raises(ApiError) as caught:
        client.start_run("invoice-intake")
    assert caught.value.status == 404
    assert caught.value.message == (
        "no process 'invoice-intake' for this mate; check the process key and ANYMATE_API_URL (Not here.)"
    )


def test_refused_start_keeps_its_route(proxy: FaultProxy, client: AnymateClient) -> None:
    """A process that neither route knows does not change the route that is asked first."""
    proxy.break_next("StartRun", faults.status(404), times=2)
    with pytest.raises(ApiError):
        client.start_run("unknown")
    paths: list[str] = []

    def see(exchange: Exchange) -> None:
        paths.append(exchange.path)
        exchange.answer(400)

    proxy.break_next("StartRun", see)
    with pytest.raises(ApiError):
        client.start_run("invoice-intake")
    assert paths == ["/api/StartRun/invoice-intake"]


def test_closed_client(client: AnymateClient, proxy: FaultProxy) -> None:
    """A client that was closed can be used again, with the token that it had."""
    client.start_run("invoice-intake")
    client.close()
    client.close()
    until(lambda: proxy.still_open == 0)
    client.start_run("invoice-intake")
    assert proxy.connections == 2
    assert proxy.calls == ["token", "StartRun", "StartRun"]


def test_closed_during_a_call(client: AnymateClient, proxy: FaultProxy) -> None:
    """A client that is closed by another thread during a call's wait for its next try goes on with it."""

    def close(exchange: Exchange) -> None:
        client.close()
        exchange.answer(503)

    proxy.break_next("StartRun", close)
    assert client.start_run("invoice-intake") > 0


def test_text_form(client: AnymateClient, sandbox: Sandbox) -> None:
    """The text form of a client says where it calls and as whom, and no secret."""
    client.start_run("invoice-intake")
    assert "mate@sandbox" in repr(client)
    assert sandbox.environ["ANYMATE_PASSWORD"] not in repr(client)
    assert sandbox.environ["ANYMATE_CLIENT_SECRET"] not in repr(client)


def test_without_deadline_of_its_own(sandbox: Sandbox) -> None:
    """Each call alone has the deadline of the settings."""
    with client_of(sandbox) as client:
        run_id = client.start_run("invoice-intake")
        client.finish_run(run_id)
        client.failure("invoice-intake", "boom")
        client.ok_to_run("invoice-intake")
    assert [request["status"] for request in sandbox.requests()] == [200] * 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork(sandbox: Sandbox) -> None:
    """A forked child makes connections of its own, with the token that is known, also while its parent is calling."""
    with FaultProxy(sandbox.url) as proxy, client_of(sandbox, proxy.url) as client:
        asked, go_on = threading.Event(), threading.Event()

        def slow(exchange: Exchange) -> None:
            asked.set()
            go_on.wait(LONGEST)
            exchange.answer(*exchange.forward())

        proxy.break_next("OkToRun", slow)
        calling = threading.Thread(target=client.ok_to_run, args=["invoice-intake"])
        calling.start()
        assert asked.wait(LONGEST)
        client.start_run("invoice-intake")  # now one connection is in use, and one is idle
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if client.start_run("invoice-intake") > 0 else 2
            finally:
                sys.stdout.flush()
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        go_on.set()
        calling.join(LONGEST)
        client.start_run("invoice-intake")
        assert proxy.connections == 3
        assert proxy.calls.count("token") == 1
