"""The words after `anymate-guard`: which command, and what it is told."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from anymate_guard import TYPE_CHECKING, __version__  # not from typing, which --version need not wait for

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_EXEC_USAGE = "anymate-guard exec [OPTION …] PROCESS_KEY [--] COMMAND …"
_EXEC_SWITCHES = (
    ("--check-ok-to-run", "ask Anymate first; if it says no, run nothing and exit with 0"),
    ("--report-failure", "when the command failed, report it to Anymate, with its last lines on stderr"),
    ("--require-start", "exit with 75, and run nothing, while Anymate is unreachable"),
    ("--require-finish", "exit with 75 when the command succeeded, but its finish is still owed"),
    ("--keep-credentials", "leave client secret and password in the environment: for a guarded Python bot"),
)
_EXEC_HELP = """\
KPIs:
  The command finds the path of a file in ANYMATE_KPI_FILE. Lines that it
  appends there, such as entries=3 and seconds_saved=12.5, add up.
  `anymate-guard record entries=3` does it from any shell.

exit codes:
  its own, or 128 + n   the command ended by itself, or by signal n
  127, 126              it was not found, or could not be executed
  78                    settings missing or wrong, credentials refused, process
                        unknown: the command was not run
  75                    --require-start, and Anymate is unreachable: it was not
                        run; or --require-finish, and the finish is owed
  0                     also if --check-ok-to-run heard no: it was not run

examples:
  anymate-guard exec invoice-intake ./nightly.sh
  anymate-guard exec --report-failure invoice-intake -- python bot.py --all
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the words; a mistake in them, `--help` and `--version` end the program.

    Returns:
        What they say, with the command's function as `run`.
    """
    # What follows `--` is taken away first, as argparse treats it otherwise in each version.
    end = [*arguments, "--"].index("--") if arguments[:1] == ["exec"] else len(arguments)
    command = arguments[end + 1 :] if end < len(arguments) else None
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks, at a press of Tab
        import argcomplete

        argcomplete.autocomplete(parser)
    return parser.parse_args(arguments[:end], argparse.Namespace(command=command))


def _parser() -> argparse.ArgumentParser:
    def run(_: argparse.Namespace) -> int:
        parser.print_help(sys.stderr)  # no command was given
        return 2

    parser = argparse.ArgumentParser(
        "anymate-guard", description="Guard runs on Anymate, and try it out without an account."
    )
    parser.set_defaults(run=run)
    parser.add_argument("-V", "--version", action="version", version=__version__, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", dest="name", metavar="COMMAND")
    for add in (
        _add_demo,
        _add_sandbox,
        _add_check,
        _add_exec,
        _add_record,
        _add_journal,
        _add_history,
        _add_completion,
    ):
        add(commands)
    return parser


def _add_sandbox(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from anymate_guard._commands.sandbox import sandbox

        return sandbox(options.port)

    parser = commands.add_parser("sandbox", help="serve a local Anymate, to develop bots without an account")
    parser.add_argument("--port", type=_port, help="port on 127.0.0.1 (default: 8642, or the next that is free)")
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    if text.isdecimal() and len(text) <= 5 and int(text) <= 65_535:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 65535, got {text!r}")


def _add_demo(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from anymate_guard._commands.demo import demo

        return demo(options.file, log_format=options.log_format, open_page=options.open)

    parser = commands.add_parser("demo", help="see an example bot at work on a local Anymate")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.csv", help="invoices (default: the example's own)")
    parser.add_argument("--open", action="store_true", help="keep the local Anymate up, and open its page")
    _add_log_format(parser)
    parser.set_defaults(run=run)


def _add_log_format(parser: argparse.ArgumentParser) -> None:
    text = "print log lines to stderr as they come, in this format"
    parser.add_argument("--log-format", choices=["console", "json"], help=text)


def _add_exec(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        options.words = _command(options, parser.error)
        from anymate_guard._commands.exec.execute import execute

        return execute(options)

    parser = commands.add_parser(
        "exec",
        usage=_EXEC_USAGE,
        help="guard any program",
        description="Run a command as a run on Anymate: it is finished however the command ends.",
        epilog=_EXEC_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("process_key", metavar="PROCESS_KEY", help="which process")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND …", help="and its arguments")
    for option, text in _EXEC_SWITCHES:
        parser.add_argument(option, action="store_true", help=text)
    parser.add_argument(
        "--default-credit",
        choices=["always", "succeeded", "never"],
        default="always",
        help="when Anymate's default may stand for a KPI that was not recorded (default: always)",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="keep quiet about trouble that can wait")
    loudness.add_argument("-v", "--verbose", action="store_true", help="print the guard's log lines as they come")
    _add_log_format(parser)
    parser.set_defaults(run=run)


def _command(options: argparse.Namespace, refuse: Callable[[str], object]) -> Sequence[str]:
    """The command and its arguments; without `--` only where no word can be taken for an option of ours."""
    before: Sequence[str] = options.words
    after: Sequence[str] | None = options.command
    key = shlex.quote(options.process_key)
    if after is not None and before:
        if before[0].startswith("-"):
            refuse(f"put the options before the process key: {shlex.join(before)} stands between it and --")
        refuse(f"put -- before the command: anymate-guard exec {key} -- {shlex.join([*before, '--', *after])}")
    if not (after or before):
        refuse(f"name the command, as in: anymate-guard exec {key} -- ./bot.sh")
    if after is None and before[0].startswith("-"):
        refuse(f"put the options before the process key, as in: anymate-guard exec {before[0]} {key} -- ./bot.sh")
    if after is None and any(word.startswith("-") for word in before):
        refuse(f"put -- before a command with options: anymate-guard exec {key} -- {shlex.join(before)}")
    return before if after is None else after


def _add_record(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from anymate_guard._commands.exec.record import record

        return record(options.kpis)

    text = "add to the KPIs of the run, from a command that `exec` guards"
    parser = commands.add_parser("record", help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("kpis", nargs="+", metavar="KPI", help="entries=3 or seconds_saved=12.5; they add up")
    parser.set_defaults(run=run)


def _add_check(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from anymate_guard._commands.check.check import check

        return check(options.process_key, as_json=options.json)

    parser = commands.add_parser("check", help="check the settings, and what Anymate says to them; starts no run")
    parser.add_argument("process_key", nargs="?", metavar="PROCESS_KEY", help="default: ANYMATE_PROCESS_KEY")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _add_journal(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from anymate_guard._commands import journal

        if options.action == "drop":
            return journal.drop(options.ids, sure=options.yes)
        if options.action == "deliver":
            return journal.deliver(as_json=options.json)
        return journal.show(as_json=options.json)

    parser = commands.add_parser("journal", help="list what is open and what is owed, deliver it, or give it up")
    parser.add_argument("--json", action="store_true", help="print JSON")
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION")
    deliver = actions.add_parser("deliver", help="send what is owed now")
    deliver.add_argument("--json", action="store_true", help="print JSON", default=argparse.SUPPRESS)
    drop = actions.add_parser("drop", help="give up what is owed or was refused: it is never credited")
    drop.add_argument("ids", nargs="+", metavar="ID", help="as the list shows it; the beginning will do")
    drop.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=run)


def _add_history(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from anymate_guard._commands.history import history
        from anymate_guard._process_key import check_process_key

        if options.process is not None:
            check_process_key(options.process, "--process")
        return history(options.since, options.process, as_json=options.json)

    parser = commands.add_parser("history", help="list the finished runs of this machine")
    text = "from when on: 30min, 12h, 7d, 4w or 2026-11-01 (default: 7d)"
    parser.add_argument("--since", type=_moment, default="7d", metavar="WHEN", help=text)
    parser.add_argument("--process", metavar="PROCESS_KEY", help="of this process only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _moment(text: str) -> float:
    from anymate_guard._commands.history import moment

    return moment(text)


def _add_completion(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from argcomplete.shell_integration import shellcode

        print(shellcode(["anymate-guard"], shell=options.shell))
        return 0

    shells = {
        "bash": 'eval "$(anymate-guard completion bash)"',
        "zsh": 'eval "$(anymate-guard completion zsh)"  # after compinit',
        "fish": "anymate-guard completion fish | source",
        "powershell": "anymate-guard completion powershell | Out-String | Invoke-Expression",
    }
    parser = commands.add_parser(
        "completion",
        help="print the script for completion in a shell",
        description="Add the line of your shell to its start-up file:",
        epilog="\n".join(f"  {shell:10}  {line}" for shell, line in shells.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=list(shells))
    parser.set_defaults(run=run)
