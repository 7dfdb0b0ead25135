"""Who gets in, and for how long."""

from __future__ import annotations

import base64
import json

import pytest

from anymate_guard.sandbox import Sandbox

from ..support import FORM, Bot, Clock


def test_login(stranger: Bot) -> None:
    """The right credentials give exactly the four fields that the official SDKs can take."""
    answer = stranger.ask_token()
    assert answer.status == 200
    assert set(answer.json) == {"access_token", "expires_in", "token_type", "scope"}
    assert answer.json["expires_in"] == 3600
    assert answer.json["token_type"] == "Bearer"


def test_claims(stranger: Bot, clock: Clock) -> None:
    """A token is a JWT with an integer exp, audience apimate and the two claims that SDKs look for."""
    payload = stranger.ask_token().json["access_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["exp"] == int(clock.now) + 3600
    assert claims["aud"] == "apimate"
    assert claims["auth.anymate.app/CustomerKey"] == stranger.sandbox.environ["ANYMATE_CLIENT_ID"]
    assert "auth.anymate.app/UserType" in claims


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("client_id", "other", "invalid_client"),
        ("client_secret", "wrong", "invalid_client"),
        ("username", "nobody", "invalid_grant"),
        ("password", "wrong", "invalid_grant"),
        ("grant_type", "client_credentials", "unsupported_grant_type"),
    ],
)
def test_wrong_login(stranger: Bot, field: str, value: str, error: str) -> None:
    """Wrong credentials are answered 400 with the error code an identity server gives."""
    answer = stranger.ask_token(**{field: value})
    assert (answer.status, answer.json) == (400, {"error": error})


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_login_wants_a_form(stranger: Bot, content_type: str) -> None:
    """A token request that is no form is refused, and its body, which may hold secrets, is not listed."""
    answer = stranger.post("/connect/token", stranger.login_form(), Content_Type=content_type)
    assert (answer.status, answer.json) == (400, {"error": "invalid_request"})
    assert stranger.sandbox.requests()[0]["body"] == "(not a form)"


@pytest.mark.parametrize(
    "authorization", ["", "Basic dXNlcjpwYXNz", "Bearer", "Bearer nonsense", "Bearer a.b.c", "Bearer é.é.é"]
)
def test_no_good_token(bot: Bot, authorization: str) -> None:
    """A call without a good bearer token is answered 401 with a challenge, and changes nothing."""
    answer = bot.get("/api/StartRun/invoices", Authorization=authorization)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].lower().startswith("bearer")
    assert bot.sandbox.runs() == []


def test_no_token_at_all(stranger: Bot) -> None:
    """A call without an Authorization header is answered 401."""
    assert stranger.get("/api/OkToRun/invoices").status == 401


def test_tampered_token(bot: Bot) -> None:
    """A token whose claims were changed is refused."""
    head, _, signature = bot.headers["Authorization"].split(".")
    forged = base64.urlsafe_b64encode(b'{"exp": 99999999999}').decode().rstrip("=")
    assert bot.get("/api/OkToRun/invoices", Authorization=f"{head}.{forged}.{signature}").status == 401


def test_scheme_in_any_case(bot: Bot) -> None:
    """The name of the scheme is read in any case."""
    token = bot.headers["Authorization"].split()[1]
    assert bot.get("/api/OkToRun/invoices", Authorization=f"bearer {token}").status == 200


def test_expiry(bot: Bot, clock: Clock) -> None:
    """A token works until its last second and not after."""
    clock.now += 3599
    assert bot.get("/api/OkToRun/invoices").status == 200
    clock.now += 1
    assert bot.get("/api/OkToRun/invoices").status == 401


def test_lifetime(bot: Bot, clock: Clock) -> None:
    """The lifetime of new tokens can be set, and is what expires_in says."""
    assert bot.send("PUT", "/sandbox/tokens", {"lifetime": 60}).json == {"lifetime": 60, "revoked": False}
    assert bot.ask_token().json["expires_in"] == 60
    bot.login()
    clock.now += 60
    assert bot.get("/api/OkToRun/invoices").status == 401


def test_revoke(bot: Bot) -> None:
    """All tokens can be revoked at once; a new login works again."""
    bot.send("PUT", "/sandbox/tokens", {"revoke": True})
    assert bot.get("/api/OkToRun/invoices").status == 401
    assert bot.login().get("/api/OkToRun/invoices").status == 200


def test_tokens_from_python(bot: Bot) -> None:
    """Lifetime and revocation can be set from Python too, each without the other."""
    bot.sandbox.set_tokens(lifetime=7)
    assert bot.get("/api/OkToRun/invoices").status == 200
    bot.sandbox.set_tokens(revoke=True)
    assert bot.get("/api/OkToRun/invoices").status == 401
    assert bot.ask_token().json["expires_in"] == 7


@pytest.mark.parametrize("fields", [{"lifetime": -1}, {"lifetime": "long"}, {"revoke": 1}, {"lifetme": 1}, []])
def test_bad_token_settings(bot: Bot, fields: object) -> None:
    """Bad token settings are refused with a message, and change nothing."""
    answer = bot.send("PUT", "/sandbox/tokens", fields)
    assert answer.status == 400
    assert answer.json["message"]
    assert bot.ask_token().json["expires_in"] == 3600


def test_secrets_are_masked(sandbox: Sandbox, stranger: Bot) -> None:
    """The list of requests shows a login without its secrets."""
    stranger.ask_token()
    (seen,) = sandbox.requests()
    assert seen["operation"] == "token"
    assert "client_secret=***" in seen["body"]
    assert "password=***" in seen["body"]
    assert "username=mate%40sandbox" in seen["body"]
    assert "sandbox-" not in stranger.get("/sandbox/requests").text


def test_secrets_are_masked_under_any_spelling(stranger: Bot) -> None:
    """A secret whose field is misspelt by case or percent-encoding is masked too."""
    stranger.post("/connect/token", b"Client_Secret=s3cret&pass%77ord=s3cret", Content_Type=FORM)
    assert "s3cret" not in stranger.get("/sandbox/requests").text
