"""Bots that are programs of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from tests.support.waiting import LONGEST


def run_bot(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a bot's source as a program, in the environment of the test."""
    command = [sys.executable, "-c", textwrap.dedent(source), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
