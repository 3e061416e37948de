"""Golden files: what the chart renders and says, so that a change of a template is seen in review.

`golden/default.yaml` is whole; the other value sets are kept as what they change in it. Envoy's bootstrap
and the checksums are left out: the first has tests of its own, and the second follow it.
"""

import difflib

import yaml

from . import HELM, need, objects

GOLDEN = HELM / "golden"


def shown(rendered):
    for item in rendered:
        if item["kind"] == "ConfigMap" and "envoy.yaml" in (item.get("data") or {}):
            item["data"]["envoy.yaml"] = "(files/envoy.yaml)"
        annotations = item.get("spec", {}).get("template", {}).get("metadata", {}).get("annotations", {})
        for name in annotations:
            if name.startswith("checksum/"):
                annotations[name] = "(of its configuration)"
    return yaml.safe_dump_all(rendered, width=160, allow_unicode=True)


def difference(before, after):
    """What changes, with the lines that say where."""
    return "".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), "default", "this", n=2))


def notes(helm, values):
    """What helm says after an installation, which needs no cluster with helm 4."""
    arguments = [part for file in values for part in ("--values", file)]
    code, out, err = helm.run("install", "edge", HELM / "tidegate", "--namespace", "tidegate", "--dry-run=client", *arguments)
    need(code == 0, err)
    return out.split("\nNOTES:\n")[1]


def files(helm, value_sets):
    """Every golden file and what it must hold."""
    default = shown(objects(helm.template()))
    for name, values in value_sets.items():
        text = shown(objects(helm.template(values)))
        yield f"{name}.yaml" if name == "default" else f"{name}.diff", text if name == "default" else difference(default, text)
        yield f"{name}.notes.txt", notes(helm, values)


def write(helm, value_sets):
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.iterdir():
        old.unlink()
    for name, text in files(helm, value_sets):
        (GOLDEN / name).write_text(text, encoding="utf-8")


def hold(helm, value_sets):
    wanted = dict(files(helm, value_sets))
    there = {path.name: path.read_text(encoding="utf-8") for path in GOLDEN.iterdir()}
    stale = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    need(not stale, f"golden/{', golden/'.join(stale)}: look at the change, then run helm/validate.py --write")
