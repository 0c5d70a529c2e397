#!/bin/sh
# Makes a Python environment with the Kubernetes client that the tests run against, in the cache folder.
# Does nothing when it is there already.
set -eu

kubernetes_version=37.0.2

cache="${SERIN_CACHE:-$HOME/.cache/serin}"
venv="$cache/venv"
stamp="$venv/.kubernetes-$kubernetes_version"

[ -e "$stamp" ] && exit 0
if ! command -v python3 >/dev/null; then
    echo "python3 is missing; on Debian: apt-get install python3 python3-venv" >&2
    exit 1
fi
mkdir -p "$cache"
if ! [ -x "$venv/bin/pip" ] && ! python3 -m venv "$venv"; then
    echo "python3 cannot make an environment; on Debian: apt-get install python3-venv" >&2
    exit 1
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check "kubernetes==$kubernetes_version"
touch "$stamp"
