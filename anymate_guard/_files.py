"""Files that settings name: those that hold a credential, and the folder of the journal."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from pathlib import Path

from anymate_guard._deadline import Deadline
from anymate_guard._log import emit
from anymate_guard._process.fork import importing

_LARGEST = 65_536  # bytes of a credential

_warned = False


def credential(path: str, timeout: float) -> str:
    """The text of a file or a pipe, in UTF-8 or in the UTF-16 that `>` of PowerShell writes.

    Args:
        path: The file's path.
        timeout: Seconds for which a pipe may stay open.

    Raises:
        OSError: If it can't be read, does not end in time, or is far too long for a credential.
        ValueError: If it is no text.
    """
    content = _content(os.path.expanduser(path), Deadline.after(timeout))  # noqa: PTH111
    if len(content) > _LARGEST:
        raise OSError(errno.EFBIG, f"it is longer than {_LARGEST} bytes")
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf16 else "utf-8-sig")  # editors on Windows put a mark before UTF-8 too


def state_dir(given: str | os.PathLike[str] | None, *, warn: bool = False) -> Path:
    """The folder of the journal, by its real path, whatever the current directory will be.

    Where none is given, or a blank one, it is the user's state directory, or without a home that can be written to, as
    in many containers, this user's own folder where temporary files go.

    Args:
        given: The folder that was asked for.
        warn: Whether to log a warning, once per process, for a temporary folder.

    Raises:
        ValueError: If it can't be a path, is relative and the current directory is gone, or is in a home that is none.
    """
    if given is not None and os.fspath(given).strip():
        return _real(given)
    users = _users()
    if users is not None and _can_be_written(users):
        return _real(users)
    folder = _real(temporary_folder())
    if warn:
        _warn(folder)
    return folder


def _content(path: str, deadline: Deadline) -> bytes:
    """What a file holds, up to a little more than a credential may have."""
    if sys.platform == "win32":
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(_LARGEST + 1)
    import select

    content = b""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # so that a pipe nobody writes to opens too
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while len(content) <= _LARGEST:
            if not poll.poll(max(0, deadline.left() * 1000)):
                raise TimeoutError(errno.ETIMEDOUT, "it did not end in time")
            part = os.read(descriptor, _LARGEST)
            if not part:
                break
            content += part
    finally:
        os.close(descriptor)
    return content


def _real(folder: str | os.PathLike[str]) -> Path:
    if "\0" in os.fspath(folder):  # which Windows lets pass here
        raise ValueError("it holds a null character")
    folder = os.path.expanduser(folder)  # noqa: PTH111  # as a shell does, but not systemd, Docker or an .env file
    if str(folder).startswith("~"):
        raise ValueError("there is no such home")
    try:
        return Path(os.path.realpath(folder))
    except OSError:  # the system can't follow it, as with a network drive that is away: the journal will say so
        pass
    try:
        return Path(os.path.abspath(folder))  # noqa: PTH100  # Path.absolute leaves ".." in it
    except OSError as error:
        raise ValueError("it is relative, and the current directory is gone") from error


def _users() -> Path | None:
    """The user's state directory, if there is a home."""
    with importing():
        import platformdirs  # 4 ms

    try:
        folder = platformdirs.user_state_dir("anymate_guard", appauthor=False)
    except RuntimeError:  # older releases give a relative path instead
        return None
    return Path(folder) if os.path.isabs(folder) else None  # noqa: PTH117


def _can_be_written(folder: Path) -> bool:
    """Whether this user may write to a folder, or make it."""
    nearest = next((place for place in (folder, *folder.parents) if os.path.exists(place)), folder)  # noqa: PTH110
    return os.access(nearest, os.W_OK | os.X_OK)


def temporary_folder() -> Path:
    """This user's own folder where temporary files go."""
    import tempfile

    try:
        parent = tempfile.gettempdir()
    except FileNotFoundError:  # nothing can be written anywhere: the journal will say so
        parent = os.sep
    if sys.platform == "win32":  # where each user has a folder of their own
        return Path(parent, "anymate_guard")
    return Path(parent, f"anymate_guard-{os.geteuid()}")


def _warn(folder: Path) -> None:
    global _warned
    if not _warned:
        _warned = True
        emit(
            "warning",
            "anymate.journal_temporary",
            path=str(folder),
            error="this user has no home that can be written to",
            remedy="set ANYMATE_STATE_DIR to a folder that outlasts this container and a restart of the machine",
        )
