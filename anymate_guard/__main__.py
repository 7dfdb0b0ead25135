"""The command line: `anymate-guard`, or `python -m anymate_guard`.

Each command is a module of its own in `_commands`, imported when it runs: none waits for what another needs.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from anymate_guard import TYPE_CHECKING, __version__  # not from typing, which --version need not wait for

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What follows the program's name; None takes it from the command line.

    Returns:
        The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an old console can't show every name
    options = _parser().parse_args(*_without_command(sys.argv[1:] if arguments is None else arguments))
    try:
        code: int = options.run(options)
        print(end="", flush=True)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as head, has gone
        # The interpreter flushes again at its end, which must not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _without_command(arguments: Sequence[str]) -> tuple[Sequence[str], argparse.Namespace]:
    """Take from the arguments of `exec` what follows `--`: argparse treats it otherwise in each version."""
    end = [*arguments, "--"].index("--") if arguments[:1] == ["exec"] else len(arguments)
    return arguments[:end], argparse.Namespace(words=arguments[end + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "anymate-guard", description="Guard runs on Anymate, and try it out without an account."
    )
    parser.add_argument("--version", action="version", version=__version__, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_sandbox(commands)
    _add_demo(commands)
    _add_exec(commands)
    _add_check(commands)
    _add_journal(commands)
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

        return demo(options.file)

    parser = commands.add_parser("demo", help="run an example bot on a local Anymate")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.csv", help="default: the example's own")
    parser.set_defaults(run=run)


def _add_exec(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        if not options.words:
            parser.error("name the command after --, as in: anymate-guard exec invoice-intake -- ./bot.sh")
        from anymate_guard._commands.exec import execute

        return execute(options)

    usage = "anymate-guard exec [OPTION …] PROCESS_KEY -- COMMAND …"
    parser = commands.add_parser("exec", usage=usage, help="guard any program")
    parser.add_argument("process_key", metavar="PROCESS_KEY", help="which process")
    for option, text in (
        ("--check-ok-to-run", "ask Anymate first; if it says no, run nothing and exit with 0"),
        ("--report-failure", "when the command failed, report it to Anymate"),
        ("--require-start", "exit with 75, and run nothing, while Anymate is unreachable"),
        ("--require-finish", "exit with 75 when the command succeeded, but its finish is still owed"),
        ("--keep-credentials", "leave the client secret and the password in the command's environment"),
    ):
        parser.add_argument(option, action="store_true", help=text)
    parser.add_argument(
        "--default-credit",
        choices=["always", "succeeded", "never"],
        default="always",
        help="when Anymate's default may stand for a KPI that was not recorded (default: always)",
    )
    parser.set_defaults(run=run)


def _add_check(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from anymate_guard._commands.check import check

        return check(options.process_key, as_json=options.json)

    parser = commands.add_parser("check", help="tell whether the settings are right; starts no run")
    parser.add_argument("process_key", nargs="?", metavar="PROCESS_KEY", help="default: ANYMATE_PROCESS_KEY")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _add_journal(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from anymate_guard._commands import journal

        return journal.deliver() if options.action else journal.show(as_json=options.json)

    parser = commands.add_parser("journal", help="list what is open and what is owed, or deliver it")
    parser.add_argument("action", nargs="?", choices=["deliver"], help="send what is owed now")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


if __name__ == "__main__":
    sys.exit(main())
