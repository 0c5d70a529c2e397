#!/usr/bin/env bash
# Builds a Kubernetes control plane (etcd, kube-apiserver, kube-controller-manager, kubectl in one binary) for the tests:
#   $SERIN_CACHE/cluster-<hash of its sources>/cluster
# Once: does nothing when it is there. On two cores it takes about six minutes, 1 GB of modules and 3 GB of Go's build cache.
set -euo pipefail
cd "$(dirname "$0")"
cache="${SERIN_CACHE:-$HOME/.cache/serin}"
folder="$cache/cluster-$(cat go.mod go.sum main.go types.go | sha256sum | cut -c1-12)"
version=1.36.3

[ -x "$folder/cluster" ] && exit 0
mkdir -p "$cache"
# Two builds at a time would take twice the memory and no less time.
exec 9>"$cache/cluster.lock"
flock 9
[ -x "$folder/cluster" ] && exit 0

# The documented place, which a fresh shell may not have on its path.
command -v go >/dev/null || PATH="$PATH:/usr/local/go/bin"
if ! command -v go >/dev/null; then
  cat >&2 <<'HOWTO'
go is missing. Debian 12's package golang (1.19) is too old. Any Go from 1.21 on will do: it fetches the version that
tests/cluster/go.mod names by itself. Install it as https://go.dev/doc/install says:
  curl -LO https://go.dev/dl/go1.26.0.linux-amd64.tar.gz
  sudo tar -C /usr/local -xzf go1.26.0.linux-amd64.tar.gz
HOWTO
  exit 1
fi

echo "building the control plane (Kubernetes $version) into $folder" >&2
started=$SECONDS
work="$(mktemp -d "$cache/cluster.XXXXXX")"
trap 'rm -rf "$work"' EXIT
# kubectl refuses to print a version, and /version says v0.0.0, without these.
at=k8s.io/component-base/version
go build -trimpath -o "$work/cluster" -ldflags \
  "-s -w -X $at.gitVersion=v$version -X $at.gitMajor=1 -X $at.gitMinor=36 -X $at.gitTreeState=clean" .
mkdir -p "$folder"
mv "$work/cluster" "$folder/cluster"
echo "built in $((SECONDS - started)) s" >&2
