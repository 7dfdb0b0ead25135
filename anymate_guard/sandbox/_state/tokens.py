"""Credentials in, access tokens out, and the check of those tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any

DEFAULT_LIFETIME = 3600
CREDENTIALS = {
    "client_id": "sandbox",
    "client_secret": "sandbox-client-secret",
    "username": "mate@sandbox",
    "password": "sandbox-password",
}


class LoginError(Exception):
    """A login that is refused; the text is the OAuth error code."""


class Tokens:
    """Issues signed tokens that live for a while, unless all of them are revoked before."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        self.lifetime = DEFAULT_LIFETIME

    def reset(self) -> None:
        """Return to the default lifetime; tokens issued so far stay good."""
        self.lifetime = DEFAULT_LIFETIME

    def revoke(self) -> None:
        """Make every token issued so far worthless."""
        with self._lock:
            self._key = secrets.token_bytes(32)

    def login(self, form: Mapping[str, str]) -> dict[str, str | int]:
        """Return a token answer for a resource owner's password, in exactly the four fields the SDKs take."""
        if not _matches(form, "client_id", "client_secret"):
            raise LoginError("invalid_client")
        if form.get("grant_type") != "password":
            raise LoginError("unsupported_grant_type")
        if not _matches(form, "username", "password"):
            raise LoginError("invalid_grant")
        lifetime = self.lifetime
        return {
            "access_token": self._issue(lifetime),
            "expires_in": lifetime,
            "token_type": "Bearer",
            "scope": "apimate",
        }

    def valid(self, token: str) -> bool:
        """Tell whether a token is one of ours and still alive."""
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._sign(signed).encode(), signature.encode()):
            return False
        claims = json.loads(_decode(signed.partition(".")[2]))
        return bool(self._clock() < claims["exp"])

    def _issue(self, lifetime: int) -> str:
        now = int(self._clock())
        claims = {
            "iss": "anymate-sandbox",
            "aud": "apimate",
            "sub": CREDENTIALS["username"],
            "client_id": CREDENTIALS["client_id"],
            "auth.anymate.app/CustomerKey": CREDENTIALS["client_id"],
            "auth.anymate.app/UserType": "Mate",
            "jti": secrets.token_hex(8),
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
        }
        signed = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode(claims)}"
        return f"{signed}.{self._sign(signed)}"

    def _sign(self, signed: str) -> str:
        with self._lock:
            return _text(hmac.new(self._key, signed.encode(), hashlib.sha256).digest())


def _matches(form: Mapping[str, str], *names: str) -> bool:
    return all(form.get(name) == CREDENTIALS[name] for name in names)


def _encode(value: dict[str, Any]) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
