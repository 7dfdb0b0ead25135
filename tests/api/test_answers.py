"""Odd answers: each is a result, or an error of ours that quotes them without secrets."""

from __future__ import annotations

import html
import json
import pickle
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymate_guard import AnymateClient, AnymateGuardError, ApiError, UnreachableError
from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.clients import client_of, one_try
from tests.support.proxy import Exchange, FaultProxy

AWKWARD = "p&a\"s's <w>\\ö/r😀d+%41;"


def ask_once(client: AnymateClient, operation: str) -> object:
    """Make one try of a call."""
    deadline = one_try()
    calls: dict[str, Any] = {
        "StartRun": lambda: client.start_run("invoice-intake", deadline=deadline),
        "OkToRun": lambda: client.ok_to_run("invoice-intake", deadline=deadline),
        "FinishRun": lambda: client.finish_run(1, deadline=deadline),
        "Failure": lambda: client.failure("invoice-intake", "boom", deadline=deadline),
    }
    return calls[operation]()


@pytest.mark.parametrize(
    "answer",
    [
        {"processKey": None, "runId": 7},
        {"runId": 7, "new": {"deep": [None]}, "succeeded": True, "message": None},
        {"runId": 7, "message": "Hello."},
    ],
)
def test_odd_but_fine(client: AnymateClient, proxy: FaultProxy, answer: object) -> None:
    """A processKey or message that is null and fields that are new are fine."""
    proxy.break_next("StartRun", faults.says(200, answer))
    assert client.start_run("invoice-intake") == 7
    proxy.break_next("FinishRun", faults.says(200, {"succeeded": True, "message": None, "new": 1}))
    client.finish_run(7)


@pytest.mark.parametrize("run_id", [0, -1, None, "7", 7.0, True, [7], 1 << 63, 10**400])
def test_unusable_run_id(client: AnymateClient, proxy: FaultProxy, run_id: object) -> None:
    """A runId that is no whole number from 1, or larger than any id, is an ApiError that quotes the answer."""
    proxy.break_next("StartRun", faults.says(200, {"runId": run_id}))
    with pytest.raises(ApiError) as caught:
        client.start_run("invoice-intake")
    assert (caught.value.operation, caught.value.status) == ("StartRun", 200)
    assert caught.value.message.startswith(f"the answer has no usable runId: {json.dumps({'runId': run_id})}"[:200])


def test_missing_run_id(client: AnymateClient, proxy: FaultProxy) -> None:
    """An answer without runId is an ApiError that quotes its first 200 characters."""
    proxy.break_next("StartRun", faults.says(200, {"text": "x" * 500}))
    with pytest.raises(ApiError) as caught:
        client.start_run("invoice-intake")
    assert caught.value.message == f'the answer has no usable runId: {{"text": "{"x" * 190}…'


@pytest.mark.parametrize("operation", ["StartRun", "OkToRun", "FinishRun", "Failure"])
@pytest.mark.parametrize(
    ("message", "quoted"),
    [
        ("Not today.", "Not today."),
        (None, '{"succeeded": false, "message": null}'),
        (" ", '{"succeeded": false, "message": " "}'),
        ("x" * 500, "x" * 200 + "…"),
        ("two\r\nlines\x1b[0m", "two lines [0m"),
    ],
)
def test_not_succeeded(client: AnymateClient, proxy: FaultProxy, operation: str, message: str, quoted: str) -> None:
    """`succeeded: false` is an ApiError with what was said, on one line."""
    proxy.break_next(operation, faults.says(200, {"succeeded": False, "message": message}))
    with pytest.raises(ApiError) as caught:
        ask_once(client, operation)
    assert str(caught.value) == f"{operation} was refused by Anymate (HTTP 200): succeeded is false: {quoted}"


@pytest.mark.parametrize("operation", ["FinishRun", "Failure"])
@pytest.mark.parametrize("answer", [{}, {"succeeded": None}, {"succeeded": 1}, {"succeeded": "true"}])
def test_acknowledgement_that_says_nothing(
    client: AnymateClient, proxy: FaultProxy, operation: str, answer: object
) -> None:
    """An acknowledgement that does not say whether it succeeded is none."""
    proxy.break_next(operation, faults.says(200, answer))
    with pytest.raises(UnreachableError, match="HTTP 200 that can't be read"):
        ask_once(client, operation)


@pytest.mark.parametrize(
    "answer", [{}, {"okToRun": True}, {"okToRun": 1, "gateOpen": 1, "tasksAvailable": 1, "notBlockedDate": 1}]
)
def test_advice_that_says_nothing(client: AnymateClient, proxy: FaultProxy, answer: object) -> None:
    """Advice without its four yes or no is an ApiError."""
    proxy.break_next("OkToRun", faults.says(200, answer))
    with pytest.raises(ApiError, match="the answer is not four yes or no: "):
        client.ok_to_run("invoice-intake")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("operation", ["StartRun", "OkToRun", "FinishRun", "Failure"])
def test_redirect(client: AnymateClient, proxy: FaultProxy, operation: str, status: int) -> None:
    """A redirect is never followed, and the error names its target."""
    proxy.break_next(operation, faults.status(status, Location=f"{proxy.url}/login?next=here"))
    with pytest.raises(ApiError) as caught:
        ask_once(client, operation)
    assert caught.value.status == status
    assert caught.value.message == (
        f"redirected to {proxy.url}/login?next=here; redirects are not followed, as they turn a POST into a GET: "
        "set ANYMATE_API_URL and ANYMATE_AUTH_URL to the address that answers"
    )
    assert proxy.calls == ["token", operation]


def test_redirect_to_nowhere(client: AnymateClient, proxy: FaultProxy) -> None:
    """A redirect without a target is an error, too."""
    proxy.break_next("StartRun", faults.status(304))
    with pytest.raises(ApiError, match="redirected to nowhere"):
        client.start_run("invoice-intake")


def test_error_without_a_body(client: AnymateClient, proxy: FaultProxy) -> None:
    """An error answer that says nothing is quoted as such."""
    proxy.break_next("StartRun", faults.says(403, b""))
    with pytest.raises(ApiError) as caught:
        client.start_run("invoice-intake")
    assert str(caught.value) == "StartRun was refused by Anymate (HTTP 403): an empty answer"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
NAMES = ["runId", "succeeded", "message", "okToRun", "gateOpen", "tasksAvailable", "notBlockedDate", "access_token"]
BODIES = st.binary(max_size=200) | st.dictionaries(st.sampled_from(NAMES), JSON_VALUES | st.booleans()).map(
    lambda answer: json.dumps(answer).encode()
)


@settings(max_examples=150)
@given(
    operation=st.sampled_from(["token", "StartRun", "OkToRun", "FinishRun", "Failure"]),
    status=st.sampled_from([200, 200, 201, 204, 400, 401, 403, 404, 500]) | st.integers(200, 599),
    body=BODIES,
)
def test_any_answer(sandbox: Sandbox, proxy: FaultProxy, operation: str, status: int, body: bytes) -> None:
    """Whatever a server answers, a call gives its result or raises an error of ours that can be pickled."""
    proxy.break_next(operation, faults.says(status, b"" if status == 204 else body))
    with client_of(sandbox, proxy.url) as client:
        error, result = None, None
        try:
            result = ask_once(client, "StartRun" if operation == "token" else operation)
        except AnymateGuardError as raised:
            error = raised
        if error is None:
            assert operation == "token" or status in {401, 404, 405} or status < 300
            assert operation != "StartRun" or type(result) is int
        else:
            copy = pickle.loads(pickle.dumps(error))
            assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
            assert "\n" not in str(error)
    proxy.heal()


@settings(max_examples=60)
@given(junk=st.binary(min_size=1, max_size=300), framed=st.booleans())
def test_any_bytes(client: AnymateClient, proxy: FaultProxy, junk: bytes, framed: bool) -> None:
    """Bytes that are no HTTP, or begin like it, are an error of ours, too."""
    proxy.break_next("OkToRun", faults.sends((b"HTTP/1.1 200 OK\r\n" if framed else b"") + junk))
    with pytest.raises(UnreachableError):
        ask_once(client, "OkToRun")


def spellings(secret: str) -> list[str]:
    """How a server may echo a secret."""
    return [
        secret,
        quote(secret),
        quote_plus(secret),
        quote(secret, safe="").lower() if secret.islower() else quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
        repr(secret)[1:-1],
        repr(quote_plus(secret).encode()),
    ]


@pytest.mark.parametrize("name", ["password", "client_secret"])
@pytest.mark.parametrize("number", range(len(spellings(AWKWARD))))
def test_echoed_secret(sandbox: Sandbox, proxy: FaultProxy, name: str, number: int) -> None:
    """A secret that is echoed in an answer is masked where the answer is quoted, however it is spelled."""
    echo = spellings(AWKWARD)[number]
    proxy.break_next("token", faults.says(418, f"you said {echo}, twice: {echo}."))
    with client_of(sandbox, proxy.url, **{name: AWKWARD}) as client, pytest.raises(ApiError) as caught:
        client.start_run("invoice-intake")
    assert caught.value.message in {"you said ***, twice: ***.", "you said b'***', twice: b'***'."}


@settings(max_examples=100)
@given(secret=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=8).filter(str.strip))
def test_any_echoed_secret(sandbox: Sandbox, proxy: FaultProxy, secret: str) -> None:
    """Any secret, in any spelling, is masked."""
    echoes = spellings(secret)
    proxy.break_next("token", faults.says(418, " | ".join(echoes)))
    with client_of(sandbox, proxy.url, password=secret) as client, pytest.raises(ApiError) as caught:
        client.start_run("invoice-intake")
    assert caught.value.message.replace("b'***'", "***") == " | ".join(["***"] * len(echoes))


def test_echoed_token(client: AnymateClient, proxy: FaultProxy) -> None:
    """A token that is echoed in an answer is masked, also when another thread has got a newer one meanwhile."""
    run_id = client.start_run("invoice-intake")
    (token,) = proxy.tokens

    def revoked_meanwhile(exchange: Exchange) -> None:
        proxy.break_next("OkToRun", faults.status(401))
        client.ok_to_run("invoice-intake")
        exchange.answer(403, f"not with {token}")

    proxy.break_next("FinishRun", revoked_meanwhile)
    with pytest.raises(ApiError) as caught:
        client.finish_run(run_id)
    assert caught.value.message == "not with ***"
    assert len(set(proxy.tokens)) == 2


@pytest.mark.parametrize(
    "head",
    [
        "{echo} 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{echo}\r\n",
        "HTTP/1.1 {echo}\r\n\r\n",
    ],
    ids=["status line", "chunk size", "status"],
)
def test_echo_in_the_frame(sandbox: Sandbox, proxy: FaultProxy, head: str) -> None:
    """A secret that is echoed outside of a body is masked, too."""
    password = sandbox.environ["ANYMATE_PASSWORD"]
    proxy.break_next("token", faults.sends(head.replace("{echo}", password).encode()))
    with client_of(sandbox, proxy.url) as client, pytest.raises(UnreachableError) as caught:
        client.start_run("invoice-intake", deadline=one_try())
    assert password not in str(caught.value)
    assert ("***" in str(caught.value)) is ("chunked" not in head)  # of which http.client quotes nothing


def test_echo_in_the_target(client: AnymateClient, sandbox: Sandbox, proxy: FaultProxy) -> None:
    """A secret in a redirect's target is masked."""
    secret = sandbox.environ["ANYMATE_CLIENT_SECRET"]
    proxy.break_next("token", faults.status(302, Location=f"/login?client_secret={secret}"))
    with pytest.raises(ApiError, match=r"redirected to /login\?client_secret=\*\*\*;"):
        client.start_run("invoice-intake")


def test_secret_at_the_cut(sandbox: Sandbox, proxy: FaultProxy) -> None:
    """A secret at the 200th character is masked before the text is cut."""
    password = sandbox.environ["ANYMATE_PASSWORD"]
    proxy.break_next("token", faults.says(418, "x" * 195 + password))
    with client_of(sandbox, proxy.url) as client, pytest.raises(ApiError) as caught:
        client.start_run("invoice-intake")
    assert caught.value.message == "x" * 195 + "***"
