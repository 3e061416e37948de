#!/usr/bin/env bash
# Lays out what the image for debugging has beyond the other: Debian's static busybox, whose wget is what
# Compose's health checks run.
#
#   images/debug.sh ROOT ARCHITECTURE
set -euo pipefail
root=$1 architecture=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
(cd "$scratch" && apt-get -qq -o APT::Sandbox::User=root download "busybox-static:$architecture") ||
    { echo "images/debug.sh: apt-get download busybox-static:$architecture failed: apt-get update" >&2; exit 1; }
dpkg -x "$scratch"/busybox-static_*.deb "$scratch/files"
rm -rf "$root"
# In /bin, or in /usr/bin from Debian 13 on.
install -D -m 0755 "$(find "$scratch/files" -path "*bin/busybox" -type f)" "$root/busybox/busybox"
chmod 0755 "$root" "$root/busybox"
for name in sh wget ls cat ps nc; do ln -s busybox "$root/busybox/$name"; done
