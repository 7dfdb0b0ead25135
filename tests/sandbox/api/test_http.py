"""Addresses, keys and bodies."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ..support import Bot, examples

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda key: key.strip())


@examples
@given(key=KEYS)
@example("a/b c?d#e%2Ff")
@example("Rechnungen/Ä & ☃")
@example("//")
@example("..")
@example("a+b")
def test_keys(bot: Bot, key: str) -> None:
    """Any process key, percent-encoded as one path segment, comes back as it was, also with a slash."""
    path = f"/api/StartRun/{quote(key, safe='')}"
    assert bot.get(path).json["processKey"] == key
    assert bot.get(f"{path}/").json["processKey"] == key
    assert bot.send("PUT", f"/sandbox/processes/{quote(key, safe='')}", {}).json["processKey"] == key
    assert bot.sandbox.requests()[-1]["path"] == f"{path}/"


@pytest.mark.parametrize("path", ["/api/StartRun", "/api/StartRun/", "/api/StartRun//", "/api/StartRun/%20%09"])
def test_blank_key(bot: Bot, path: str) -> None:
    """A blank process key is answered 404."""
    assert bot.get(path).status == 404
    assert bot.sandbox.processes() == []


def test_key_that_is_no_text(bot: Bot) -> None:
    """A key that is not UTF-8 is answered 400."""
    assert bot.get("/api/StartRun/%FF").status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/nonsense",
        "/page/nonsense",
        "/page/page.html",
        "/api",
        "/api/",
        "/api/Nonsense/x",
        "/api/StartRun/a/b",
        "/api/StartRun/a//",
        "/api/FinishRun/5",
        "/apimate/StartRun/x",
    ],
)
def test_unknown_routes(bot: Bot, path: str) -> None:
    """What is not there is answered 404, as JSON with a message."""
    answer = bot.get(path)
    assert answer.status == 404
    assert answer.json["message"]


def test_unknown_routes_are_listed(bot: Bot) -> None:
    """A call to an unknown route is in the list of requests, without an operation."""
    bot.get("/api/StartRun/a/b")
    seen = bot.sandbox.requests()[-1]
    assert (seen["operation"], seen["path"], seen["status"]) == (None, "/api/StartRun/a/b", 404)


def test_query(bot: Bot) -> None:
    """A query is not part of the key."""
    assert bot.get("/api/StartRun/invoices?verbose=1").json["processKey"] == "invoices"


def test_absolute_target(bot: Bot) -> None:
    """A request target that names the whole address, as proxies get it, works too."""
    assert bot.get(f"{bot.sandbox.url}/api/StartRun/a%2Fb").json["processKey"] == "a/b"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b'{"runId": 1, "note": NaN}',
        b'{"runId": 1}x',
        b"\xff",
        b"[" * 100_000,
        b'{"runId": 1' + b"0" * 5000 + b"}",
    ],
)
def test_bad_json(bot: Bot, body: bytes) -> None:
    """A body that is no JSON object is answered 400, and the connection lives on."""
    assert bot.post("/api/FinishRun/", body).status == 400
    assert bot.get("/api/OkToRun/invoices").status == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_media_type(bot: Bot, content_type: str) -> None:
    """A body that does not say it is JSON is answered 415."""
    assert bot.post("/api/FinishRun/", {"runId": 1}, Content_Type=content_type).status == 415
    assert bot.post("/api/CreateTask/invoices", {}, Content_Type=content_type).status == 415


def test_media_type_with_charset(bot: Bot) -> None:
    """A charset beside the media type does no harm."""
    answer = bot.post("/api/FinishRun/", {"runId": 1}, Content_Type="application/json; charset=utf-8")
    assert answer.status == 200


def test_body_of_a_get(bot: Bot) -> None:
    """A body that comes with a GET is ignored."""
    answer = bot.send("GET", "/api/StartRun/invoices", b"whatever", Content_Type="text/plain")
    assert answer.status == 200


@pytest.mark.parametrize("path", ["/api/FinishRun/", "/sandbox/faults"])
def test_large_body(bot: Bot, path: str) -> None:
    """A body over 1 MiB is answered 413, and the connection lives on; one of 1 MiB is read."""
    fits = b'{"runId": 1, "operation": "' + b"x" * 2**20
    assert bot.post(path, fits[: 2**20]).status == 400
    assert bot.post(path, fits).status == 413
    assert bot.get("/api/OkToRun/invoices").status == 200


def test_large_chunked_body(bot: Bot) -> None:
    """A body over 1 MiB that does not tell its length is answered 413, and the connection lives on."""
    bot.connection.request("POST", "/api/FinishRun/", iter([b"x" * 2**16] * 20), encode_chunked=True)
    with bot.connection.getresponse() as response:
        assert response.status == 413
        response.read()
    assert bot.get("/api/OkToRun/invoices").status == 200


def test_chunked_body(bot: Bot) -> None:
    """A chunked body is read like any other."""
    run_id = bot.start()
    headers = {**bot.headers, "Content-Type": "application/json"}
    body = iter([b'{"runId": ', str(run_id).encode(), b"}"])
    bot.connection.request("POST", "/api/FinishRun/", body, headers, encode_chunked=True)
    with bot.connection.getresponse() as response:
        assert response.status == 200
        response.read()
    assert bot.sandbox.runs()[0]["finished"] is True
