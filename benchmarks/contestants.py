"""Who is measured: a guarded run, and the same two calls made in the other ways there are.

Each one sends StartRun and FinishRun, with three entries, and reads both answers. Tokens are fetched beforehand.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import ssl
import threading
from contextlib import redirect_stdout
from typing import Any
from urllib.parse import urlsplit

PROCESS_KEY = "benchmark"
ENTRIES = 3
_TIMEOUT = 10


class Guarded:
    """Ours."""

    def run(self, process_key: str = PROCESS_KEY) -> None:
        """One guarded run."""
        from anymate_guard import anymate_run

        with anymate_run(process_key) as run:
            run.add_entries(ENTRIES)

    async def arun(self) -> None:
        """One guarded run in async code."""
        from anymate_guard import anymate_run

        async with anymate_run(PROCESS_KEY) as run:
            run.add_entries(ENTRIES)


class ByHand:
    """A kept-alive `requests.Session` with the token in its headers, as one would write it by hand."""

    def __init__(self) -> None:
        import requests

        self._url = os.environ["ANYMATE_API_URL"]
        self._session = requests.Session()
        self._login = threading.Lock()

    def login(self) -> ByHand:
        """Fetch the token, once."""
        with self._login:
            if "Authorization" not in self._session.headers:
                answer = self._session.post(
                    f"{os.environ['ANYMATE_AUTH_URL']}/connect/token", _form(), timeout=_TIMEOUT
                )
                answer.raise_for_status()
                self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return self

    def close(self) -> None:
        """Close its connections."""
        self._session.close()

    def start(self, process_key: str = PROCESS_KEY) -> int:
        """StartRun."""
        answer = self._session.get(f"{self._url}/api/StartRun/{process_key}", timeout=_TIMEOUT)
        answer.raise_for_status()
        run_id: int = answer.json()["runId"]
        return run_id

    def finish(self, run_id: int = 1) -> None:
        """FinishRun."""
        payload = {"runId": run_id, "overwriteEntries": ENTRIES}
        answer = self._session.post(f"{self._url}/api/FinishRun/", json=payload, timeout=_TIMEOUT)
        answer.raise_for_status()
        _check(answer.json()["succeeded"])

    def run(self, process_key: str = PROCESS_KEY) -> None:
        """Both."""
        self.finish(self.start(process_key))

    async def arun(self) -> None:
        """Both, each in a thread of asyncio's."""
        run_id = await asyncio.to_thread(self.start)
        await asyncio.to_thread(self.finish, run_id)


class OfficialSdk:
    """Anymate's own package, unchanged, told that the server is on premises; what it prints goes nowhere."""

    def __init__(self) -> None:
        import anymate

        names = ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")
        self._client = anymate.client(*(os.environ[f"ANYMATE_{name}"] for name in names))
        self._client.set_on_premises_mode(os.environ["ANYMATE_API_URL"], os.environ["ANYMATE_AUTH_URL"])

    def run(self) -> None:
        """Both."""
        with redirect_stdout(io.StringIO()):
            run_id = self._client.start_or_get_run(PROCESS_KEY).runId
            _check(self._client.finish_run({"runId": run_id, "overwriteEntries": ENTRIES}).succeeded)


class Bare:
    """`http.client` on one kept connection, which stands for the limit."""

    def __init__(self) -> None:
        url = urlsplit(os.environ["ANYMATE_API_URL"])
        assert url.hostname is not None
        context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
        self._connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=_TIMEOUT, context=context)
        self._headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"}

    def run(self) -> None:
        """Both."""
        self._connection.request("GET", f"/api/StartRun/{PROCESS_KEY}", headers=self._headers)
        payload = {"runId": self._answer()["runId"], "overwriteEntries": ENTRIES}
        self._connection.request("POST", "/api/FinishRun/", json.dumps(payload).encode(), self._headers)
        _check(self._answer()["succeeded"])

    def _answer(self) -> Any:
        answer = self._connection.getresponse()
        body = answer.read()
        _check(answer.status == 200)
        return json.loads(body)

    def _token(self) -> str:
        import requests

        token: str = requests.post(f"{os.environ['ANYMATE_AUTH_URL']}/connect/token", _form()).json()["access_token"]
        return token


def _form() -> dict[str, str]:
    names = ("client_id", "client_secret", "username", "password")
    return {"grant_type": "password", **{name: os.environ[f"ANYMATE_{name.upper()}"] for name in names}}


def _check(fine: object) -> None:
    if not fine:
        raise RuntimeError("the server's answer means no")
