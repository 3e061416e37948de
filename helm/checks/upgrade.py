"""The upgrade contract: what the commit before rendered can be upgraded to what this one renders."""

import io
import json
import subprocess
import tarfile

from . import CHART, HELM, Failure, named, need, objects, of_kind


def before(scratch):
    """The chart of the commit before: of HEAD where the work tree has changes to the chart, else of its parent."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=HELM.parent, capture_output=True)

    changed = git("diff", "--quiet", "HEAD", "--", "helm/tidegate").returncode != 0
    done = git("archive", "HEAD" if changed else "HEAD~1", "helm/tidegate")
    if done.returncode != 0:
        return None  # No history, as in a copy of the files alone.
    directory = scratch / "before"
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return directory / "helm/tidegate"


def lasting(item):
    """What the API server never lets change."""
    spec = item.get("spec", {})
    if item["kind"] == "Deployment":
        return spec["selector"]
    if item["kind"] == "PersistentVolumeClaim":
        return {key: spec.get(key) for key in ("accessModes", "storageClassName")}
    if item["kind"] == "Service":
        return spec.get("clusterIP")
    return None


def from_the_commit_before(helm, scratch):
    """Every value set of the commit before renders with this chart, or is refused with the new name of a key."""
    old = before(scratch)
    if old is None:
        return
    checked = 0
    for file in [None, *sorted(old.glob("ci/*.yaml")), *sorted(old.glob("values/*.yaml"))]:
        values = [file] if file else []
        try:
            was = objects(helm.template(values, chart=old))
        except Failure:
            continue  # The commit before could not render it either.
        try:
            now = {named(item): item for item in objects(helm.template(values))}
        except Failure as failure:
            need(" is now " in str(failure), f"{file}: refused without the new name of a key: {failure}")
            continue
        for item in of_kind(was, "Deployment", "PersistentVolumeClaim", "Service"):
            if named(item) in now:
                need(lasting(item) == lasting(now[named(item)]), f"{file}: {named(item)} cannot be upgraded")
                checked += 1
    need(checked >= 5, f"only {checked} objects were compared")


def every_rename_is_told(helm):
    """Each key that the schema still knows only to refuse it is in the changelog, and refused with its new name."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    changes = (CHART / "CHANGELOG.md").read_text(encoding="utf-8")
    renamed = [f"{top}.{key}" for top, node in schema["properties"].items() for key, child in node.get("properties", {}).items() if child.get("deprecated")]
    need(renamed, "no key is deprecated")
    for key in renamed:
        need(f"`{key}" in changes, f"{key} is not in CHANGELOG.md")
        helm.refuses([f"{key}=a"], f"{key} is now ")
