"""The errors of this package, all under one base class.

    AnymateGuardError
    ├── ConfigurationError          settings missing or wrong: .problems
    ├── NotOkToRun                  OkToRun said no: .gate_open .tasks_available .not_blocked_date
    ├── NoCurrentRun (LookupError)  current_run() outside a guard
    ├── UnreachableError            no usable answer before the deadline: .operation .reason .maybe_sent
    └── ApiError                    an answer that means no: .operation .status .message .maybe_sent .said_no .foreign
        └── AuthenticationError     the credentials were refused

Every error keeps its facts as attributes and survives pickling, so it can travel back from a worker process.
"""

from __future__ import annotations

from collections.abc import Sequence


class AnymateGuardError(Exception):
    """Base of every error that this package raises by itself."""


class ConfigurationError(AnymateGuardError):
    """Settings are missing or wrong, or a process key can't be one.

    Attributes:
        problems: One sentence per problem, each beginning with the name of the variable or argument.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        return f"{len(self.problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in self.problems)


class NotOkToRun(AnymateGuardError):
    """Anymate answered OkToRun with no; nothing was started.

    Attributes:
        gate_open: False when somebody pressed Stop Process.
        tasks_available: Whether the process has a task that is ready.
        not_blocked_date: False when today is blocked in the process's calendar.
    """

    def __init__(self, process_key: str, gate_open: bool, tasks_available: bool, not_blocked_date: bool) -> None:
        self.process_key = process_key
        self.gate_open = gate_open
        self.tasks_available = tasks_available
        self.not_blocked_date = not_blocked_date
        super().__init__(process_key, gate_open, tasks_available, not_blocked_date)

    def __str__(self) -> str:
        if not self.gate_open:
            reason = "the process is stopped"
        elif not self.not_blocked_date:
            reason = "today is blocked in its calendar"
        else:
            reason = "it has no task that is ready"
        return f"Anymate says that {self.process_key!r} is not OK to run: {reason}. No run was started."


class NoCurrentRun(AnymateGuardError, LookupError):
    """`current_run()` was called where no guard is open."""


class UnreachableError(AnymateGuardError):
    """Anymate gave no usable answer before the deadline.

    Attributes:
        operation: The call, such as "StartRun".
        reason: What came back last, or what the operating system said.
        maybe_sent: Whether a try may have reached Anymate and taken effect.
    """

    def __init__(self, operation: str, reason: str, maybe_sent: bool = False) -> None:
        self.operation = operation
        self.reason = reason
        self.maybe_sent = maybe_sent
        super().__init__(operation, reason, maybe_sent)

    def __str__(self) -> str:
        return f"{self.operation} got no usable answer from Anymate in time: {self.reason}"


class ApiError(AnymateGuardError):
    """Anymate answered, and the answer means no.

    Attributes:
        operation: The call, such as "StartRun".
        status: The HTTP status; 200 where the body said `"succeeded": false` or made no sense.
        message: What Anymate said (at most 200 characters, secrets masked) and what to do about it.
        maybe_sent: Whether an earlier try, which got no usable answer, may have taken effect.
        said_no: Whether the answer says `"succeeded": false`; a status alone may be a gateway's.
        foreign: Whether the answer is a page that is not Anymate's: a gateway's, which may not reach it just now.
    """

    def __init__(
        self,
        operation: str,
        status: int,
        message: str,
        maybe_sent: bool = False,
        *,
        said_no: bool = False,
        foreign: bool = False,
    ) -> None:
        self.operation = operation
        self.status = status
        self.message = message
        self.maybe_sent = maybe_sent
        self.said_no = said_no
        self.foreign = foreign
        super().__init__(operation, status, message, maybe_sent)  # the others are pickled as attributes

    def __str__(self) -> str:
        return f"{self.operation} was refused by Anymate (HTTP {self.status}): {self.message}"


class AuthenticationError(ApiError):
    """Anymate refused the credentials."""
