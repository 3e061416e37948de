#!/usr/bin/env bash
# Installs every value set of the chart into a real control plane of Kubernetes: etcd, API server, controllers and
# scheduler as processes on loopback. What a kubelet would report is reported for nodes without machines, so no
# container runs. Takes five minutes, and twenty more the first time, when the programs are built.
#
#   helm/cluster.sh [TOOLS] [--only default,full]    TOOLS: as in validate.sh
#
# Needs Go 1.26 or newer and access to its modules, since no package has these programs. CRDS names a directory
# of further CustomResourceDefinitions, CRD_SCHEMAS one of schemas, as in validate.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/parts/helm
case "${1:-}" in '' | --*) ;; *) tools=$1; shift ;; esac
version=1.37.2 etcd_version=3.7.3

fail() { echo "tidegate: $*" >&2; exit 1; }

PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null || fail "Go is missing: https://go.dev/dl, or a package of Go 1.26 or newer"
command -v openssl >/dev/null || fail "openssl is missing: apt-get install openssl"
# shellcheck source=helm/tools.sh
. helm/tools.sh

# fetched MODULE@VERSION: a copy of the module in $source, to be changed.
fetched() {
    local module
    source=$(mktemp -d "$tools/source.XXXXXX")
    module=$(GOFLAGS=-mod=mod go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    [ -d "$module" ] || fail "go mod download $1 failed"
    cp -r "$module/." "$source" && chmod -R u+w "$source"
}

# The programs, out of the module of Kubernetes: it names its own parts as v0.0.0 beside it, which are modules
# of their own as v0.37.2.
kubernetes=$tools/kubernetes-$version
if [ ! -x "$kubernetes/kube-scheduler" ]; then
    echo "  Kubernetes $version: building from Go modules into $kubernetes (twenty minutes on two cores)"
    fetched "k8s.io/kubernetes@v$version"
    rm -rf "$source"/go.work "$source"/go.work.sum "$source/vendor"
    sed -i -E -e '/^replace \(/,/^\)/d' -e "s#^(\s+k8s.io/[a-z-]+) v0\.0\.0(\$| )#\1 v0.${version#1.}\2#" "$source/go.mod"
    stamp=k8s.io/component-base/version
    (cd "$source" && GOFLAGS='-mod=mod -buildvcs=false' CGO_ENABLED=0 go build -trimpath -o "$kubernetes/" \
        -ldflags "-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${version:2:2}" \
        ./cmd/kube-apiserver ./cmd/kube-controller-manager ./cmd/kube-scheduler) || fail "Kubernetes could not be built"
    rm -rf "$source"
fi

# Debian's etcd is too old to tell the API server how far its watches are.
etcd=$tools/etcd-$etcd_version/etcd
if [ ! -x "$etcd" ]; then
    echo "  etcd $etcd_version: building from Go modules into ${etcd%/*}"
    fetched "go.etcd.io/etcd/server/v3@v$etcd_version"
    sed -i -e '/^replace (/,/^)/d' -e '/^toolchain /d' "$source/go.mod"
    (cd "$source" && GOFLAGS='-mod=mod -buildvcs=false' CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$etcd" .) ||
        fail "etcd could not be built"
    rm -rf "$source"
fi

PYTHONPATH=helm exec "$tools/venv/bin/python" -B -m cluster --tools "$tools" --control-plane "$kubernetes" --etcd "$etcd" "$@"
