"""A bot that speaks plain HTTP, and a clock that stands still."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from hypothesis import settings

from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

examples = settings(database=None, max_examples=60)


class Clock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        """Stop at noon of a Christmas Eve, a little past."""
        self.now = 1_766_577_600.25  # 2025-12-24 12:00:00.25 UTC

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Answer(NamedTuple):
    """An answer as it came."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.text)


class Bot:
    """Calls a sandbox over one kept-alive connection, logged in or not."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Connect at the first request."""
        self.sandbox = sandbox
        self.connection = http.client.HTTPConnection(urlsplit(sandbox.url).netloc, timeout=LONGEST)
        self.headers: dict[str, str] = {}

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request, its body as JSON unless it is bytes, and header names with _ for -."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            given.setdefault("Content-Type", JSON)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self.connection.request(method, path, data, {**self.headers, **given})
        response = self.connection.getresponse()
        return Answer(response.status, response.headers, response.read().decode())

    def get(self, path: str, **headers: str) -> Answer:
        """Send a GET."""
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        """Send a POST."""
        return self.send("POST", path, body, **headers)

    def login_form(self, **changes: str) -> dict[str, str]:
        """Return the form of a login, changed where a test wants it to be wrong."""
        env = self.sandbox.environ
        names = ("client_id", "client_secret", "username", "password")
        form = {name: env[f"ANYMATE_{name.upper()}"] for name in names}
        return {**form, "grant_type": "password", **changes}

    def ask_token(self, **changes: str) -> Answer:
        """Ask for a token."""
        return self.post("/connect/token", urlencode(self.login_form(**changes)).encode(), Content_Type=FORM)

    def login(self) -> Bot:
        """Send a good token from now on."""
        self.headers["Authorization"] = f"Bearer {self.ask_token().json['access_token']}"
        return self

    def start(self, key: str = "invoices") -> int:
        """Start a run."""
        run_id: int = self.get(f"/api/StartRun/{quote(key, safe='')}").json["runId"]
        return run_id

    def finish(self, run_id: int, **fields: Any) -> Answer:
        """Finish a run."""
        return self.post("/api/FinishRun/", {"runId": run_id, **fields})


def ends_in_reset(client: socket.socket) -> bool:
    """Tell whether a connection ends by a reset, without a byte of an answer."""
    try:
        client.recv(1)
    except ConnectionResetError:
        return True
    return False
