"""The token: fetched once, renewed in time, and once more when it is refused."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from anymate_guard import AnymateClient, ApiError, AuthenticationError, UnreachableError
from anymate_guard._deadline import Deadline
from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.clients import client_of, one_try
from tests.support.clock import Clock
from tests.support.proxy import Exchange, Fault, FaultProxy
from tests.support.waiting import LONGEST, in_time, until

THREADS = 64


def shortened(life: object) -> Fault:
    """The sandbox's token with another expires_in; None leaves it out."""

    def fault(exchange: Exchange) -> None:
        status, body = exchange.forward()
        answer = {**json.loads(body), "expires_in": life}
        exchange.answer(status, {name: value for name, value in answer.items() if value is not None})

    return fault


@pytest.mark.parametrize(
    ("life", "good_for"),
    [
        (3600, 3300),  # 5 minutes before its end
        (100, 50),  # half its life before its end
        (60.5, 30.25),
        (None, 150),  # a token that doesn't tell is taken to live for 5 minutes
        (0, 150),
        (-1, 150),
        ("3600", 150),
        (True, 150),
        (10**400, 1_000_000_000 - 300),
    ],
    ids=lambda value: str(value)[:12],
)
def test_renewal(client: AnymateClient, proxy: FaultProxy, clock: Clock, life: object, good_for: float) -> None:
    """A token is renewed before its end by 5 minutes or half its life, the smaller of both, and not sooner."""
    proxy.break_next("token", shortened(life))
    client.ok_to_run("invoice-intake")
    clock.ahead = good_for - 1
    client.ok_to_run("invoice-intake")
    assert proxy.calls.count("token") == 1
    clock.ahead = good_for + 1
    client.ok_to_run("invoice-intake")
    assert proxy.calls == ["token", "OkToRun", "OkToRun", "token", "OkToRun"]


def test_opaque_token(client: AnymateClient, proxy: FaultProxy) -> None:
    """A token need not be a JWT, nor have a scope, and unknown fields are passed over."""
    seen: list[str] = []

    def see(exchange: Exchange) -> None:
        seen.append(exchange.header("Authorization"))
        exchange.answer(200, {"processKey": None, "runId": 7, "more": [1, 2]})

    proxy.break_next("token", faults.says(200, {"access_token": "opaque/+=~", "expires_in": 60, "new": {}}))
    proxy.break_next("StartRun", see)
    assert client.start_run("invoice-intake") == 7
    assert seen == ["Bearer opaque/+=~"]


def test_one_login_for_all_threads(client: AnymateClient, proxy: FaultProxy) -> None:
    """64 threads that need a token at the same time make one token request."""
    together = threading.Barrier(THREADS)

    def work(number: int) -> None:
        together.wait(LONGEST)
        client.ok_to_run(f"process-{number}")

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    assert proxy.calls.count("token") == 1


def test_one_login_after_401(sandbox: Sandbox, client: AnymateClient, proxy: FaultProxy) -> None:
    """64 threads whose token is revoked at the same time log in once more, together."""
    client.ok_to_run("invoice-intake")
    sandbox.set_tokens(revoke=True)
    together = threading.Barrier(THREADS)

    def refused_together(exchange: Exchange) -> None:
        together.wait(LONGEST)
        exchange.answer(*exchange.forward())

    proxy.break_next("OkToRun", refused_together, times=THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(client.ok_to_run, ["invoice-intake"] * THREADS))
    assert proxy.calls.count("token") == 2
    assert proxy.calls.count("OkToRun") == 1 + 2 * THREADS


def test_late_401(client: AnymateClient, proxy: FaultProxy) -> None:
    """A thread that hears late that its token was refused takes the one that another thread has got meanwhile."""
    client.start_run("invoice-intake")
    asked, renewed = threading.Event(), threading.Event()

    def refuse_late(exchange: Exchange) -> None:
        asked.set()
        renewed.wait(LONGEST)
        exchange.answer(401)

    proxy.break_next("OkToRun", refuse_late)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(client.ok_to_run, "invoice-intake")
        assert asked.wait(LONGEST)
        proxy.break_next("StartRun", faults.status(401))
        client.start_run("invoice-intake")
        renewed.set()
        assert late.result().ok_to_run
    assert proxy.calls.count("token") == 2


def test_401_with_a_fresh_token(client: AnymateClient, proxy: FaultProxy) -> None:
    """A call that is refused again with a fresh token is an AuthenticationError, after two tries and two logins."""
    proxy.break_next("StartRun", faults.says(401, {"message": "Who are you?"}), times=9)
    with pytest.raises(AuthenticationError) as caught:
        client.start_run("invoice-intake")
    assert (caught.value.operation, caught.value.status) == ("StartRun", 401)
    assert caught.value.message == "a fresh token was refused, too: Who are you?"
    assert proxy.calls == ["token", "StartRun", "token", "StartRun"]


def test_401_token_is_not_kept(client: AnymateClient, proxy: FaultProxy) -> None:
    """A token that was refused is not used again."""
    proxy.break_next("StartRun", faults.status(401), times=2)
    with pytest.raises(AuthenticationError):
        client.start_run("invoice-intake")
    client.start_run("invoice-intake")
    assert proxy.calls[4:] == ["token", "StartRun"]


@pytest.mark.parametrize("name", ["client_id", "client_secret", "username", "password"])
def test_wrong_credentials(sandbox: Sandbox, proxy: FaultProxy, name: str) -> None:
    """Credentials that are refused are an AuthenticationError at once that names the pair of variables to check."""
    with client_of(sandbox, proxy.url, **{name: "wrong"}) as client, pytest.raises(AuthenticationError) as caught:
        client.start_run("invoice-intake")
    pair = "ANYMATE_CLIENT_ID and ANYMATE_CLIENT_SECRET", "ANYMATE_USERNAME and ANYMATE_PASSWORD"
    assert str(caught.value).startswith(
        f'token was refused by Anymate (HTTP 400): check {pair["client" not in name]}: {{"error": "invalid_'
    )
    assert proxy.calls == ["token"]


@pytest.mark.parametrize("error", ["unauthorized_client", None, ["invalid_client"]])
def test_credentials_refused_for_another_reason(sandbox: Sandbox, proxy: FaultProxy, error: object) -> None:
    """Where the refusal names no pair, all four variables are to be checked."""
    proxy.break_next("token", faults.says(400, {"error": error}))
    with client_of(sandbox, proxy.url) as client, pytest.raises(AuthenticationError) as caught:
        client.start_run("invoice-intake")
    everything = "ANYMATE_CLIENT_ID and ANYMATE_CLIENT_SECRET and ANYMATE_USERNAME and ANYMATE_PASSWORD"
    assert f"check {everything}: " in str(caught.value)


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (400, {"error": "invalid_grant"}, AuthenticationError),
        (404, {"error": "not found"}, ApiError),
        (200, {"token_type": "Bearer"}, ApiError),
    ],
)
def test_refused_once_for_all_threads(
    sandbox: Sandbox, proxy: FaultProxy, status: int, answer: object, kind: type[ApiError]
) -> None:
    """Threads that wait for a login hear of its refusal, and don't repeat it: that could lock the account."""
    waiting = threading.Barrier(9)

    def refuse(exchange: Exchange) -> None:
        waiting.wait(LONGEST)
        exchange.pause(0.2)  # until the others wait for the answer
        exchange.answer(status, answer)

    proxy.break_next("token", refuse)
    with client_of(sandbox, proxy.url, password="wrong") as client:

        def work(number: int) -> type[BaseException] | None:
            if number:
                waiting.wait(LONGEST)
            try:
                client.ok_to_run("invoice-intake")
            except ApiError as error:
                return type(error)
            return None

        with ThreadPoolExecutor(9) as pool:
            assert set(pool.map(work, range(9))) == {kind}
        assert proxy.calls == ["token"]
        with pytest.raises(AuthenticationError):  # a later one asks again, as somebody may have put it right
            client.ok_to_run("invoice-intake")
        assert proxy.calls == ["token", "token"]


def test_refusal_that_is_over(client: AnymateClient, proxy: FaultProxy) -> None:
    """Threads that wait for a login that succeeds hear nothing of an earlier refusal."""
    asked, go_on = threading.Event(), threading.Event()

    def slow(exchange: Exchange) -> None:
        asked.set()
        go_on.wait(LONGEST)
        exchange.answer(*exchange.forward())

    proxy.break_next("token", faults.in_turn(faults.status(400), slow), times=2)
    with pytest.raises(AuthenticationError):
        client.ok_to_run("invoice-intake")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.ok_to_run, "invoice-intake")
        assert asked.wait(LONGEST)
        second = pool.submit(client.ok_to_run, "invoice-intake")
        until(second.running)
        go_on.wait(0.1)  # until the second one waits for the login
        go_on.set()
        assert (first.result().ok_to_run, second.result().ok_to_run) == (True, True)
    assert proxy.calls.count("token") == 2


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"access_token": None},
        {"access_token": 7},
        {"access_token": ""},
        {"access_token": " "},
        {"access_token": "two\r\nlines"},
        {"access_token": "tokén"},
        {"token": "misnamed"},
    ],
)
def test_unusable_token(client: AnymateClient, proxy: FaultProxy, answer: dict[str, object]) -> None:
    """An answer without a token that can be sent in a header is an ApiError, which quotes none of it."""
    proxy.break_next("token", faults.says(200, answer))
    with pytest.raises(ApiError) as caught:
        client.start_run("invoice-intake")
    assert (caught.value.operation, caught.value.status) == ("token", 200)
    assert caught.value.message == "the answer has no usable access_token; check ANYMATE_AUTH_URL"


@pytest.mark.parametrize(
    "body", ['{"access_token": "hush-hush"', "access_token=hush-hush", '["hush-hush"]', "hush-hush"]
)
def test_unreadable_token(client: AnymateClient, proxy: FaultProxy, body: str) -> None:
    """A token answer that can't be read is never quoted, as there may be a token in it."""
    proxy.break_next("token", faults.says(200, body), times=99)
    with pytest.raises(UnreachableError) as caught:
        client.start_run("invoice-intake", deadline=one_try())
    assert caught.value.reason == f"HTTP 200 that can't be read: an answer of {len(body)} bytes"


def test_token_elsewhere(client: AnymateClient, proxy: FaultProxy) -> None:
    """A token server that redirects is an ApiError of its own."""
    proxy.break_next("token", faults.redirect)
    with pytest.raises(ApiError, match=r"token was refused by Anymate .HTTP 307.: redirected to http://127.0.0.1:9/"):
        client.start_run("invoice-intake")


def test_no_token_in_time(client: AnymateClient, proxy: FaultProxy) -> None:
    """A thread that waits for another one's login gives up at its own deadline."""
    proxy.break_next("token", faults.silence, times=99)

    def work(seconds: float) -> UnreachableError:
        with in_time(), pytest.raises(UnreachableError) as caught:
            client.ok_to_run("invoice-intake", deadline=Deadline.after(seconds))
        return caught.value

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(work, 3)
        until(lambda: proxy.calls)
        second = pool.submit(work, 0.5)
    assert second.result().reason == "another thread did not get one in time either"
    assert [error.operation for error in (first.result(), second.result())] == ["token", "token"]
    assert not any(error.maybe_sent for error in (first.result(), second.result()))


def test_login_fails_after_401(client: AnymateClient, proxy: FaultProxy) -> None:
    """An error of the second login tells whether the call itself may have been done by an earlier try."""
    run_id = client.start_run("invoice-intake")

    def done_but_lost(exchange: Exchange) -> None:
        proxy.break_next("FinishRun", faults.status(401), times=9)
        proxy.break_next("token", faults.status(403), times=9)
        faults.reset_after(exchange)

    proxy.break_next("FinishRun", done_but_lost)
    with pytest.raises(AuthenticationError) as caught:
        client.finish_run(run_id)
    assert (caught.value.operation, caught.value.status, caught.value.maybe_sent) == ("token", 403, True)
