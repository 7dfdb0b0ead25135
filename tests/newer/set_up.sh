#!/usr/bin/env bash
# set_up.sh FOLDER: a small Debian of the development suite in FOLDER, with CPython 3.14 and 3.15. Needs root and debootstrap.
set -euo pipefail
folder="$(realpath -m "$1")"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
stamp="$(sha256sum <"$here/set_up.sh")"
if [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
rm -rf "$folder"
mkdir -p "$folder"
mirror="$(apt-get indextargets --format '$(SITE)' | grep -v security | head -n 1)"
debootstrap --variant=minbase --include=ca-certificates sid "$folder" "$mirror" >"$folder.log" 2>&1
cp /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/"
mkdir "$folder/project"
# No "apt-get update": debootstrap has just read the index, and a mirror's copy of it may have passed its date.
"$here/enter.sh" "$folder" "$here" apt-get install --quiet=2 --yes --no-install-recommends \
    build-essential python3.14-full python3.14-dev python3.15-full python3.15-dev >>"$folder.log" 2>&1
for minor in 14 15; do
    "$here/enter.sh" "$folder" "$here" "python3.$minor" -m venv "/python3.$minor"
done
echo "$stamp" >"$folder/stamp"
