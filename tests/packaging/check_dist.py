"""Look into the wheel and the sdist of one folder, then use the wheel alone in a clean environment.

Run by tox's environment "pkg": `python tests/packaging/check_dist.py FOLDER`.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

IMPORT_ALONE = """
import importlib.util, sys
import anymate_guard
for name in anymate_guard.__all__:
    getattr(anymate_guard, name)
assert "site-packages" in anymate_guard.__file__, anymate_guard.__file__
assert importlib.util.find_spec("werkzeug") is None, "the sandbox extra came along"
"""


def check_wheel(names: set[str]) -> None:
    """The wheel holds the package with all its data, and nothing else."""
    missing = {
        f"anymate_guard/{path.relative_to('anymate_guard').as_posix()}"
        for path in Path("anymate_guard").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } - names
    assert not missing, f"not in the wheel: {sorted(missing)}"
    assert "anymate_guard/py.typed" in names
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2, f"the wheel should hold the package and its metadata: {sorted(tops)}"
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def check_sdist(names: set[str]) -> None:
    """The sdist holds what is needed to build and to test, and nothing that was left lying about."""
    inside = {name.partition("/")[2] for name in names}
    for name in ("LICENSE", "README.md", "pyproject.toml", "tox.ini", "tests/packaging/check_dist.py"):
        assert name in inside, f"not in the sdist: {name}"
    for name in inside:
        assert "__pycache__" not in name, name
        assert not name.startswith((".tox", ".venv", ".git/")), name


def check_clean_install(wheel: Path, version: str) -> None:
    """The wheel alone, without the sandbox extra: it imports, and its command runs under both names."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder)
        scripts = Path(folder, "Scripts" if sys.platform == "win32" else "bin")
        python = str(scripts / "python")
        installing = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, str(wheel)]
        subprocess.run(installing, check=True)
        subprocess.run([python, "-c", IMPORT_ALONE], cwd=folder, check=True)
        for command in ([str(scripts / "anymate-guard")], [python, "-m", "anymate_guard"]):
            answer = subprocess.check_output([*command, "--version"], cwd=folder, text=True)
            assert version in answer, f"{command} --version said {answer!r}, not {version}"


def main(folder: Path) -> None:
    """Check what the build left in a folder."""
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        check_wheel(set(archive.namelist()))
    with tarfile.open(sdist) as archive:
        check_sdist({member.name for member in archive.getmembers() if member.isfile()})
    version = wheel.name.split("-")[1]
    check_clean_install(wheel.resolve(), version)
    print(f"{wheel.name} and {sdist.name} hold what they should, and the wheel works alone.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
