"""Containers, made of namespaces: users without a name, PID 1, read-only roots, volumes, no /proc."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from anymate_guard.sandbox import Sandbox

from .support import GO_ON, INSIDE, LIMIT, PLACES, WAIT, command, done, finished, journaled, runs, started, until

PAGE = PLACES / "containers.md"
USER = ("unshare", "--user", "--map-user=54321", "--map-group=2000", "env", "--unset=HOME", "--unset=XDG_STATE_HOME")
MOUNTS = ("unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec")
INIT = ("unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")
BOT = """
from anymate_guard import anymate_run

with anymate_run("k") as run:
    run.add_entries(3)
"""
WAITING = f"{BOT}    {WAIT.replace(chr(10), chr(10) + '    ')}\n"


def _bot(text: str = BOT) -> tuple[str, str]:
    Path("bot.py").write_text(text, encoding="utf-8")
    return sys.executable, "bot.py"


@pytest.fixture(name="temporary")
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of a user who has no home."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("ANYMATE_STATE_DIR")
    return folder


def test_a_user_without_a_name(sandbox: Sandbox, temporary: Path) -> None:
    """A uid that has neither a home nor an entry in passwd keeps its journal in a temporary folder, and is told so."""
    output = done(*USER, *_bot())
    assert runs(sandbox) == [("k", 3, None)]
    assert output.count("anymate.journal_temporary") == output.count("\n") == 1
    assert (temporary / "anymate_guard-54321" / "journal.sqlite3").exists()


def test_a_user_without_a_name_is_killed(sandbox: Sandbox, temporary: Path) -> None:
    """What a bot had recorded that was killed there is credited when it is started again."""
    with started(*USER, *_bot(WAITING)) as bot:
        until(INSIDE.exists)
        until(lambda: '"entries": 3' in done(*USER, sys.executable, "-m", "anymate_guard", "journal", "--json"))
        bot.kill()
    done(*USER, *_bot())
    assert runs(sandbox) == [("k", 6, None)]


def test_a_user_without_a_name_and_disabled(sandbox: Sandbox, temporary: Path) -> None:
    """Disabled guards need nothing there, and have nothing to say."""
    assert done(*USER, "ANYMATE_DISABLED=1", *_bot()) == ""
    assert sandbox.requests() == []


@contextmanager
def _as_init(text: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A bot as the first process of a container, and its process id outside."""
    with started(*INIT, *_bot(text)) as container:
        until(INSIDE.exists)
        (child,) = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text(encoding="ascii").split()
        yield container, int(child)


def test_the_first_process_is_stopped(sandbox: Sandbox) -> None:
    """As PID 1, for which the kernel has no default actions, SIGTERM unwinds the bot and finishes its run."""
    with _as_init(WAITING) as (container, pid):
        os.kill(pid, signal.SIGTERM)
        output = container.communicate(timeout=LIMIT)[0]
        assert container.returncode == 143, output
    assert runs(sandbox) == [("k", 3, None)]


def test_the_first_process_is_stopped_twice(sandbox: Sandbox) -> None:
    """As PID 1, a second SIGTERM while the finish hangs ends the bot at once, and the journal has the finish."""
    sandbox.fail_next("FinishRun", hang=True)
    with _as_init(WAITING) as (container, pid):
        os.kill(pid, signal.SIGTERM)
        until(lambda: any(request["operation"] == "FinishRun" for request in sandbox.requests()))
        while container.poll() is None:  # one that comes within half a second is the first one still
            os.kill(pid, signal.SIGTERM)
            try:
                container.wait(0.7)
            except subprocess.TimeoutExpired:
                assert Path(f"/proc/{pid}").exists()
        assert container.returncode == 143
    assert not finished(sandbox)
    assert journaled()


@pytest.mark.parametrize(
    ("volumes", "recorded"),
    [(("shared", "shared"), [("k", 6, None)]), (("first", "second"), [("k", 3, None), ("k", 3, None)])],
    ids=["one volume", "two volumes"],
)
def test_two_containers(
    sandbox: Sandbox, tmp_path: Path, volumes: tuple[str, str], recorded: list[tuple[str, int, None]]
) -> None:
    """Containers with one volume share a run, which the last one out finishes; with two, each has a run of its own."""
    first, second = (str(tmp_path / volume) for volume in volumes)
    with started(*INIT, *_bot(WAITING), ANYMATE_STATE_DIR=first) as container:
        until(INSIDE.exists)
        Path("other.py").write_text(BOT, encoding="utf-8")
        done(*INIT, sys.executable, "other.py", ANYMATE_STATE_DIR=second)
        GO_ON.touch()
        output = container.communicate(timeout=LIMIT)[0]
        assert (container.returncode, output) == (0, "")
    assert runs(sandbox) == recorded


READ_ONLY = "mount -t tmpfs none /mnt; mkdir /mnt/volume; chmod 777 /mnt/volume; mount -o remount,bind,ro /; "


def test_a_read_only_root(sandbox: Sandbox, temporary: Path) -> None:
    """Where nothing can be written to, the work goes on without a journal, and one warning says so."""
    output = done(*MOUNTS, READ_ONLY + 'exec "$@"', "sh", *_bot(), HOME="/home")
    assert runs(sandbox) == [("k", 3, None)]
    assert output.count("anymate.journal_unavailable") == 1


def test_a_volume_on_a_read_only_root(sandbox: Sandbox) -> None:
    """With a volume for it, the journal works under a read-only root: a killed bot's entries are credited."""
    seen = """until "$1" -m anymate_guard journal --json | grep -q '"entries": 3'; do :; done"""
    Path("first.py").write_text(WAITING.replace('"inside', '"/mnt/volume/inside'), encoding="utf-8")
    output = done(
        *MOUNTS,
        f'{READ_ONLY} "$1" first.py & {seen}; kill -9 $!; wait || true; exec "$@"',
        "sh",
        *_bot(),
        ANYMATE_STATE_DIR="/mnt/volume/anymate",
    )
    assert runs(sandbox) == [("k", 6, None)]
    assert "anymate.journal" not in output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_group_s_volume(sandbox: Sandbox, tmp_path: Path) -> None:
    """A volume that is another user's and writable for the group, as Kubernetes mounts it, holds the journal."""
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, 12345, os.getgid())
    volume.chmod(0o2775)
    with started(*USER, *_bot(WAITING), ANYMATE_STATE_DIR=str(volume)) as bot:
        until(INSIDE.exists)
        until(lambda: journaled(volume))
        bot.kill()
    assert done(*USER, *_bot(), ANYMATE_STATE_DIR=str(volume)) == ""
    assert runs(sandbox) == [("k", 6, None)]


def _pod(manifest: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod of a manifest of the page, and the one container in it."""
    pattern = rf"^```yaml\n# {manifest}\n(.*?)^```$"
    (text,) = re.findall(pattern, PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    pod = yaml.safe_load(text)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def test_the_manifests(sandbox: Sandbox) -> None:
    """What the page's bot had recorded when it was killed is credited by the page's job for queues that are idle."""
    (pod, bot), (other, job) = _pod("cronjob.yaml"), _pod("deliver.yaml")
    for what in ("securityContext", "volumes"):  # a journal is believed by its own user only
        assert pod[what] == other[what]
    for what in ("env", "volumeMounts", "envFrom", "image"):
        assert bot[what] == job[what]
    assert job["command"] == command(PAGE.name, "anymate-guard").split()
    ((env,), (mount,)) = bot["env"], bot["volumeMounts"]
    folder, user = Path(mount["mountPath"]), pod["securityContext"]
    assert env == {"name": "ANYMATE_STATE_DIR", "value": str(folder)}
    assert bot["securityContext"]["readOnlyRootFilesystem"]
    Path("bot.py").write_text(WAITING.replace('"inside', f'"{folder}/inside'), encoding="utf-8")
    output = done(
        *MOUNTS,
        f"mount -t tmpfs none {folder.parent}; mkdir {folder}; mount -o remount,bind,ro /\n"
        f"user='unshare --user --map-user={user['runAsUser']} --map-group={user['runAsGroup']} env --unset=HOME'\n"
        f'$user "$1" bot.py & until [ -e {folder}/inside ]; do sleep 0.02; done\n'
        """until $user anymate-guard journal --json | grep -q '"entries": 3'; do :; done\n"""
        # Again and again, as the page's job: nobody is called dead in the first second of a new volume.
        f"kill -9 $!; wait || true; until $user {' '.join(job['command'])}; do sleep 0.5; done",
        "sh",
        sys.executable,
        ANYMATE_STATE_DIR=str(folder),
    )
    assert runs(sandbox) == [("k", 3, None)]
    assert "anymate.journal" not in output


def test_no_proc(sandbox: Sandbox) -> None:
    """Without /proc a bot does what it does elsewhere, the journal included."""
    output = done(*MOUNTS, 'mount -t tmpfs none /proc; exec "$@"', "sh", *_bot())
    assert runs(sandbox) == [("k", 3, None)]
    assert output == ""
