#!/usr/bin/env bash
# Side-by-side benchmarks. bench/run.sh gateway|all; each suite writes target/bench/SUITE.json.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-all}" in
  gateway | all) exec python3 bench/gateway/run.py ;;
  serving) echo "bench: there is no serving suite yet; want gateway" >&2; exit 2 ;;
  *) echo "bench: suite is \"$1\", want gateway or all" >&2; exit 2 ;;
esac
