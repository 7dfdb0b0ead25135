"""The token: fetched once for all threads, and renewed in time."""

from __future__ import annotations

import copy
import math
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlencode

from anymate_guard._api.answers import Reply
from anymate_guard._api.calls import Caller
from anymate_guard._deadline import Deadline
from anymate_guard._http.messages import Request
from anymate_guard._process.locks import Lock
from anymate_guard._secrecy import Mask, unseen
from anymate_guard._settings import Settings
from anymate_guard.errors import ApiError, AuthenticationError, UnreachableError

_USUAL_LIFE = 300.0  # seconds, of a token that doesn't tell
_LONGEST_LIFE = 1e9
_WRONG = {  # by the error codes of OAuth
    "invalid_client": "ANYMATE_CLIENT_ID and ANYMATE_CLIENT_SECRET",
    "invalid_grant": "ANYMATE_USERNAME and ANYMATE_PASSWORD",
}
_MARGIN = 300.0  # at most, by which a token is renewed before its end


@dataclass(frozen=True, slots=True)
class Token:
    """An access token.

    Attributes:
        renew_at: Monotonic time from which on a new one is wanted.
        mask: For quoting answers to calls that were made with it.
    """

    _value: str = field(repr=False)
    renew_at: float
    mask: Mask

    @unseen
    def sign(self, request: Request) -> Request:
        """The request with this token."""
        return request.having("Authorization", f"Bearer {self._value}")


class Tokens:
    """The token of all threads; the first one to need a new one fetches it for the others.

    Args:
        settings: Where and who.
        caller: Makes the call.
        token: One that is known already.
    """

    def __init__(self, settings: Settings, caller: Caller, token: Token | None = None) -> None:
        self.token = token
        self.mask = _mask(settings)
        self._settings = settings
        self._caller = caller
        self._lock = Lock()
        self._turn = threading.Condition(self._lock)  # taken by its lock: its own `with` may leave it held
        self._holder: int | None = None  # the thread that is logging in
        self._logins = 0  # that came to an end
        self._refusal: ApiError | None = None  # of the last one

    def valid(self, deadline: Deadline) -> Token:
        """A token that is not about to expire.

        Raises:
            AuthenticationError: The credentials were refused.
            ApiError: The answer holds no token.
            UnreachableError: No usable answer before the deadline.
        """
        token = self._good()
        if token is not None:
            return token
        try:
            self._take_turn(deadline)
            token = self._good()
            if token is None:
                token = self.token = self._log_in(deadline)
            return token
        finally:
            with self._lock:
                if self._holder == threading.get_ident():
                    self._holder = None
                    self._turn.notify_all()

    def drop(self, token: Token) -> None:
        """Forget a token that was refused, unless there is a newer one already."""
        with self._lock:
            if self.token is token:
                self.token = None

    def _good(self) -> Token | None:
        token = self.token
        return token if token is not None and time.monotonic() < token.renew_at else None

    def _take_turn(self, deadline: Deadline) -> None:
        """Wait while another thread logs in; a turn that an interruption left to this one is taken again."""
        with self._lock:
            logins = self._logins
            while self._holder not in {None, threading.get_ident()}:
                if not self._turn.wait(max(0.0, deadline.left())):
                    raise UnreachableError("token", "another thread did not get one in time either")
            if self._refusal is not None and self._logins != logins:
                # Refused while this thread waited: a thread each with a wrong password could lock the account.
                raise copy.copy(self._refusal)
            self._holder = threading.get_ident()

    def _log_in(self, deadline: Deadline) -> Token:
        asked_at = time.monotonic()
        reply = self._caller.until_answered("token", _login(self._settings), self.mask, deadline, {})
        self._logins += 1
        self._refusal = None
        try:
            return _token(reply, asked_at)
        except ApiError as error:
            self._refusal = copy.copy(error)
            raise


@unseen
def _form(settings: Settings) -> str:
    fields = {
        "client_id": settings.client_id,
        "client_secret": settings.client_secret,
        "grant_type": "password",
        "username": settings.username,
        "password": settings.password,
    }
    return urlencode(fields)


@unseen
def _mask(settings: Settings) -> Mask:
    return Mask([_form(settings), settings.client_secret, settings.password])


@unseen
def _login(settings: Settings) -> Request:
    request = Request("POST", settings.auth_url, "/connect/token", _form(settings).encode())
    return request.having("Content-Type", "application/x-www-form-urlencoded")


@unseen
def _token(reply: Reply, asked_at: float) -> Token:
    """The token of an answer, with the moment to renew it."""
    if reply.status in {400, 401, 403}:
        wrong = _WRONG.get(str((reply.data or {}).get("error")), " and ".join(_WRONG.values()))
        raise reply.refusal(f"check {wrong}: {reply.text}", AuthenticationError)
    data = reply.accepted()
    value, life = data.get("access_token"), data.get("expires_in")
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value.strip():
        raise reply.refusal("the answer has no usable access_token; check ANYMATE_AUTH_URL")
    if not isinstance(life, int | float) or isinstance(life, bool) or not 0 < life < math.inf:
        life = _USUAL_LIFE
    life = min(life, _LONGEST_LIFE)
    return Token(value, asked_at + life - min(_MARGIN, life / 2), reply.mask.and_also(value))
