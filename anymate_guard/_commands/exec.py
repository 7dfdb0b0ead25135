"""`anymate-guard exec`: guard any program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType

from anymate_guard import AnymateGuardError, NotOkToRun, Run, UnreachableError, anymate_run
from anymate_guard._commands.kpi_file import KpiFile, kpi_file
from anymate_guard._commands.terminal import Event, collected, say, told

TEMPORARY_FAILURE, WRONG_CONFIGURATION = 75, 78  # as in sysexits.h
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # as in shells
_POLL = 0.2  # seconds between two looks at the KPI file
_SECRETS = ("ANYMATE_CLIENT_SECRET", "ANYMATE_PASSWORD")
_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")
_SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


class CommandFailed(Exception):
    """The command did not end well; the text is what Anymate is told."""


class Stopped(KeyboardInterrupt):
    """The command did not end well because somebody stopped it."""


def execute(options: Namespace) -> int:
    """Run a command inside a guard.

    Args:
        options: `process_key`; `words`, the command and its arguments; `keep_credentials`, whether it gets
            the client secret and the password; and those of `anymate_run`.

    Returns:
        The exit code.
    """
    troubles = collected()
    command = Command(options.words, keep_credentials=options.keep_credentials)
    try:
        with _guard(options) as run:
            command.run(run)
    except (CommandFailed, Stopped):
        pass
    except NotOkToRun as reason:
        say("exec", f"{reason} The command was not run.")
        return 0
    except AnymateGuardError as error:
        if not command.over:
            say("exec", f"{error}\nThe command was not run.")
            return TEMPORARY_FAILURE if isinstance(error, UnreachableError) else WRONG_CONFIGURATION
        if not any(event["event"] == "anymate.finish_refused" for event in troubles):
            command.code = TEMPORARY_FAILURE  # --require-finish, and the finish is still owed
    _tell(troubles)
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


def _tell(troubles: Sequence[Event]) -> None:
    if troubles:
        say("exec", "trouble with Anymate: " + "; ".join(dict.fromkeys(map(told, troubles))))


class Command:
    """A command that is run once, with the signals passed on to it.

    Attributes:
        over: Whether it has ended, or could not be started.
        code: Its exit code, then.
    """

    def __init__(self, words: Sequence[str], *, keep_credentials: bool) -> None:
        self.over = False
        self.code = 0
        self._words = words
        self._keep_credentials = keep_credentials
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._early: list[int] = []  # signals that came before there was a process

    def run(self, run: Run) -> None:
        """Run it to its end.

        Raises:
            CommandFailed: It could not be run, or its exit code is not 0.
            Stopped: Its exit code is not 0, and a signal came before.
        """
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._pass_on)
        with kpi_file(run) as kpis:
            self._wait(self._started(run, kpis.path), kpis)
        if self.code == 0:
            return
        if self._stopped:
            raise Stopped
        raise CommandFailed(f"{self._words[0]!r} ended with exit code {self.code}")

    def _started(self, run: Run, kpis: Path) -> subprocess.Popen[bytes]:
        try:
            self._process = subprocess.Popen(self._words, env=self._environ(run, kpis))
        except OSError as error:
            self.over = True
            self.code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            run.set_kpis(entries=0, seconds_saved=0)  # no work was done
            problem = f"can't run {self._words[0]!r}: {error.strerror}"
            say("exec", problem)
            raise CommandFailed(problem) from error
        for number in self._early:
            self._process.send_signal(number)
        return self._process

    def _wait(self, process: subprocess.Popen[bytes], kpis: KpiFile) -> None:
        while True:
            try:
                code = process.wait(_POLL)
            except subprocess.TimeoutExpired:
                kpis.read()
            else:
                self.over = True
                self.code = code if code >= 0 else 128 - code
                break
        kpis.read(end=True)

    def _environ(self, run: Run, kpis: Path) -> dict[str, str]:
        hidden = {"ANYMATE_RUN_ID"}  # that of a guard around this one
        if not self._keep_credentials:
            hidden.update(name + form for name in _SECRETS for form in ("", "_FILE"))
        environ = {name: value for name, value in os.environ.items() if name not in hidden}
        environ.update(ANYMATE_PROCESS_KEY=run.process_key, ANYMATE_KPI_FILE=str(kpis))
        if run.run_id is not None:
            environ["ANYMATE_RUN_ID"] = str(run.run_id)
        return environ

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        """Handle a signal: the command decides what becomes of it, until its end."""
        if self.over:
            signal.signal(number, signal.SIG_DFL)  # its run is being finished; only a second signal ends that
            return
        self._stopped = True
        if self._process is None:
            self._early.append(number)
        elif not _given_already(number):
            self._process.send_signal(number)


def _given_already(number: int) -> bool:
    """Whether the terminal has given the signal to the command too, as to all programs in the foreground."""
    if sys.platform == "win32":
        return number != signal.SIGTERM
    if number != signal.SIGINT:
        return False
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)
