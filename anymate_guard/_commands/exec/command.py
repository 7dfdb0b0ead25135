"""The command that `anymate-guard exec` runs: its environment, its signals, its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from anymate_guard import Run
from anymate_guard._commands.exec.kpi_file import KpiFile, kpi_file
from anymate_guard._commands.exec.last_words import LastWords
from anymate_guard._commands.terminal import quoted, say
from anymate_guard._guard.failures import Told
from anymate_guard._process import signals
from anymate_guard._settings import SECRETS, variable

NOT_EXECUTABLE, NOT_FOUND = 126, 127  # as in shells
_POLL = 0.2  # seconds between two looks at the KPI file
_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGBREAK", "SIGUSR1", "SIGUSR2")
_SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


class CommandFailed(Told):
    """The command did not end well; the text is what Anymate is told."""


class Stopped(KeyboardInterrupt):
    """The command did not end well because somebody stopped it."""


class Command:
    """A command that is run once, with the signals passed on to it.

    Args:
        words: The command and its arguments.
        warn: Tells people of what is odd.
        keep_credentials: Whether it gets the client secret and the password.
        listen: Whether a failure's message quotes the end of what it wrote to stderr, unless that is a terminal: people
            see it there, and the command behaves as it does there.

    Attributes:
        over: Whether it has ended, or could not be started.
        code: Its exit code, then.
    """

    def __init__(
        self, words: Sequence[str], warn: Callable[[str], None], *, keep_credentials: bool, listen: bool
    ) -> None:
        self.over = False
        self.code = 0
        self._words = words
        self._warn = warn
        self._keep_credentials = keep_credentials
        self._listen = listen and not sys.stderr.isatty()
        self._process: subprocess.Popen[bytes] | None = None
        self._came: signals.Came | None = None  # the last signal to stop
        self._early: list[int] = []  # signals that came before there was a process

    def run(self, run: Run) -> None:
        """Run it to its end.

        Raises:
            CommandFailed: It could not be run, or its exit code is not 0.
            Stopped: Its exit code is not 0, and a signal to stop came before.
        """
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._pass_on)
        if sys.platform != "win32":
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as we may have inherited it, no exit code is told
        with kpi_file(run, self._warn) as kpis:
            process = self._started(run, kpis.path)
            last_words = LastWords(process.stderr) if process.stderr else None
            self._wait(process, kpis)
            said = last_words.text() if last_words else ""
        if self.code == 0:
            return
        if self._came:
            raise Stopped
        raise CommandFailed(f"{quoted(self._words[0])} ended with exit code {self.code}{said and ': '}{said}")

    def _started(self, run: Run, kpis: Path) -> subprocess.Popen[bytes]:
        words = self._words
        if sys.platform == "win32":  # which finds mybot.exe only, where a shell finds mybot.cmd too
            words = [shutil.which(words[0]) or words[0], *words[1:]]
        try:
            self._process = subprocess.Popen(
                words,
                env=self._environ(run, kpis),
                stderr=subprocess.PIPE if self._listen else None,
                close_fds=False,  # those of `make -j`, of `3>log`, are its own; ours are not inherited
            )
        except OSError as error:
            self.over = True
            self.code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            run.set_kpis(entries=0, seconds_saved=0)  # no work was done
            problem = f"can't run {quoted(self._words[0])}: {error.strerror}"
            say("exec", problem)
            raise CommandFailed(problem) from None
        for number in self._early:
            self._send(self._process, number)
        return self._process

    def _wait(self, process: subprocess.Popen[bytes], kpis: KpiFile) -> None:
        while True:
            try:
                code = process.wait(_POLL)
            except subprocess.TimeoutExpired:
                kpis.read()
            else:
                self.over = True
                self.code = _exit_code(code)
                break
        kpis.finish()

    def _environ(self, run: Run, kpis: Path) -> dict[str, str]:
        hidden = {"ANYMATE_RUN_ID"}  # that of a guard around this one
        if not self._keep_credentials:
            hidden.update(variable(name) + form for name in SECRETS for form in ("", "_FILE"))
        environ = {name: value for name, value in os.environ.items() if name not in hidden}
        environ.update(ANYMATE_PROCESS_KEY=run.process_key, ANYMATE_KPI_FILE=str(kpis))
        if run.run_id is not None:
            environ["ANYMATE_RUN_ID"] = str(run.run_id)
        return environ

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        """Handle a signal: the command decides what becomes of it, until its end."""
        came = self._came
        if _means_stop(number) and not (came and signals.is_the_same(number, came)):
            self._came = number, time.monotonic()
            if self.over and came:
                signals.end_at_once(number)  # its run is being finished; only a second signal ends that
        if self.over:
            return
        if self._process is None:
            self._early.append(number)
        elif not _given_already(number):
            self._send(self._process, number)

    @staticmethod
    def _send(process: subprocess.Popen[bytes], number: int) -> None:
        if sys.platform == "win32":  # which sends no other one to a single process
            number = signal.SIGTERM
        with contextlib.suppress(PermissionError):  # it runs as another user, as sudo does, which decides for itself
            process.send_signal(number)


def _exit_code(code: int) -> int:
    """The exit code as a shell gives it."""
    if sys.platform == "win32":  # where Python 3.11 makes 0xFFFFFFFF of what is no signed number of 32 bits
        return code - (1 << 32) if code >= 1 << 31 else code
    return code if code >= 0 else 128 - code


def _means_stop(number: int) -> bool:
    """Whether a signal is to end the command; the others mean what it takes them for."""
    return "USR" not in signal.Signals(number).name


def _given_already(number: int) -> bool:
    """Whether the terminal has given the signal to the command too, as to all programs in the foreground."""
    if sys.platform == "win32":
        return number != signal.SIGTERM
    if number not in {signal.SIGINT, signal.SIGQUIT}:
        return False
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)
