#!/usr/bin/env bash
# Runs the receiver tests of prometheus/compliance (its directory remotewrite/receiver, at commit 67b8327a2e93) against
# an edge of its own on embedded parts, and compares with what they found last: which passed, and how often each
# status was answered, as these tests take a 400 for a good answer nearly everywhere. Takes half a minute.
#
#   tests/agents/compliance.sh RECEIVER    RECEIVER: those tests, compiled to one program
set -euo pipefail
cd "$(dirname "$0")/../.."
passed=39 answered='174 x 204, 27 x 400, 4 x 415'

fail() { echo "tidegate: $*" >&2; exit 1; }

receiver=${1:-}
[ -x "$receiver" ] || fail "name the program: the receiver tests of prometheus/compliance, compiled with Go 1.25 or newer"
edge=${CARGO_TARGET_DIR:-target}/debug/tidegate-edge
[ -x "$edge" ] || fail "the programs are not built: cargo build --workspace --bins"

run=$(mktemp -d)
"$edge" --dir "$run/edge" >"$run/edge.log" 2>&1 &
edge_pid=$!
stop() {
    kill -INT "$edge_pid" 2>/dev/null || true
    wait "$edge_pid" || true
}
trap stop EXIT
for _ in $(seq 240); do
    [ -e "$run/edge/env" ] && break
    kill -0 "$edge_pid" 2>/dev/null || fail "the edge did not start: $run/edge.log"
    sleep 0.5
done
[ -e "$run/edge/env" ] || fail "the edge was not ready within two minutes: $run/edge.log"
# shellcheck source=/dev/null
. "$run/edge/env"
cat >"$run/receivers.yml" <<YAML
remote_write:
  - name: tidegate
    url: $TIDEGATE_EDGE/api/v1/write
    authorization: {credentials: $TIDEGATE_LOAD_KEY}
YAML
PROMETHEUS_RW2_COMPLIANCE_CONFIG_FILE=$run/receivers.yml "$receiver" -test.v >"$run/tests.log" 2>&1 ||
    fail "the tests found something: $run/tests.log"
found=$(grep -c '^--- PASS' "$run/tests.log" || true)
statuses=$(sed -n 's/.*Response code from "tidegate": \([0-9]*\)$/\1/p' "$run/tests.log" | sort | uniq -c |
    awk '{ printf "%s%s x %s", (NR > 1 ? ", " : ""), $1, $2 }')
echo "$found passed, 0 failed; answered $statuses"
[ "$found" = "$passed" ] || fail "$passed tests should have passed: $run/tests.log"
[ "$statuses" = "$answered" ] || fail "should have been answered $answered: $run/tests.log"
trap - EXIT
stop
rm -rf "$run"
