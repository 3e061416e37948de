#!/usr/bin/env bash
# Validates the chart with helm 4 and helm 3, the strict schemas of Kubernetes 1.28 to 1.37 and the
# real Envoy, and what compose.yaml mounts with our own programs. Needs no cluster.
#
#   helm/validate.sh [TOOLS]    TOOLS: where helm and the Python packages go, target/parts/helm when absent
#
# Envoy is $ENVOY_BIN, or the one below target/parts/envoy.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${1:-target/parts/helm}

fail() { echo "tidegate: $*" >&2; exit 1; }

# shellcheck source=helm/tools.sh
. helm/tools.sh

envoy=${ENVOY_BIN:-}
if [ -z "$envoy" ]; then
    for candidate in target/parts/envoy/lib/python3*/site-packages/envoy/_bin/envoy; do
        [ -x "$candidate" ] && envoy=$candidate
    done
fi
[ -x "${envoy:-}" ] || fail "Envoy is missing: run make parts, or set ENVOY_BIN to an Envoy 1.40"

programs=${CARGO_TARGET_DIR:-target}/debug
for program in ratelimit-svc ext-authz ingest-filter; do
    [ -x "$programs/$program" ] || fail "$program is not built: cargo build --workspace --bins"
done

exec "$tools/venv/bin/python" -B helm/validate.py --tools "$tools" --envoy "$envoy" --programs "$programs"
