"""What a guard takes when it names no client or no process key."""

from __future__ import annotations

from anymate_guard._api.client import AnymateClient
from anymate_guard._process.fork import in_child
from anymate_guard._process.locks import Lock
from anymate_guard._process_key import check_process_key
from anymate_guard._settings import Settings, process_key_of_environment
from anymate_guard.errors import ConfigurationError

_lock = Lock()
_client: AnymateClient | None = None


def shared_client() -> AnymateClient:
    """The client of all guards that name none, made from the environment when the first one is entered.

    Raises:
        ConfigurationError: Settings are missing or wrong.
    """
    global _client
    with _lock:
        if _client is None:
            _client = AnymateClient(Settings.from_env())
        return _client


def forget_client() -> None:
    """Let the next guard read the environment again."""
    global _client
    with _lock:
        client, _client = _client, None
    if client is not None:
        client.close()  # its connections would be left to the garbage collector, of which Python warns


def default_process_key(client: AnymateClient | None) -> str:
    """The process key for a guard that names none: of the client that it names, or of the environment.

    Raises:
        ConfigurationError: There is none, or it can't be one.
    """
    key = (client and client.settings.process_key) or process_key_of_environment()
    if not key:
        raise ConfigurationError(
            ['ANYMATE_PROCESS_KEY: is missing, and the guard names no process key: set it, or write anymate_run("...")']
        )
    return check_process_key(key, "ANYMATE_PROCESS_KEY")


def _after_fork() -> None:
    global _lock
    _lock = Lock()


in_child(_after_fork)
