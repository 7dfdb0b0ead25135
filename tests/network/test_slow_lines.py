"""The deadline is hard in every layer, whatever stands between the client and the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from anymate_guard import AnymateClient, UnreachableError
from anymate_guard._deadline import Deadline
from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.clients import client_of
from tests.support.forward import ForwardProxy, SlowLine
from tests.support.proxy import Fault, FaultProxy
from tests.support.waiting import in_time

DRIPS = [faults.silence, faults.dripped_header, faults.dripped_body]


class Way:
    """A way to the server behind TLS, with lines that can be slow.

    Attributes:
        lines: To the server, and to the proxy if there is one.
    """

    def __init__(self, sandbox: Sandbox, server: FaultProxy, proxy: ForwardProxy | None) -> None:
        self.lines = [SlowLine(f"127.0.0.1:{server.port}")]
        if proxy is not None:
            self.lines.append(SlowLine(proxy.address))
        self.client = client_of(sandbox, f"https://{self.lines[0].address}")


@pytest.fixture(name="way", params=["direct", "http proxy", "https proxy"])
def _way(
    request: pytest.FixtureRequest,
    sandbox: Sandbox,
    secure: FaultProxy,
    forward: ForwardProxy,
    secure_forward: ForwardProxy,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Way]:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    proxies = {"direct": None, "http proxy": forward, "https proxy": secure_forward}
    way = Way(sandbox, secure, proxies[request.param])
    if request.param != "direct":
        monkeypatch.setenv("https_proxy", f"{request.param.split()[0]}://{way.lines[1].address}")
    with ExitStack() as stack:
        stack.enter_context(way.client)
        for line in way.lines:
            stack.enter_context(line)
        yield way


def is_over_in_time(client: AnymateClient) -> None:
    """Let a call fail within its deadline."""
    with in_time(), pytest.raises(UnreachableError):
        client.start_run("invoice-intake", deadline=Deadline.after(1))


@pytest.mark.parametrize("line", [0, -1], ids=["to the server", "to the proxy"])
def test_dripped_handshake(way: Way, line: int) -> None:
    """A TLS handshake that drips, or the answer to CONNECT, ends with the deadline."""
    way.lines[line].drip()
    is_over_in_time(way.client)


@pytest.mark.parametrize("line", [0, -1], ids=["to the server", "to the proxy"])
def test_dripped_record(way: Way, line: int) -> None:
    """A TLS record that drips ends with the deadline, the server's within that of the proxy too."""
    way.client.start_run("invoice-intake")
    way.lines[line].drip()
    is_over_in_time(way.client)


@pytest.mark.parametrize("fault", DRIPS)
def test_dripped_answer(way: Way, secure: FaultProxy, fault: Fault) -> None:
    """An answer that drips ends with the deadline."""
    way.client.start_run("invoice-intake")
    secure.break_next("StartRun", fault, times=99)
    is_over_in_time(way.client)


@pytest.mark.parametrize("secure_proxy", [False, True])
@pytest.mark.parametrize("fault", DRIPS)
def test_forwarded_answer(
    sandbox: Sandbox,
    proxy: FaultProxy,
    forward: ForwardProxy,
    secure_forward: ForwardProxy,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    secure_proxy: bool,
) -> None:
    """An answer of an http address that drips through a proxy ends with the deadline."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    url = f"https://{secure_forward.address}" if secure_proxy else f"http://{forward.address}"
    monkeypatch.setenv("http_proxy", url)
    with client_of(sandbox, proxy.url) as client:
        client.start_run("invoice-intake")
        proxy.break_next("StartRun", fault, times=99)
        is_over_in_time(client)
