"""The page at `/`: what Anymate would show of a bot, its files, and the parts that its script asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.wrappers import Response

from anymate_guard.sandbox._http import json_response, uncached
from anymate_guard.sandbox._page import calls, overview, runs
from anymate_guard.sandbox._page.board import Query, board
from anymate_guard.sandbox._page.markup import STATIC, fragment, join, link
from anymate_guard.sandbox._shells import shell_lines
from anymate_guard.sandbox._state.tokens import CREDENTIALS

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from anymate_guard.sandbox._state.world import World

FILES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
# Even if something got past the escaping, it could not run, nor call anything but the sandbox.
SAFETY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Page:
    """Answers `/` and what is below `/page`; it only looks, the buttons use the control side."""

    def __init__(self, world: World) -> None:
        self._world = world

    def respond(self, request: Request, segments: list[str]) -> Response:
        """Answer a request."""
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(["GET"], "The page wants GET.")
        response = uncached(self._response(request, segments))
        response.headers.update(SAFETY)
        return response

    def _response(self, request: Request, segments: list[str]) -> Response:
        name = "/".join(segments[1:])
        if segments[0] != "page":
            return self._whole(request)
        if name == "parts":
            return json_response(self._parts(request))
        if name in FILES:
            return Response((STATIC / name).read_bytes(), content_type=FILES[name])
        raise NotFound("The page has no such part.")

    def _whole(self, request: Request) -> Response:
        address = f"http://{request.host}"
        environ = {f"ANYMATE_{name.upper()}": value for name, value in CREDENTIALS.items()}
        environ |= {"ANYMATE_API_URL": address, "ANYMATE_AUTH_URL": address}
        shells = {**shell_lines(environ, "linux"), **shell_lines(environ, "win32")}
        template = Markup((STATIC / "page.html").read_text(encoding="utf-8"))  # noqa: S704  # our own file
        text = template.format(
            address=address,
            open=Markup() if self._world.state.processes() else Markup(" open"),
            setup=join(fragment("setup", shell=shell, lines=lines) for shell, lines in shells.items()),
            find=Query.of(request.args).find,
            **self._parts(request),
        )
        return Response(text, content_type="text/html; charset=utf-8")

    def _parts(self, request: Request) -> dict[str, Markup]:
        """Return the parts of the page that change, by the id of the element they go into."""
        shown = board(self._world, Query.of(request.args))
        tokens, words = (None, "Hide token calls") if shown.query.tokens else (1, "Show token calls")
        return {
            "summary": overview.summary(shown),
            "charts": overview.charts(shown),
            "processes": overview.processes(shown),
            "runs": runs.runs(shown),
            "faults": calls.faults(shown.faults),
            "failures": calls.failures(shown.failures, shown.all_failures, shown.now),
            "journal": calls.journal(shown.journal),
            "tokens": link(overview.href(shown, tokens=tokens), words),
            "requests": calls.requests(shown.requests, shown.now),
        }
