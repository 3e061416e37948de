#!/usr/bin/env bash
# Lays out the file system of the image: the programs, the libraries that they ask for, the authorities of
# certificates, and who runs them. Used by the Dockerfile and by images/build.sh, so that both make one image.
#
#   images/root.sh PROGRAMS ROOT [TRIPLE]
#
# Reads the programs and never runs them: they may be another processor's, whose libraries Debian has below
# the directory of that triple, aarch64-linux-gnu for example.
set -euo pipefail
programs=$1 root=$2 triple=${3:-$(uname -m)-linux-gnu}
here=$(cd "$(dirname "$0")" && pwd)

fail() { echo "images/root.sh: $*" >&2; exit 1; }

# library NAME: where the machine has it.
library() {
    local directory
    for directory in "/lib/$triple" "/usr/lib/$triple" "/usr/$triple/lib"; do
        [ -e "$directory/$1" ] && { echo "$directory/$1"; return; }
    done
    fail "$1 is not on this machine"
}

# needed FILE: what it wants of the loader.
needed() { readelf --dynamic --wide "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }

# take FILE: the libraries of a file, and theirs.
take() {
    local name from
    for name in $(needed "$1"); do
        [ -e "$root/lib/$triple/$name" ] && continue
        from=$(library "$name")
        install -D -m 0755 "$(readlink -f "$from")" "$root/lib/$triple/$name"
        realpath "$from" >>"$root.libraries"
        take "$from"
    done
}

rm -rf "$root" "$root.libraries"
mkdir -p "$root/bin" "$root/etc/ssl/certs" "$root/usr/lib/ssl" "$root/usr/share/tidegate"
for program in ratelimit-svc ext-authz ingest-filter; do
    install -D -m 0755 "$programs/$program" "$root/usr/local/bin/$program"
    take "$programs/$program"
done
loader=$(readelf --program-headers --wide "$programs/ext-authz" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')
[ -n "$loader" ] || fail "ext-authz names no loader"
install -D -m 0755 "$(readlink -f "$(library "${loader##*/}")")" "$root$loader"
# The loader is itself a library that others ask for; one copy is enough.
rm -f "$root/lib/$triple/${loader##*/}"

# What the manifests of gateways call the rate limit service.
ln -s /usr/local/bin/ratelimit-svc "$root/bin/ratelimit"

[ -e /etc/ssl/certs/ca-certificates.crt ] || fail "ca-certificates is missing: apt-get install ca-certificates"
install -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
# Where OpenSSL looks.
ln -s /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
ln -s /etc/ssl/certs "$root/usr/lib/ssl/certs"

echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' >"$root/etc/passwd"
echo 'nonroot:x:65532:' >"$root/etc/group"
# /etc/hosts first, where aliases of a pod are.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"

python3 "$here/sbom.py" "$root.libraries" "${triple%%-*}-unknown-linux-gnu" >"$root/usr/share/tidegate/sbom.cdx.json"
rm "$root.libraries"
# Nothing in the image depends on who built it, or when.
chmod -R u=rwX,go=rX "$root"
