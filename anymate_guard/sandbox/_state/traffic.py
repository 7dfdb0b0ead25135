"""The list of requests the sandbox was asked, secrets masked."""

from __future__ import annotations

import threading
from collections import deque
from urllib.parse import parse_qsl, urlencode

from anymate_guard.sandbox._views import RequestView

MAX_REQUESTS = 5_000
MAX_BODY = 4_000
SECRET_FIELDS = ("client_secret", "password")


class Traffic:
    """Remembers the latest requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: deque[RequestView] = deque(maxlen=MAX_REQUESTS)

    def add(self, request: RequestView) -> None:
        """Remember a request; its status is filled in later."""
        with self._lock:
            self._requests.append(request)

    def list(self) -> list[RequestView]:
        """Return copies of the requests in the order they came."""
        with self._lock:
            return [request.copy() for request in self._requests]

    def reset(self) -> None:
        """Forget all requests."""
        with self._lock:
            self._requests.clear()


def shown_body(data: bytes) -> str:
    """Return a body as the list of requests shows it."""
    return data.decode(errors="replace")[:MAX_BODY]


def shown_login(data: bytes, *, is_form: bool) -> str:
    """Return a token request's body with its secrets masked; what is no form may hide them anywhere."""
    if not is_form:
        return "(not a form)"
    fields = parse_qsl(data.decode(errors="replace"), keep_blank_values=True)
    masked = [(name, "***" if name.lower() in SECRET_FIELDS else value) for name, value in fields]
    return urlencode(masked, safe="*")[:MAX_BODY]
