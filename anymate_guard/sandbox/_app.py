"""The WSGI application: keeps strangers out, then hands each request to its side."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from werkzeug.exceptions import Forbidden, RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from anymate_guard.sandbox._api.calls import Api
from anymate_guard.sandbox._api.control import Control
from anymate_guard.sandbox._http import answered
from anymate_guard.sandbox._page.page import Page
from anymate_guard.sandbox._state.world import World

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MAX_BODY = 2**20
CHUNK = 2**16
LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?", re.IGNORECASE)


class App:
    """The sandbox as a WSGI application."""

    def __init__(self, world: World, control: Control) -> None:
        self._api = Api(world)
        self._control = control
        self._page = Page(world)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; a reset or a hang raises `Dropped` instead."""
        request = Request(environ)
        response = answered(lambda: self._respond(request))
        return response(environ, start_response)

    def _respond(self, request: Request) -> Response:
        _guard(request)
        data = _body(request)
        path = _raw_path(request)
        segments = path.removeprefix("/").removesuffix("/").split("/")
        if segments[0] == "sandbox":
            return self._control.respond(request.method, segments[1:], data)
        if segments == [""] or segments[0] == "page":
            return self._page.respond(request, segments)
        return self._api.respond(request, path, segments, data)


def _guard(request: Request) -> None:
    """Refuse what a web page elsewhere could make a browser send here."""
    host = request.environ.get("HTTP_HOST", "")
    if not LOOPBACK.fullmatch(host):
        raise Forbidden("The sandbox answers only to 127.0.0.1, localhost and [::1].")
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{host}":
        raise Forbidden("Requests from other origins are refused.")
    foreign = request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
    if foreign and request.method not in ("GET", "HEAD"):
        raise Forbidden("Requests from other sites are refused.")


def _body(request: Request) -> bytes:
    """Return the body unless it is too large; the limit werkzeug has would cut a chunked one short."""
    data = b""
    while piece := request.environ["wsgi.input"].read(CHUNK):
        data += piece
        if len(data) > MAX_BODY:
            raise RequestEntityTooLarge("A body may have 1 MiB.")
    return data


def _raw_path(request: Request) -> str:
    """Return the path as it was sent: PATH_INFO is decoded, so a key with a slash would fall apart there."""
    target: str = request.environ["REQUEST_URI"]
    path = target if target.startswith("/") else urlsplit(target).path
    return path.partition("?")[0]
