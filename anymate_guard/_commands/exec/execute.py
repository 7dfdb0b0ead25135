"""`anymate-guard exec`: run a command inside a guard, and end as it did."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager

from anymate_guard import AnymateGuardError, NotOkToRun, Run, UnreachableError, anymate_run
from anymate_guard._commands.exec.command import Command, CommandFailed, Stopped
from anymate_guard._commands.log import Event, collected, rendering, told
from anymate_guard._commands.terminal import say

TEMPORARY_FAILURE, WRONG_CONFIGURATION = 75, 78  # as in sysexits.h


def execute(options: Namespace) -> int:
    """Run a command inside a guard.

    Args:
        options: `process_key`; `words`, the command and its arguments; `keep_credentials`, whether it gets
            the client secret and the password; `quiet`, `verbose` and `log_format`; and those of `anymate_run`.

    Returns:
        The exit code.
    """
    least = "error" if options.quiet else "warning"
    show = "info" if options.verbose else least if options.log_format else None
    troubles = collected(show, rendering(options.log_format or "console") if show else ())

    def warn(text: str) -> None:
        if not options.quiet:
            say("exec", text)

    command = Command(options.words, warn, keep_credentials=options.keep_credentials, listen=options.report_failure)
    try:
        with _guard(options) as run:
            command.run(run)
    except (CommandFailed, Stopped):
        pass
    except NotOkToRun as reason:
        warn(f"{reason} The command was not run.")
        return 0
    except AnymateGuardError as error:
        if not command.over:
            say("exec", f"{error}\nThe command was not run.")
            return TEMPORARY_FAILURE if isinstance(error, UnreachableError) else WRONG_CONFIGURATION
        if not any(event["event"] == "anymate.finish_refused" for event in troubles):
            command.code = TEMPORARY_FAILURE  # --require-finish, and the finish is still owed
    urgent = [event for event in troubles if not options.quiet or event["level"] == "error"]
    if urgent and show is None:
        say("exec", _summary(urgent))
    return command.code


def _guard(options: Namespace) -> AbstractContextManager[Run]:
    return anymate_run(
        options.process_key,
        check_ok_to_run=options.check_ok_to_run,
        report_failure=options.report_failure,
        default_credit=options.default_credit,
        require_start=options.require_start,
        require_finish=options.require_finish,
    )


def _summary(troubles: Sequence[Event]) -> str:
    return "trouble with Anymate: " + "; ".join(dict.fromkeys(map(told, troubles)))
