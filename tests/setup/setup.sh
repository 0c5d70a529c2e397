#!/usr/bin/env bash
# Installs what the tests need and this machine lacks. Safe to run again; says what is missing where it may not install.
set -euo pipefail
cd "$(dirname "$0")"
export SERIN_CACHE="${SERIN_CACHE:-$HOME/.cache/serin}"
mkdir -p "$SERIN_CACHE"

missing=()
for package in wrk nginx; do
  command -v "$package" >/dev/null || [ -x "/usr/sbin/$package" ] || missing+=("$package")
done
# Debian's Python comes without what makes an environment.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "missing: ${missing[*]}; install them, for instance with: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi
for script in kubectl.sh python.sh; do
  "./$script"
done
