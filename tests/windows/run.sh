#!/usr/bin/env bash
# run.sh ARGUMENT…: run pytest with these arguments on CPython for Windows, of the same version as `python`.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
version="$(python -c 'import sys; print("{}.{}".format(*sys.version_info))')"
folder="${XDG_CACHE_HOME:-$HOME/.cache}/anymate-guard/windows-$version"
"$here/set_up.sh" "$folder"
project="$here/../.."
packages="$folder/windows/Lib/site-packages"
rm -rf "$packages"/anymate_guard* "$folder/wheel"
python -m pip wheel --quiet --no-deps --wheel-dir "$folder/wheel" "$project"
if ! cmp --silent "$project/pyproject.toml" "$folder/pyproject.toml"; then
    # pip, which runs on Linux, leaves out what others need on Windows only: the last two.
    python -m pip install --quiet --upgrade --target "$packages" --platform win_amd64 --python-version "$version" \
        --only-binary=:all: "$(echo "$folder"/wheel/*.whl)[sandbox]" --group "$project/pyproject.toml:tests" colorama tzdata
    cp "$project/pyproject.toml" "$folder/"
else
    python -m pip install --quiet --no-deps --target "$packages" "$folder"/wheel/*.whl
fi
cd "$here/.."
# A short path for what tests write, which Windows limits. When Wine's server fails, programs hang, and nobody says so.
PYTHONSAFEPATH=1 exec timeout 40m "$folder/python" -m pytest -p no:cacheprovider --basetemp 'C:\t' "$@"
