"""A local Anymate on loopback, for developing and testing bots without an account."""

from anymate_guard.sandbox._journal import Journal, JournalRow
from anymate_guard.sandbox._sandbox import Sandbox
from anymate_guard.sandbox._shells import shell_lines
from anymate_guard.sandbox._views import FailureView, ProcessView, RequestView, RunView

__all__ = [
    "FailureView",
    "Journal",
    "JournalRow",
    "ProcessView",
    "RequestView",
    "RunView",
    "Sandbox",
    "shell_lines",
]
