#!/usr/bin/env bash
# Side-by-side benchmarks; each suite prints a table and writes target/bench/SUITE.json.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: bench/run.sh [gateway|serving|all]

  gateway   CPU per proxied request, against nginx doing the same split
  serving   CPU per prediction, against MLServer 1.7 with the same model
  all       both (the default)

Environment:
  RUNS         measured runs of each server (5; fewer only for a quick look)
  RUN_SECONDS  length of a run (4)
  SERIN_BIN    the serin binary (that of the release build)
  SERIN_CACHE  where MLServer is installed (~/.cache/serin)
USAGE
}

case "${1:-all}" in
  gateway | serving) suites=("$1") ;;
  all) suites=(gateway serving) ;;
  -h | --help) usage; exit 0 ;;
  *) echo "bench: suite is \"$1\", want gateway, serving or all" >&2; usage >&2; exit 2 ;;
esac

if ! command -v python3 >/dev/null; then
  echo "bench: python3 is missing; on Debian: apt-get install python3 python3-venv" >&2
  exit 2
fi
if ! command -v wrk >/dev/null || ! PATH="$PATH:/usr/sbin" command -v nginx >/dev/null; then
  # Whatever it could not install, the suites name.
  tests/setup/setup.sh || true
fi

run_suite() {
  echo "== $1"
  if [ "$1" = gateway ]; then
    "${CARGO:-cargo}" build --release --locked -p serin-gateway --examples || return
  fi
  python3 "bench/$1/run.py"
}

# One that fails does not keep the other from running.
status=0
for suite in "${suites[@]}"; do
  run_suite "$suite" || status=$?
done
exit "$status"
