"""The routes bots call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import parse_qsl, unquote

from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import BadRequest, MethodNotAllowed, NotFound, Unauthorized, UnsupportedMediaType
from werkzeug.wrappers import Request, Response

from anymate_guard.sandbox import _values as values
from anymate_guard.sandbox._http import answered, json_response
from anymate_guard.sandbox._state.kpi import Overrides
from anymate_guard.sandbox._state.tokens import LoginError
from anymate_guard.sandbox._state.traffic import shown_body, shown_login
from anymate_guard.sandbox._state.world import World
from anymate_guard.sandbox._values import Refused
from anymate_guard.sandbox._views import RequestView

CONNECTION = "anymate_guard.sandbox.connection"
TOKEN = "token"  # noqa: S105  # the name of a call
KEYED = {
    "StartRun": "GET",
    "StartOrGetRun": "GET",
    "OkToRun": "GET",
    "TakeNext": "GET",
    "CreateTask": "POST",
    "CreateTasks": "POST",
}
TASK_ENDS = ("Solved", "Manual", "Error", "Retry")
UNKEYED = ("FinishRun", "Failure", *TASK_ENDS)
OPERATIONS = (TOKEN, *KEYED, *UNKEYED)
TASK_OPTIONS = ("comment", "activationdate")


@dataclass(frozen=True)
class Call:
    """A request for an operation; `key` is the process key of its path, if it has one."""

    operation: str
    request: Request
    data: bytes
    key: str = ""

    def fields(self) -> dict[str, object]:
        """Return the fields of the body by lower-case name."""
        return values.fold(values.as_object(self.body()))

    def body(self) -> object:
        """Return the body."""
        if self.request.mimetype != "application/json":
            raise UnsupportedMediaType("The body has to be JSON, with Content-Type: application/json.")
        return values.read_json(self.data)


class Api:
    """Answers the calls of bots, or lets them go wrong."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._actions: Mapping[str, Callable[[Call], object]] = {
            "StartRun": self._start_run,
            "StartOrGetRun": self._start_run,
            "OkToRun": lambda call: world.state.ok_to_run(call.key),
            "TakeNext": lambda call: world.state.take_next(call.key),
            "CreateTask": self._create_task,
            "CreateTasks": self._create_tasks,
            "FinishRun": self._finish_run,
            "Failure": self._failure,
            **dict.fromkeys(TASK_ENDS, self._give_back),
        }

    def respond(self, request: Request, path: str, segments: list[str], data: bytes) -> Response:
        """Answer a request and remember it."""
        operation = _operation(segments)
        seen = self._seen(request, path, operation, data)
        self._world.traffic.add(seen)
        response = answered(lambda: self._play(_route(request, segments, operation, data), seen))
        seen["answer"] = _shown_answer(operation, response)
        seen["status"] = response.status_code
        return response

    def _seen(self, request: Request, path: str, operation: str | None, data: bytes) -> RequestView:
        return {
            "operation": operation,
            "method": request.method,
            "path": path,
            "processKey": None,
            "body": shown_login(data, is_form=_is_form(request)) if operation == TOKEN else shown_body(data),
            "status": None,
            "answer": "",
            "connection": request.environ[CONNECTION],
            "at": values.iso(self._world.clock()),
            "userAgent": request.headers.get("User-Agent", ""),
        }

    def _play(self, call: Call, seen: RequestView) -> Response:
        def act() -> Response:
            return answered(lambda: self._act(call))

        alarm = self._world.alarm.event()
        key = self._target(call)
        seen["processKey"] = key
        fault = self._world.faults.take(call.operation, key)
        return act() if fault is None else fault.play(act, alarm)

    def _act(self, call: Call) -> Response:
        if call.operation == TOKEN:
            return self._login(call)
        self._authorize(call.request)
        return json_response(self._actions[call.operation](call))

    def _target(self, call: Call) -> str | None:
        """Return the process key a call is about, as far as it can be told."""
        if call.operation == TOKEN:
            return None
        if call.key:
            return call.key
        try:
            fields = call.fields()
            if call.operation == "FinishRun":
                return self._world.state.key_of_run(values.identity("runId", fields.get("runid")))
            if call.operation == "Failure":
                return values.text("processKey", fields.get("processkey"))
            return self._world.state.key_of_task(values.identity("taskId", fields.get("taskid")))
        except (Refused, UnsupportedMediaType):
            return None

    def _authorize(self, request: Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("A bearer token is required.", www_authenticate=WWWAuthenticate("bearer"))
        if not self._world.tokens.valid(token.strip()):
            challenge = WWWAuthenticate("bearer", {"error": "invalid_token"})
            raise Unauthorized("The token is not valid, or no longer.", www_authenticate=challenge)

    def _login(self, call: Call) -> Response:
        if not _is_form(call.request):
            return json_response({"error": "invalid_request"}, 400)
        form = dict(parse_qsl(call.data.decode(errors="replace"), keep_blank_values=True))
        try:
            return json_response(self._world.tokens.login(form))
        except LoginError as error:
            return json_response({"error": str(error)}, 400)

    def _start_run(self, call: Call) -> object:
        return {"processKey": call.key, "runId": self._world.state.start_run(call.key)}

    def _finish_run(self, call: Call) -> object:
        fields = call.fields()
        run_id = values.identity("runId", fields.get("runid"))
        return _result(self._world.state.finish_run(run_id, _overrides(fields)))

    def _failure(self, call: Call) -> object:
        fields = call.fields()
        key = values.text("processKey", fields.get("processkey"))
        if not key.strip():
            raise Refused("processKey must not be blank.")
        self._world.state.fail(key, values.text("message", fields.get("message", "")))
        return _result(None)

    def _create_task(self, call: Call) -> object:
        (task_id,) = self._world.state.create_tasks(call.key, [_task(call.body())])
        return {**_result(None), "taskId": task_id}

    def _create_tasks(self, call: Call) -> object:
        tasks = call.body()
        if not isinstance(tasks, list):
            raise Refused("The body has to be an array of JSON objects.")
        task_ids = self._world.state.create_tasks(call.key, [_task(task) for task in tasks])
        return {**_result(None), "taskIds": task_ids}

    def _give_back(self, call: Call) -> object:
        fields = call.fields()
        task_id = values.identity("taskId", fields.get("taskid"))
        reason = values.text("reason", fields.get("reason", ""))
        overrides, active_from = _overrides(fields), _moment(fields.get("activationdate"))
        return _result(self._world.state.give_back(task_id, call.operation, reason, overrides, active_from))


def _shown_answer(operation: str | None, response: Response) -> str:
    """Return an answer as the list of requests shows it."""
    is_token = operation == TOKEN and response.status_code == 200
    return "(a token)" if is_token else shown_body(response.get_data())


def _operation(segments: list[str]) -> str | None:
    """Return the operation a path names."""
    if segments == ["connect", "token"]:
        return TOKEN
    if len(segments) == 3 and segments[0] == "api" and segments[1] in KEYED:
        return segments[1]
    if len(segments) == 2 and segments[0] == "api" and segments[1] in UNKEYED:
        return segments[1]
    return None


def _route(request: Request, segments: list[str], operation: str | None, data: bytes) -> Call:
    if operation is None:
        raise NotFound("There is nothing at this address.")
    key = process_key(segments[2]) if operation in KEYED else ""
    method = KEYED.get(operation, "POST")
    if request.method != method:
        raise MethodNotAllowed([method], f"{operation} wants {method}.")
    return Call(operation, request, data, key)


def process_key(segment: str) -> str:
    """Return the process key a path segment stands for."""
    try:
        key = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest("The process key is not percent-encoded UTF-8.") from None
    if not key.strip():
        raise NotFound("The process key is blank.")
    return key


def _is_form(request: Request) -> bool:
    return request.mimetype == "application/x-www-form-urlencoded"


def _result(problem: str | None) -> dict[str, object]:
    return {"succeeded": problem is None, "message": problem or ""}


def _overrides(fields: dict[str, object]) -> Overrides:
    def read(name: str) -> int | None:
        value = fields.get(name.lower())
        return None if value is None else values.count(name, value)

    return Overrides(read("overwriteEntries"), read("overwriteSecondsSaved"))


def _task(value: object) -> tuple[dict[str, object], float | None]:
    """Split a new task into its own fields and the time it becomes active."""
    fields = values.as_object(value)
    own = {name: value for name, value in fields.items() if name.lower() not in TASK_OPTIONS}
    return own, _moment(values.fold(fields).get("activationdate"))


def _moment(value: object) -> float | None:
    """Read an ISO 8601 time; one without an offset is taken as UTC."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(values.text("activationDate", value).replace("Z", "+00:00"))
    except ValueError:
        raise Refused(f"activationDate has to be an ISO 8601 time, not {values.shown(value)}.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
