"""Proxies, certificates and the like: as in requests, but for .netrc."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import trustme

from anymate_guard import AnymateClient, ConfigurationError, UnreachableError, anymate_run
from anymate_guard.sandbox import Sandbox
from tests.support.clients import client_of, one_try
from tests.support.clock import Clock
from tests.support.forward import ForwardProxy, certified
from tests.support.proxy import Exchange, FaultProxy
from tests.support.tracebacks import rendered


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
    assert run(client_of(sandbox, secure.url)) > 0
    assert secure.connections == 1


def test_usual_authorities(sandbox: Sandbox, secure: FaultProxy, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without these variables, the authorities that come with requests are trusted."""
    monkeypatch.setattr("certifi.where", lambda: str(bundle))
    assert run(client_of(sandbox, secure.url)) > 0


def test_no_authorities(sandbox: Sandbox, secure: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of authorities that is not there is named by the error."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    with client_of(sandbox, secure.url) as client, pytest.raises(UnreachableError) as caught:
        client.start_run("invoice-intake", deadline=one_try())
    assert "REQUESTS_CA_BUNDLE" in caught.value.reason
    assert "gone.pem" in caught.value.reason


@pytest.mark.parametrize("content", ["", "no certificate"])
def test_what_is_no_authority(
    sandbox: Sandbox, secure: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, content: str
) -> None:
    """A file of authorities that holds none is named by the error, at once."""
    (tmp_path / "broken.pem").write_text(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "broken.pem"))
    with client_of(sandbox, secure.url) as client, pytest.raises(UnreachableError, match=r"broken\.pem"):
        client.start_run("invoice-intake")
    assert clock.ahead == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl names the files")
def test_folder_of_authorities(
    sandbox: Sandbox, secure: FaultProxy, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of authorities, named as OpenSSL names them, is trusted, too."""
    folder = tmp_path / "authorities"
    folder.mkdir()
    command = ["openssl", "x509", "-noout", "-subject_hash", "-in", str(bundle)]
    subject = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    (folder / f"{subject}.0").write_bytes(bundle.read_bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder))
    assert run(client_of(sandbox, secure.url)) > 0


def test_unknown_authority(sandbox: Sandbox, secure: FaultProxy, clock: Clock) -> None:
    """A certificate of nobody we know is refused at once, before anything is sent, and the error says why."""
    with client_of(sandbox, secure.url) as client, pytest.raises(UnreachableError) as caught:
        client.start_run("invoice-intake")
    assert clock.ahead == 0
    assert "certificate verify failed" in caught.value.reason
    assert secure.calls == []
    assert secure.connections == 1


def test_certificate_of_another_host(
    sandbox: Sandbox, authority: trustme.CA, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate for another host is refused."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    tls = certified(authority, "elsewhere.example")
    with FaultProxy(sandbox.url, tls=tls) as proxy, pytest.raises(UnreachableError, match="IP address mismatch"):
        client_of(sandbox, proxy.url).start_run("invoice-intake", deadline=one_try())


def test_not_sent_over_a_bad_connection(sandbox: Sandbox, secure: FaultProxy) -> None:
    """A call that failed before its request was sent is known not to have been sent."""
    with client_of(sandbox, api_url=secure.url) as client, pytest.raises(UnreachableError) as caught:
        client.finish_run(7, deadline=one_try())
    assert caught.value.operation == "FinishRun"
    assert not caught.value.maybe_sent


def test_http_by_a_proxy(sandbox: Sandbox, forward: ForwardProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """An http address is reached by way of HTTP_PROXY, with the proxy's credentials."""
    monkeypatch.setenv("http_proxy", f"http://clerk:sesame@{forward.address}")
    assert run(client_of(sandbox)) > 0
    assert forward.requests == [(f"POST {sandbox.url}/connect/token HTTP/1.1", "Basic Y2xlcms6c2VzYW1l")]


def test_https_by_a_proxy(
    sandbox: Sandbox, secure: FaultProxy, forward: ForwardProxy, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An https address is reached through a tunnel of HTTPS_PROXY, with the proxy's credentials."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("https_proxy", f"http://clerk:sesame@{forward.address}")
    assert run(client_of(sandbox, secure.url)) > 0
    ((line, credentials),) = forward.requests
    assert line.startswith(f"CONNECT 127.0.0.1:{secure.port} HTTP/1.")
    assert credentials == "Basic Y2xlcms6c2VzYW1l"


def test_number_of_a_host_behind_a_proxy(
    sandbox: Sandbox, forward: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that is given by its number in IPv6 is named in brackets to the proxy."""
    monkeypatch.setenv("https_proxy", f"http://{forward.address}")
    with client_of(sandbox, "https://[::1]:9") as client, pytest.raises(UnreachableError):
        client.start_run("invoice-intake", deadline=one_try())
    assert forward.requests == [("CONNECT [::1]:9 HTTP/1.1", "")]


def test_https_by_a_secure_proxy(
    sandbox: Sandbox,
    secure: FaultProxy,
    secure_forward: ForwardProxy,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy that is reached over TLS gives a tunnel, too, and is told its credentials."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("https_proxy", f"https://clerk:sesame@{secure_forward.address}")
    assert run(client_of(sandbox, secure.url)) > 0
    assert secure_forward.requests == [(f"CONNECT 127.0.0.1:{secure.port} HTTP/1.1", "Basic Y2xlcms6c2VzYW1l")]


def test_http_by_a_secure_proxy(
    sandbox: Sandbox,
    proxy: FaultProxy,
    secure_forward: ForwardProxy,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy that is reached over TLS passes on each request for an http address, and is told its credentials."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("http_proxy", f"https://clerk:sesame@{secure_forward.address}")
    seen: list[tuple[str, str]] = []

    def see(exchange: Exchange) -> None:
        seen.append((exchange.header("Host"), exchange.header("Proxy-Authorization")))
        exchange.answer(*exchange.forward())

    for operation in ("token", "StartRun", "FinishRun"):
        proxy.break_next(operation, see)
    assert run(client_of(sandbox, proxy.url)) > 0
    assert seen == [(f"127.0.0.1:{proxy.port}", "Basic Y2xlcms6c2VzYW1l")] * 3
    assert secure_forward.connections == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_is_not_trusted(
    sandbox: Sandbox,
    proxy: FaultProxy,
    secure: FaultProxy,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
) -> None:
    """A proxy whose certificate is not trusted is told nothing, whatever the address behind it."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with ForwardProxy(tls=certified(trustme.CA(), "127.0.0.1")) as stranger:
        monkeypatch.setenv(f"{scheme}_proxy", f"https://{stranger.address}")
        url = {"http": proxy.url, "https": secure.url}[scheme]
        with client_of(sandbox, url) as client, pytest.raises(UnreachableError, match="certificate verify failed"):
            client.start_run("invoice-intake")
        assert stranger.requests == []
        assert stranger.connections == 1


@pytest.mark.parametrize(("scheme", "operation"), [("http", "token"), ("https", "CONNECT")])
def test_proxy_that_refuses(
    sandbox: Sandbox, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, scheme: str, operation: str
) -> None:
    """A proxy that refuses its password is an UnreachableError that says so, and is not asked twice."""
    proxy.break_next(operation, lambda exchange: exchange.answer(407), times=9)
    monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
    with client_of(sandbox, f"{scheme}://anymate.example") as client, pytest.raises(UnreachableError, match="HTTP 407"):
        client.start_run("invoice-intake")
    assert proxy.calls == [operation]


def test_finish_that_a_proxy_refuses(
    sandbox: Sandbox, proxy: FaultProxy, forward: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that a proxy refuses, as somebody has changed its password, is known not to have been sent."""
    monkeypatch.setenv("http_proxy", f"http://{forward.address}")
    proxy.break_next("FinishRun", lambda exchange: exchange.answer(407))
    with client_of(sandbox, proxy.url) as client, pytest.raises(UnreachableError, match="HTTP 407") as caught:
        client.finish_run(client.start_run("invoice-intake"))
    assert not caught.value.maybe_sent


def test_not_sent_without_a_tunnel(
    sandbox: Sandbox, secure: FaultProxy, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call for which the proxy opened no tunnel is known not to have been sent."""
    proxy.break_next("CONNECT", lambda exchange: exchange.answer(502), times=9)
    monkeypatch.setenv("https_proxy", proxy.url)
    with client_of(sandbox, api_url=secure.url) as client, pytest.raises(UnreachableError, match="502") as caught:
        client.finish_run(7, deadline=one_try())
    assert caught.value.operation == "FinishRun"
    assert not caught.value.maybe_sent


@pytest.mark.parametrize(
    "value",
    [
        "nonsense://x:1",
        "http://",
        "socks5://127.0.0.1:1",
        "socks5h://clerk:sesame@proxy.example:1080",
        "http://clerk:sesame#1@proxy.example:3128",
        "socks5://clerk:1/sesame@proxy.example",
        "http://clerk:sesame@proxy.example:70000",
        "http://clerk:sesame@:3128",
    ],
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
    assert "sesame" not in rendered(caught.value.with_traceback(caught.tb.tb_next))  # without this very frame


@pytest.mark.parametrize("run_id", [None, 7], ids=["starts", "adopts"])
@pytest.mark.parametrize("refused", ["api_url", "auth_url"])
def test_guard_behind_a_proxy_that_makes_no_sense(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, refused: str, run_id: int | None
) -> None:
    """A guard is refused where it is entered, also if only its FinishRun would meet the proxy."""
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with (
        client_of(sandbox, **{refused: "http://anymate.example"}) as client,
        pytest.raises(ConfigurationError, match=r"name anymate\.example in NO_PROXY"),
        anymate_run("invoice-intake", client=client, run_id=run_id),
    ):
        pytest.fail("the body ran")
    assert sandbox.requests() == []


def test_proxy_that_the_body_sets(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the body sets for itself is not the guard's, even if it closes the connections."""
    with client_of(sandbox) as client, anymate_run("invoice-intake", client=client, require_finish=True):
        monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
        client.close()
    assert [run["finished"] for run in sandbox.runs()] == [True]


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
