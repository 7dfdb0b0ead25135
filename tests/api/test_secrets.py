"""Password, secret, token and form body are seen nowhere: in no log line, error, text form or traceback."""

from __future__ import annotations

import faulthandler
import http.client
import io
import logging
import math
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from anymate_guard import AnymateClient, AnymateGuardError, ConfigurationError, Settings, UnreachableError
from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.clients import client_of, one_try
from tests.support.forward import ForwardProxy
from tests.support.proxy import Exchange, Fault, FaultProxy
from tests.support.tracebacks import rendered

PASSWORD = "sesame-0pen"
SECRET = "hush/hush+hush"
FORM = "grant_type=password"

FAULTS: dict[str, Fault] = {
    "reset": faults.reset_before,
    "cut body": faults.cut_body,
    "junk": faults.junk,
    "HTML": faults.html,
    "refused": faults.not_succeeded,
    "redirect": faults.redirect,
    "dripped header": faults.dripped_header,
    "dripped body": faults.dripped_body,
    "1 GiB": faults.gigabyte,
    **{str(status): faults.status(status) for status in (400, 401, 403, 404, 429, 500, 503)},
    "echo in a header": lambda exchange: exchange.answer(302, b"", Location=f"/{exchange.body!r}{exchange.head!r}"),
    "echo for a status": lambda exchange: exchange.send(f"{exchange.echo()!r}\r\n\r\n".encode()),
    "echo for a chunk": lambda exchange: exchange.send(
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{exchange.echo()!r}\r\n".encode()
    ),
}


@pytest.fixture(name="log")
def _log() -> Iterator[io.StringIO]:
    """Everything that is logged, by anybody, at any level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel("DEBUG")
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(name="careless")
def _careless(sandbox: Sandbox) -> Iterator[FaultProxy]:
    """A sandbox that takes our password for its own."""
    with FaultProxy(sandbox.url) as proxy:
        proxy.break_next("token", log_in, times=math.inf)
        yield proxy


def log_in(exchange: Exchange) -> None:
    """Log in with the sandbox's own credentials, whatever came."""
    form = b"client_id=sandbox&client_secret=sandbox-client-secret&username=mate%40sandbox&password=sandbox-password"
    exchange.body = form + b"&" + FORM.encode()
    exchange.answer(*exchange.forward())


def client_with_secrets(sandbox: Sandbox, proxy: FaultProxy, *, patience: float = 1) -> AnymateClient:
    """A client whose secrets can be told from everything else."""
    secrets = {"password": PASSWORD, "client_secret": SECRET}
    return client_of(sandbox, proxy.url, **secrets, timeout=0.2 * patience, deadline=0.6 * patience)


def hold_no_secret(text: str, tokens: list[str]) -> None:
    """Fail when a text holds a secret, without showing the text."""
    for secret in (PASSWORD, "hush", FORM, *tokens, *(token[20:60] for token in tokens)):
        assert (secret in text) is False


def error_of(client: AnymateClient, operation: str) -> BaseException | None:
    """Make one call, and give what it raises. This frame is in its traceback, so it holds no secret."""
    try:
        if operation == "FinishRun":
            client.finish_run(1)
        elif operation == "Failure":
            client.failure("invoice-intake", "boom")
        elif operation == "OkToRun":
            client.ok_to_run("invoice-intake")
        else:
            client.start_run("invoice-intake")
    except BaseException as error:  # noqa: BLE001  # whatever it is
        return error
    return None


def test_debug_level(
    sandbox: Sandbox, careless: FaultProxy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed when a program debugs its own requests by http.client's debug level."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    with ForwardProxy() as forward:
        for proxy in ("", f"http://clerk:{PASSWORD}@{forward.address}"):
            monkeypatch.setenv("http_proxy", proxy)
            monkeypatch.setenv("https_proxy", proxy)
            with client_with_secrets(sandbox, careless, patience=100) as client:
                client.start_run("invoice-intake")
            with client_of(sandbox, "https://127.0.0.1:9") as client, pytest.raises(UnreachableError):
                client.start_run("invoice-intake", deadline=one_try())
    assert [line.split()[0] for line, _ in forward.requests] == ["POST", "CONNECT"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(302, Location="/login?pw=gehäim-4you"),
        faults.sends("HTTP/1.1 gehäim-4you\r\n\r\n".encode()),
        *(faults.says(403, "no: gehäim-4you".encode(coding)) for coding in ("utf-8", "latin-1", "utf-16")),
    ],
    ids=["header", "status", "UTF-8", "Latin-1", "UTF-16"],
)
def test_echo_in_another_encoding(sandbox: Sandbox, careless: FaultProxy, fault: Fault) -> None:
    """A password with a letter that is not ASCII is hidden in every encoding in which a server may echo it."""
    careless.break_next("StartRun", fault, times=9)
    with client_of(sandbox, careless.url, password="gehäim-4you") as client, pytest.raises(AnymateGuardError) as caught:
        client.start_run("invoice-intake", deadline=one_try())
    assert "***" in str(caught.value)
    assert "4you" not in str(caught.value)


@pytest.mark.parametrize("operation", ["token", "StartRun", "FinishRun", "Failure", "OkToRun"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_errors_and_logs(
    sandbox: Sandbox, careless: FaultProxy, log: io.StringIO, operation: str, fault: Fault
) -> None:
    """Whatever goes wrong, the error, its traceback with local variables, and the log at debug level hold no secret."""
    careless.break_next(operation, fault, times=999)
    with client_with_secrets(sandbox, careless) as client:
        error = error_of(client, operation)
        assert isinstance(error, AnymateGuardError), type(error)
        hold_no_secret(rendered(error), careless.tokens)
        hold_no_secret(repr(client), careless.tokens)
    hold_no_secret(log.getvalue(), careless.tokens)
    logging.getLogger("anybody").debug("at last")
    assert "at last" in log.getvalue()


class Interruption:
    """Raises KeyboardInterrupt when a number of lines have run."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, _: FrameType, event: str, __: Any) -> Interruption:
        """See a line."""
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def interrupted(work: Callable[[], object], after: int) -> tuple[BaseException | None, int]:
    """Do some work and interrupt it; gives the error, and how many lines were left when it ended before."""
    interruption = Interruption(after)
    before = sys.gettrace()
    sys.settrace(interruption)
    try:
        work()
    except BaseException as error:  # noqa: BLE001  # whatever it is
        sys.settrace(before)
        return error, interruption.left
    finally:
        sys.settrace(before)
    return None, interruption.left


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a socket that was just opened
def test_interrupted_anywhere(sandbox: Sandbox, careless: FaultProxy) -> None:
    """A KeyboardInterrupt in the midst of a call, at whatever line, shows no secret and leaves the client usable."""

    def interruption(after: int) -> tuple[int, BaseException | None]:
        # In a thread of its own: interrupted at the end of an `except`, Python may take its exception for being handled
        # for ever, and make it the context of any later one.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(interruption_of, sandbox, careless, after).result()

    interruption(1_000_000)  # imports what is imported late
    (lines, _), step = interruption(1_000_000), 23
    assert 1_000_000 - lines > 500
    for after in range(1, 1_000_000 - lines, step):
        _, error = interruption(after)
        if error is not None:
            assert isinstance(error, KeyboardInterrupt)
            hold_no_secret(rendered(error), careless.tokens)


def interruption_of(sandbox: Sandbox, proxy: FaultProxy, after: int) -> tuple[int, BaseException | None]:
    """Interrupt the first call of a client, and call again."""
    with client_with_secrets(sandbox, proxy, patience=50) as client:

        def call() -> None:
            client.start_run("invoice-intake", deadline=one_try())

        error, left = interrupted(call, after)
        call()
        return left, error


def settings_error(environ: dict[str, str]) -> BaseException:
    """What reading an environment raises. This frame is in its traceback; of secrets it holds a mask."""
    masked = Environment(environ)
    del environ
    try:
        Settings.from_env(masked)
    except BaseException as error:  # noqa: BLE001  # whatever it is
        return error
    raise AssertionError


class Environment(dict[str, str]):
    """An environment that doesn't show its values in the test's own frames."""

    def __repr__(self) -> str:
        return "<environment>"


@pytest.mark.parametrize(
    "changes",
    [
        {"ANYMATE_TIMEOUT": "x"},
        {"ANYMATE_API_URL": f"https://me:{PASSWORD}@anymate.example"},
        {"ANYMATE_PASSWORD_FILE": "/nowhere"},
        {"ANYMATE_CLIENT_ID": ""},
    ],
)
def test_settings_errors(changes: dict[str, str]) -> None:
    """Settings that are refused show none of their secrets."""
    environ = {
        "ANYMATE_CLIENT_ID": "acme",
        "ANYMATE_CLIENT_SECRET": SECRET,
        "ANYMATE_USERNAME": "mate",
        "ANYMATE_PASSWORD": PASSWORD,
    }
    error = settings_error({**environ, **changes})
    assert isinstance(error, ConfigurationError)
    hold_no_secret(rendered(error), [])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file that was just opened
def test_settings_interrupted_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A KeyboardInterrupt while settings are read from the environment shows no secret."""
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    for name, value in (("ID", "acme"), ("SECRET", SECRET)):
        monkeypatch.setenv(f"ANYMATE_CLIENT_{name}", value)
    monkeypatch.setenv("ANYMATE_USERNAME", "mate")
    monkeypatch.setenv("ANYMATE_PASSWORD_FILE", str(file))
    monkeypatch.delenv("ANYMATE_PASSWORD", raising=False)
    for name in ("API_URL", "AUTH_URL"):
        monkeypatch.delenv(f"ANYMATE_{name}", raising=False)
    # Named, as nothing is imported late then: at the end of a `with` no signal comes, but this interruption does.
    monkeypatch.setenv("ANYMATE_STATE_DIR", str(tmp_path))
    _, left = interrupted(Settings.from_env, 100_000)
    for after in range(1, 100_000 - left):
        error, _ = interrupted(Settings.from_env, after)
        if error is not None:
            assert isinstance(error, KeyboardInterrupt)
            hold_no_secret(rendered(error), [])


def test_faulthandler(sandbox: Sandbox, careless: FaultProxy, tmp_path: Path) -> None:
    """A dump of all threads, in the midst of a login, shows no secret."""
    dump = tmp_path / "dump"

    def dump_then_log_in(exchange: Exchange) -> None:
        with dump.open("w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
        log_in(exchange)

    careless.break_next("token", dump_then_log_in)
    with client_with_secrets(sandbox, careless, patience=100) as client:
        client.ok_to_run("invoice-intake")
    assert "until_answered" in dump.read_text()
    hold_no_secret(dump.read_text(), careless.tokens)


def test_cause_of_an_interruption(sandbox: Sandbox, careless: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interruption says that it comes from shows no frame of a call either."""

    def interrupt(*_: object, **__: object) -> None:
        try:
            int("its cause")
        except ValueError as error:
            cause = error
        try:
            int("meanwhile")
        except ValueError:
            raise KeyboardInterrupt from cause

    monkeypatch.setattr(socket, "getaddrinfo", interrupt)
    with client_with_secrets(sandbox, careless) as client:
        error = error_of(client, "StartRun")
    assert isinstance(error, KeyboardInterrupt)
    assert isinstance(error.__cause__, ValueError)
    assert error.__cause__.__traceback__ is None
    hold_no_secret(rendered(error), careless.tokens)


def test_outer_exception_keeps_its_traceback(sandbox: Sandbox, careless: FaultProxy) -> None:
    """The traceback of an exception that the bot is handling while it calls us stays whole."""
    careless.break_next("StartRun", faults.reset_before, times=9)
    with client_with_secrets(sandbox, careless) as client:
        own, before, error = None, None, None
        try:
            int("the bot's own")
        except ValueError as raised:
            own, before = raised, raised.__traceback__
            error = error_of(client, "StartRun")
        assert own is not None
        assert error is not None
        assert own.__traceback__ is before is not None
        assert error.__context__ is own
