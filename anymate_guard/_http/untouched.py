"""http.client as Python brings it: a copy of our own, whatever a program has done to the one that all share.

Test recorders such as vcrpy replace the classes of http.client for a while, and write to a file what goes through them,
passwords and all. Its debug level prints it.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["client"]


def _copy(name: str) -> ModuleType:
    spec: Any = importlib.util.find_spec(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from http import client
else:
    client = _copy("http.client")
    # No text follows the head that email is given: it asks four times what kind of text that is.
    client.HTTPMessage.get_content_type = lambda _: "text/plain"
