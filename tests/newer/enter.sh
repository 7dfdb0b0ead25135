#!/usr/bin/env bash
# enter.sh FOLDER PROJECT COMMAND…: run a command as root of the Debian in FOLDER, with PROJECT at /project.
#
# What is mounted is seen by the command only. Signals get their default actions, as a shell that ignores SIGINT or SIGHUP
# hands that on.
set -euo pipefail
export FOLDER="$1" PROJECT="$2"
shift 2
keep=()
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST HTTPS_PROXY HTTP_PROXY NO_PROXY https_proxy http_proxy no_proxy; do
    if [ -n "${!name:-}" ]; then
        keep+=("$name=${!name}")
    fi
done
exec unshare --mount bash -c '
    set -e
    mount --bind "$FOLDER" "$FOLDER" # a root that tests can mount in, too
    mount --rbind /proc "$FOLDER/proc"
    mount --rbind /dev "$FOLDER/dev"
    mount --bind "$PROJECT" "$FOLDER/project"
    exec chroot "$FOLDER" /usr/bin/env --default-signal --chdir=/project "$@"
' enter -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_ROOT_USER_ACTION=ignore "${keep[@]}" "$@"
