#!/usr/bin/env bash
# Runs the edge on the configurations that the chart renders for SPIRE, with a real SPIRE server and agent, the real
# Envoy, Redis, Kafka and InfluxDB, all on loopback: certificates that live a minute are renewed under load.
# Takes six minutes, and ten more the first time, when SPIRE is built.
#
#   helm/spire.sh [TOOLS]    TOOLS: as in validate.sh
#
# Needs root, since workloads are told apart by their users, Go 1.24 or newer with a C compiler, and what
# `make parts` installs. The programs are those of target/debug.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${1:-target/parts/helm}
version=1.13.0

fail() { echo "tidegate: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "workloads are told apart by their users: run this as root"
PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null || fail "Go is missing: https://go.dev/dl, or a package of Go 1.24 or newer"
# shellcheck source=helm/tools.sh
. helm/tools.sh

spire=$tools/spire-$version
if [ ! -x "$spire/spire-server" ]; then
    echo "  SPIRE $version: building from Go modules into $spire (ten minutes on two cores)"
    source=$(mktemp -d "$tools/spire.XXXXXX")
    module=$(GOFLAGS=-mod=mod go mod download -json "github.com/spiffe/spire@v$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    [ -d "$module" ] || fail "go mod download github.com/spiffe/spire@v$version failed"
    cp -r "$module/." "$source" && chmod -R u+w "$source"
    (cd "$source" && GOFLAGS='-mod=mod -buildvcs=false' CGO_ENABLED=1 go build -trimpath -o "$spire/" \
        -ldflags "-s -w -X github.com/spiffe/spire/pkg/common/version.gittag=$version" ./cmd/spire-agent ./cmd/spire-server) ||
        fail "SPIRE could not be built"
    rm -rf "$source"
fi

envoy=${ENVOY_BIN:-}
if [ -z "$envoy" ]; then
    for candidate in target/parts/envoy/lib/python3*/site-packages/envoy/_bin/envoy; do
        [ -x "$candidate" ] && envoy=$(realpath "$candidate")
    done
fi
[ -x "${envoy:-}" ] || fail "Envoy is missing: run make parts, or set ENVOY_BIN to an Envoy 1.40"
jars=$(realpath "${TIDEGATE_KAFKA_LIB:-target/parts/kafka/lib}")
[ -f "$jars/.fetched" ] || fail "Kafka's jars are missing from $jars: run make parts"
programs=$(realpath "${CARGO_TARGET_DIR:-target}/debug")
[ -x "$programs/ingest-filter" ] || fail "the programs are not built: cargo build --workspace --bins"

PYTHONPATH=helm exec "$tools/venv/bin/python" -B -m spire --tools "$tools" --spire "$spire" --programs "$programs" \
    --envoy "$envoy" --jars "$jars"
