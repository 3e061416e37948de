"""The images, built by images/build.sh out of the programs at hand, unpacked, and started without a daemon."""

import json
import os
import pathlib
import re
import shutil
import stat
import subprocess

from . import HELM, Failure, need, objects, one_line
from .binaries import Image, take_it
from .bootstrap import free_port
from .compose import starts

ROOT = HELM.parent
PROGRAMS = ("ratelimit-svc", "ext-authz", "ingest-filter")


def run(*command):
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    need(done.returncode == 0, f"{command[0]}: {one_line(done.stdout + done.stderr)}")
    return done.stdout


def built(programs, out):
    """Builds both images of stripped programs, as those of a release are, and unpacks them."""
    stripped = out / "programs"
    stripped.mkdir(parents=True)
    for program in PROGRAMS:
        run("strip", "-o", stripped / program, programs / program)
    run("images/build.sh", stripped, out / "built")
    index = json.loads((out / "built/oci/index.json").read_text(encoding="utf-8"))
    tags = [one["annotations"]["org.opencontainers.image.ref.name"] for one in index["manifests"]]
    need(len(tags) == 2 and tags[1] == f"{tags[0]}-debug", f"{tags}")
    for tag, name in zip(tags, ("runtime", "debug")):
        run("umoci", "unpack", "--image", f"{out}/built/oci:{tag}", out / name)
    return out


def same_again(out):
    """The same programs make the same digests."""
    run("images/build.sh", out / "programs", out / "again")
    first, second = ((out / name / "oci/index.json").read_text(encoding="utf-8") for name in ("built", "again"))
    need(first == second, "a second build has other digests")
    shutil.rmtree(out / "again")


def holds_what_it_should(out):
    """User, labels, certificates, no shell, no file that a program could change."""
    config = json.loads((out / "runtime/config.json").read_text(encoding="utf-8"))
    need(config["process"]["user"] == {"uid": Image.USER, "gid": Image.USER}, f"{config['process']['user']}")
    labels = {key.rpartition(".")[2] for key, value in config["annotations"].items() if key.startswith("org.opencontainers.image.") and value}
    need({"title", "description", "licenses", "version", "revision"} <= labels, f"{labels}")
    root = out / "runtime/rootfs"
    need((root / "etc/ssl/certs/ca-certificates.crt").read_text(encoding="utf-8").count("BEGIN CERTIFICATE") > 100, "no authorities")
    need(os.readlink(root / "bin/ratelimit") == "/usr/local/bin/ratelimit-svc", "/bin/ratelimit leads elsewhere")
    executable = set()
    for path in root.rglob("*"):
        found = path.lstat()
        need(found.st_uid == 0, f"{path} is not root's")
        if stat.S_ISREG(found.st_mode):
            need(not found.st_mode & 0o7022, f"{path} may be changed, or changes who runs it: {found.st_mode:o}")
            if found.st_mode & 0o111 and ".so" not in path.name:
                executable.add(path.name)
    need(executable == set(PROGRAMS), f"programs: {executable}")


def services_start(out, rendered):
    """Each service starts from the image alone, as its user, on the chart's configurations; so does the other name."""
    image = Image(out / "runtime/rootfs")
    for items in rendered:
        take_it(items, image)
    done = subprocess.run([*image.command("/bin/ratelimit"), "--version"], capture_output=True, text=True)
    need(done.returncode == 0 and done.stdout.startswith("ratelimit"), one_line(done.stdout + done.stderr))


def debug_answers_compose(out, file):
    """The health check of compose.yaml, run in the image that it names: it passes, and fails on what is not there."""
    root = out / "debug/rootfs"
    (root / "dev").mkdir()
    os.mknod(root / "dev/null", stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(root / "dev/null", 0o666)
    service = file["services"]["ratelimit-svc"]
    port, image = free_port(), Image(root)
    environment = service["environment"] | {"DEBUG_PORT": str(port), "PORT": str(free_port()), "GRPC_PORT": str(free_port()), "REDIS_URL": f"127.0.0.1:{free_port()}"}
    environment |= {"HOST": "127.0.0.1", "GRPC_HOST": "127.0.0.1", "DEBUG_HOST": "127.0.0.1"}
    shutil.copytree(ROOT / "ratelimit-svc/examples/quotas", root / "etc/tidegate/quotas")
    _, program, *arguments = service["healthcheck"]["test"]

    def asked(of):
        return subprocess.run([*image.command(program), *(part.replace(":6070", f":{of}") for part in arguments)], capture_output=True).returncode

    answers = []
    starts(image.command(*service["command"]), environment, port, "/readyz", "ratelimit-svc", lambda: answers.append(asked(port)))
    need(answers == [0], f"the health check of a ready service ends with {answers}")
    need(asked(free_port()) != 0, "the health check passes where nothing listens")


def linked():
    """The crates that cargo itself says are linked into the programs."""
    target = f"{os.uname().machine}-unknown-linux-gnu"
    tree = run("cargo", "tree", "--locked", "--prefix", "none", "--no-dedupe", "--edges", "normal", "--target", target,
               "--format", "{p}", *(part for program in PROGRAMS for part in ("--package", program)))
    return {tuple(re.match(r"(\S+) v(\S+)", line).groups()) for line in tree.splitlines() if line}


def inventory(out):
    """The inventory names every crate that is linked and the package of every library; the image has the same one."""
    text = (out / "built/sbom.cdx.json").read_text(encoding="utf-8")
    need((out / "runtime/rootfs/usr/share/tidegate/sbom.cdx.json").read_text(encoding="utf-8") == text, "the image holds another inventory")
    bom = json.loads(text)
    need((bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.5"), "not CycloneDX 1.5")
    known = {one["bom-ref"] for one in bom["components"]}
    need(len(known) == len(bom["components"]), "a component stands twice")
    named = {reference for edge in bom["dependencies"] for reference in [edge["ref"], *edge.get("dependsOn", [])]}
    need(named == known | {"tidegate"}, f"{sorted(named ^ known)[:4]}")
    crates = {(one["name"], one["version"]) for one in bom["components"] if one["purl"].startswith("pkg:cargo/")}
    need(linked() <= crates and len(crates) < 1.2 * len(linked()), f"missing or too many: {sorted(linked() ^ crates)[:6]}")
    without = [one["name"] for one in bom["components"] if one["purl"].startswith("pkg:cargo/") and "licenses" not in one]
    need(not without, f"without a licence: {without}")
    packages = {one["name"] for one in bom["components"] if one["purl"].startswith("pkg:deb/")}
    need({"libc6", "libssl3", "ca-certificates"} <= packages, f"{packages}")


def dockerfile_makes_the_same():
    """The Dockerfile's stages are those that images/build.sh reads, on the files of the same scripts."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    [before, stages] = re.split(r"^# == Stages.*$", text, flags=re.MULTILINE)
    need(re.search(r'images/root\.sh "target/\$CARGO_BUILD_TARGET/dist" /out "\$TRIPLE"', before), "the build stage lays out /out otherwise")
    need('images/debug.sh /debug "$TARGETARCH"' in before, "the build stage lays out /debug otherwise")
    copied = re.findall(r"^COPY (.*)$", stages, re.MULTILINE)
    need(copied == ["--from=build /out /", "--from=build /debug /"], f"{copied}")
    need(not re.search(r"^(RUN|ADD) ", stages, re.MULTILINE), "a stage does more than copy")
    need(re.findall(r"^FROM (.*)$", stages, re.MULTILINE) == ["scratch AS runtime", "runtime AS debug", "runtime"], "other stages")
    need("!images" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines(), "Docker does not see the scripts")


def possible():
    """Whether images can be built here: their files belong to root."""
    return os.geteuid() == 0


def check(checks, programs, value_sets, helm, compose, scratch):
    checks.run("images: the Dockerfile makes the same", dockerfile_makes_the_same)
    if not possible():
        print("skip images: building them needs root", flush=True)
        return
    out = checks.run("images: are built without a daemon, and unpacked", built, programs, pathlib.Path(scratch))
    if out is None:
        raise Failure("no images")
    rendered = [objects(helm.template(value_sets[name])) for name in ("default", "embedded", "tls")]
    checks.run("images: hold what they should", holds_what_it_should, out)
    checks.run("images: the inventory is complete", inventory, out)
    checks.run("images: every service starts", services_start, out, rendered)
    checks.run("images: Compose's health check runs", debug_answers_compose, out, compose)
    checks.run("images: a second build is the same", same_again, out)
