"""What a process key can be."""

from __future__ import annotations

import re

from anymate_guard.errors import ConfigurationError

_NOT_IN_A_KEY = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def check_process_key(key: object, source: str = "process_key") -> str:
    """Give the key back if it can be one segment of a path.

    Raises:
        ConfigurationError: For anything that can't, naming `source` and the value.
    """
    if not isinstance(key, str):
        problem = f"must be a string, got {key!r}"
    elif not key.strip():
        problem = f"must not be blank, got {key!r}"
    elif key in {".", ".."}:
        problem = f"{key!r} would name another path at the server; use the process's own key"
    elif _NOT_IN_A_KEY.search(key):
        problem = f"must not hold control characters, got {key!r}"
    else:
        return key
    raise ConfigurationError([f"{source}: {problem}"])


def is_process_key(key: str) -> bool:
    """Whether it can be one segment of a path."""
    try:
        return bool(check_process_key(key))
    except ConfigurationError:
        return False
