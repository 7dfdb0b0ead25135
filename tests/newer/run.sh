#!/usr/bin/env bash
# run.sh ARGUMENT…: run pytest with these arguments on CPython 3.14 and 3.15.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
project="$(cd "$here/../.." && pwd)"
folder="${XDG_CACHE_HOME:-$HOME/.cache}/anymate-guard/newer"
"$here/set_up.sh" "$folder"
status=0
for minor in 14 15; do
    echo "CPython 3.$minor"
    # The checkout's own folder would be found before the wheel, and the tests' "http" before Python's.
    "$here/enter.sh" "$folder" "$project" bash -ec '
        "$0" -m pip uninstall -qq --yes anymate-guard
        "$0" -m pip install --quiet ".[sandbox]" --group tests
        cd tests
        PYTHONSAFEPATH=1 exec "$0" -m pytest -p no:cacheprovider "$@"
    ' "/python3.$minor/bin/python" "$@" || status=1
done
exit $status
