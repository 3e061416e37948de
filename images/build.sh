#!/usr/bin/env bash
# Builds the images without a daemon: the last stages of the Dockerfile, on what images/root.sh lays out of
# programs that are built already. Writes OCI layouts, to be pushed with skopeo.
#
#   images/build.sh PROGRAMS OUT    PROGRAMS: a directory with the three, such as target/dist
#
# OUT gets `oci`, with the tags VERSION and VERSION-debug, and `sbom.cdx.json`. Needs root: files in an
# image belong to root. The same programs make the same digests.
set -euo pipefail
cd "$(dirname "$0")/.."
programs=$1 out=$2

fail() { echo "tidegate: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "building images needs root: sudo make images"
type -P buildah >/dev/null || fail "buildah is missing: apt-get install buildah"
type -P readelf >/dev/null || fail "readelf is missing: apt-get install binutils"
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
architecture=$(dpkg --print-architecture)

mkdir -p "$out"
out=$(cd "$out" && pwd)
scratch=$(mktemp -d "$out/build.XXXXXX")
# A storage of its own, which nobody else's images are in.
buildah=(buildah --root "$scratch/storage" --runroot "$scratch/run" --storage-driver vfs)
trap 'rm -rf "$scratch"' EXIT

# What the stage `build` of the Dockerfile has in its root.
images/root.sh "$programs" "$scratch/build/out"
images/debug.sh "$scratch/build/debug" "$architecture"
sed -n '/^# == Stages/,$p' Dockerfile >"$scratch/Dockerfile"
mkdir "$scratch/context"
rm -rf "$out/oci"
for target in runtime debug; do
    tag=$version
    [ "$target" = runtime ] || tag=$version-debug
    "${buildah[@]}" bud --quiet --isolation chroot --timestamp 0 --format oci --target "$target" \
        --build-context "build=$scratch/build" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
        --file "$scratch/Dockerfile" --tag "tidegate:$tag" "$scratch/context" >/dev/null
    "${buildah[@]}" push --quiet "tidegate:$tag" "oci:$out/oci:$tag"
done
cp "$scratch/build/out/usr/share/tidegate/sbom.cdx.json" "$out/sbom.cdx.json"
echo "$out/oci: $version and $version-debug for $architecture"
