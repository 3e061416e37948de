"""What the image is made of, as CycloneDX: our programs' crates of Cargo.lock, and Debian's libraries.

    images/sbom.py LIBRARIES TARGET    LIBRARIES: a file with the paths of the libraries in the image, one a line

Only what is compiled in counts: no crate that builds or tests alone. Says the same for the same sources.
"""

import json
import pathlib
import re
import subprocess
import sys

PROGRAMS = ("ratelimit-svc", "ext-authz", "ingest-filter")


def cargo(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def linked(metadata):
    """The packages that the programs link, by identifier, and what each of them depends on."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    queue = [identifier for identifier, name in names.items() if name in PROGRAMS]
    graph = {}
    while queue:
        identifier = queue.pop()
        if identifier in graph:
            continue
        # A kind of None is what is linked; others build or test.
        graph[identifier] = sorted(dep["pkg"] for dep in nodes[identifier]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"]))
        queue += graph[identifier]
    return graph


def component(package):
    reference = f"pkg:cargo/{package['name']}@{package['version']}"
    made = {"type": "application" if package["name"] in PROGRAMS else "library", "bom-ref": reference, "name": package["name"], "version": package["version"], "purl": reference}
    if package.get("license"):
        # Old manifests have a slash for "or".
        made["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    return made


def ask(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def libraries(file):
    """The Debian packages of the libraries, each once. A path below /usr may be known without it."""
    found = set()
    for path in pathlib.Path(file).read_text(encoding="utf-8").splitlines():
        for candidate in (path, path.removeprefix("/usr")):
            done = subprocess.run(["dpkg-query", "--search", candidate], capture_output=True, text=True)
            if done.returncode == 0:
                found.add(done.stdout.split(": ")[0])
                break
        else:
            raise SystemExit(f"images/sbom.py: no Debian package has {path}")
    for name in sorted(found | {"ca-certificates"}):
        package, version, architecture = ask("dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}", name).split()
        reference = f"pkg:deb/debian/{package}@{version.replace(':', '%3A').replace('+', '%2B')}?arch={architecture}"
        yield {"type": "library", "bom-ref": reference, "name": package, "version": version, "purl": reference}


def main():
    metadata = cargo(sys.argv[2])
    graph = linked(metadata)
    components = {package["id"]: component(package) for package in metadata["packages"] if package["id"] in graph}
    system = list(libraries(sys.argv[1]))
    [version] = {package["version"] for package in metadata["packages"] if package["name"] == PROGRAMS[0]}
    image = {"type": "container", "bom-ref": "tidegate", "name": "tidegate", "version": version}
    programs = sorted(components[i]["bom-ref"] for i in components if components[i]["type"] == "application")
    edges = [{"ref": components[i]["bom-ref"], "dependsOn": sorted({components[d]["bom-ref"] for d in graph[i]})} for i in components]
    edges += [{"ref": "tidegate", "dependsOn": programs + [c["bom-ref"] for c in system]}] + [{"ref": c["bom-ref"]} for c in system]
    bom = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"component": image},
        "components": sorted(components.values(), key=lambda one: one["bom-ref"]) + system,
        "dependencies": sorted(edges, key=lambda edge: edge["ref"]),
    }
    json.dump(bom, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
