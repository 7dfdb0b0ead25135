"""Answers as HTTP responses: JSON, never cached, errors included."""

from __future__ import annotations

import json
from collections.abc import Callable

from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.wrappers import Response

from anymate_guard.sandbox._values import Refused

JSON_TYPE = "application/json; charset=utf-8"


def json_response(value: object, status: int = 200) -> Response:
    """Return a value as a JSON answer."""
    return uncached(Response(json.dumps(value), status, content_type=JSON_TYPE))


def uncached(response: Response) -> Response:
    """Mark an answer as one no cache may keep: StartRun and TakeNext are GETs that change something."""
    response.headers["Cache-Control"] = "no-store"
    return response


def answered(act: Callable[[], Response]) -> Response:
    """Return the answer of a call, with errors turned into answers."""
    try:
        return act()
    except HTTPException as error:
        return _problem(error)
    except Refused as error:
        return _problem(BadRequest(str(error)))


def _problem(error: HTTPException) -> Response:
    response = Response(
        json.dumps({"succeeded": False, "message": error.description}),
        error.code,
        [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"],
        content_type=JSON_TYPE,
    )
    return uncached(response)
