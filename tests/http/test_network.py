"""Proxies, certificates and the like: as in requests, but for .netrc."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests.adapters
import trustme

from anymate_guard import AnymateClient, ConfigurationError, UnreachableError
from anymate_guard._deadline import Deadline
from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.clients import client_of, ends_within
from tests.support.forward import ForwardProxy, certified
from tests.support.proxy import Exchange, FaultProxy


@pytest.fixture(name="authority", scope="session")
def _authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(name="bundle")
def _bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    return bundle


@pytest.fixture(name="secure")
def _secure(sandbox: Sandbox, authority: trustme.CA) -> Iterator[FaultProxy]:
    """The sandbox behind TLS."""
    with FaultProxy(sandbox.url, tls=certified(authority, "127.0.0.1")) as proxy:
        yield proxy


@pytest.fixture(name="forward")
def _forward() -> Iterator[ForwardProxy]:
    with ForwardProxy() as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def run(client: AnymateClient) -> int:
    """Start a run and finish it."""
    with client:
        run_id = client.start_run("invoice-intake")
        client.finish_run(run_id)
    return run_id


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_own_authority(
    sandbox: Sandbox, secure: FaultProxy, bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A company's own certificate authority is trusted by the variables of requests."""
    monkeypatch.setenv(name, str(bundle))
    assert run(client_of(sandbox, secure.url, timeout=5)) > 0
    assert secure.connections == 1


def test_usual_authorities(sandbox: Sandbox, secure: FaultProxy, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without these variables, the authorities that come with requests are trusted."""
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(bundle))
    if hasattr(requests.adapters, "_preloaded_ssl_context"):  # requests 2.32 reads them when it is imported
        context = ssl.create_default_context(cafile=str(bundle))
        monkeypatch.setattr("requests.adapters._preloaded_ssl_context", context)
    assert run(client_of(sandbox, secure.url, timeout=5)) > 0


def test_no_authorities(sandbox: Sandbox, secure: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of authorities that is not there is named by the error."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    with client_of(sandbox, secure.url) as client, pytest.raises(UnreachableError) as caught:
        client.start_run("invoice-intake", deadline=Deadline.after(5, retry=False))
    assert "TLS CA certificate bundle" in caught.value.reason
    assert "gone.pem" in caught.value.reason


def test_unknown_authority(sandbox: Sandbox, secure: FaultProxy) -> None:
    """A certificate of nobody we know is refused, before anything is sent, and the error says why."""
    with client_of(sandbox, secure.url) as client, pytest.raises(UnreachableError) as caught:
        client.start_run("invoice-intake", deadline=Deadline.after(5, retry=False))
    assert "certificate verify failed" in caught.value.reason
    assert secure.calls == []


def test_certificate_of_another_host(
    sandbox: Sandbox, authority: trustme.CA, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate for another host is refused."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    tls = certified(authority, "elsewhere.example")
    with FaultProxy(sandbox.url, tls=tls) as proxy, pytest.raises(UnreachableError, match="IP address mismatch"):
        client_of(sandbox, proxy.url).start_run("invoice-intake", deadline=Deadline.after(5, retry=False))


def test_not_sent_over_a_bad_connection(
    sandbox: Sandbox, secure: FaultProxy, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that failed before its request was sent is known not to have been sent."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with client_of(sandbox, secure.url, timeout=5) as client:
        run_id = client.start_run("invoice-intake")
        client.close()
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with pytest.raises(UnreachableError) as caught:
            client.finish_run(run_id, deadline=Deadline.after(5, retry=False))
    assert not caught.value.maybe_sent


def test_http_by_a_proxy(sandbox: Sandbox, forward: ForwardProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """An http address is reached by way of HTTP_PROXY, with the proxy's credentials."""
    monkeypatch.setenv("http_proxy", f"http://clerk:sesame@{forward.address}")
    assert run(client_of(sandbox, timeout=5)) > 0
    assert forward.requests == [(f"POST {sandbox.url}/connect/token HTTP/1.1", "Basic Y2xlcms6c2VzYW1l")]


def test_https_by_a_proxy(
    sandbox: Sandbox, secure: FaultProxy, forward: ForwardProxy, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An https address is reached through a tunnel of HTTPS_PROXY, with the proxy's credentials."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("https_proxy", f"http://clerk:sesame@{forward.address}")
    assert run(client_of(sandbox, secure.url, timeout=5)) > 0
    ((line, credentials),) = forward.requests
    assert line.startswith(f"CONNECT 127.0.0.1:{secure.port} HTTP/1.")
    assert credentials == "Basic Y2xlcms6c2VzYW1l"


def test_https_by_a_secure_proxy(
    sandbox: Sandbox, secure: FaultProxy, authority: trustme.CA, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that is reached over TLS itself gives a tunnel, too, within which the deadline holds."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))

    def tunnel(exchange: Exchange) -> None:
        with socket.create_connection(("127.0.0.1", secure.port)) as upstream:
            exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
            exchange.join(upstream)

    with FaultProxy(sandbox.url, tls=certified(authority, "127.0.0.1")) as middle:
        middle.break_next("CONNECT", tunnel, times=9)
        monkeypatch.setenv("https_proxy", middle.url)
        client = client_of(sandbox, secure.url, timeout=0.3, deadline=1)
        assert run(client) > 0
        assert middle.calls == ["CONNECT"]
        secure.break_next("StartRun", faults.dripped_body, times=9)
        with ends_within(1), pytest.raises(UnreachableError):
            client.start_run("invoice-intake")


def test_proxy_that_refuses(sandbox: Sandbox, proxy: FaultProxy, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that opens no tunnel is an UnreachableError that says so; nothing was sent."""
    proxy.break_next("CONNECT", lambda exchange: exchange.answer(407), times=9)
    monkeypatch.setenv("https_proxy", proxy.url)
    with client_of(sandbox, "https://anymate.example") as client, pytest.raises(UnreachableError, match="407"):
        client.start_run("invoice-intake", deadline=Deadline.after(5, retry=False))


def test_not_sent_without_a_tunnel(
    sandbox: Sandbox,
    secure: FaultProxy,
    forward: ForwardProxy,
    proxy: FaultProxy,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call for which the proxy opened no tunnel is known not to have been sent."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("https_proxy", f"http://{forward.address}")
    with client_of(sandbox, secure.url, timeout=5) as client:
        run_id = client.start_run("invoice-intake")
        client.close()
        proxy.break_next("CONNECT", lambda exchange: exchange.answer(502), times=9)
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(UnreachableError) as caught:
            client.finish_run(run_id, deadline=Deadline.after(5, retry=False))
    assert not caught.value.maybe_sent


@pytest.mark.parametrize(
    "value", ["nonsense://x:1", "http://", "socks5://127.0.0.1:1", "socks5h://clerk:sesame@proxy.example:1080"]
)
def test_proxy_that_makes_no_sense(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A proxy that can't be used, one for SOCKS among them, is a setting that is wrong, told without its password."""
    monkeypatch.setenv("http_proxy", value)
    with client_of(sandbox) as client, pytest.raises(ConfigurationError) as caught:
        client.start_run("invoice-intake")
    (problem,) = caught.value.problems
    assert problem.startswith("HTTP_PROXY or ALL_PROXY: ")
    assert "NO_PROXY" in problem
    assert "sesame" not in problem


def test_no_proxy(sandbox: Sandbox, forward: ForwardProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY excepts an address."""
    monkeypatch.setenv("http_proxy", f"http://{forward.address}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert run(client_of(sandbox)) > 0
    assert forward.requests == []


def test_netrc(sandbox: Sandbox, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .netrc with a login for the host never replaces the token."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login clerk password sesame\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    seen: list[str] = []

    def see(exchange: Exchange) -> None:
        seen.append(exchange.header("Authorization"))
        exchange.answer(*exchange.forward())

    proxy.break_next("StartRun", see)
    run(client_of(sandbox, proxy.url))
    assert seen == [f"Bearer {proxy.tokens[0]}"]


def test_address_with_a_path(sandbox: Sandbox, proxy: FaultProxy) -> None:
    """An on-premises address may have a path."""
    paths: list[str] = []

    def see(exchange: Exchange) -> None:
        paths.append(exchange.path)
        exchange.answer(200, {"access_token": "abc"} if "token" in exchange.path else {"runId": 7})

    proxy.break_next("StartRun", see)
    proxy.break_next("token", see)
    with client_of(sandbox, f"{proxy.url}/rpa/", auth_url=f"{proxy.url}/login//") as client:
        assert client.start_run("a b") == 7
    assert paths == ["/login/connect/token", "/rpa/api/StartRun/a%20b"]
