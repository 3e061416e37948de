"""The schemas of operators' objects, where they are at hand: they are no part of this repository."""

import json
import os
import pathlib

import jsonschema

from . import HELM, Failure, named, need, one_line

# Of the operators whose schemas the directory has.
CORE = {"apps", "autoscaling", "policy", "networking.k8s.io", "scheduling.k8s.io", "batch", "admissionregistration.k8s.io", ""}
# Whose schemas it has not: their shape is held by checks of ours.
WITHOUT = {"kafka.strimzi.io", "gateway.networking.k8s.io", "constraints.gatekeeper.sh", "cert-manager.io"}


def directory():
    found = pathlib.Path(os.environ.get("CRD_SCHEMAS", HELM.parent.parent / "shared/crd-schemas"))
    return found if found.is_dir() else None


def group(item):
    return item["apiVersion"].rpartition("/")[0]


def is_custom(item):
    return group(item) not in CORE


def closed(node):
    """A schema that refuses unknown fields, as an API server in strict mode does."""
    if isinstance(node, dict):
        # What must hold besides names some fields only.
        besides = ("anyOf", "oneOf", "allOf", "not")
        node = {key: value if key in besides else closed(value) for key, value in node.items()}
        keeps = node.get("x-kubernetes-preserve-unknown-fields")
        if "properties" in node and "additionalProperties" not in node and not keeps:
            node["additionalProperties"] = False
        return node
    return [closed(part) for part in node] if isinstance(node, list) else node


def schema_of(item, there):
    version = item["apiVersion"].rpartition("/")[2]
    path = there / group(item) / f"{item['kind'].lower()}_{version}.json"
    need(path.exists(), f"{named(item)}: no schema {path.name}")
    schema = closed(json.loads(path.read_text(encoding="utf-8")))
    for key in ("metadata",):
        schema["properties"][key] = {"type": "object"}
    return schema


def valid(rendered, there):
    """Every object of an operator has the fields that its schema knows, and no others."""
    for item in rendered:
        if not is_custom(item) or group(item) in WITHOUT:
            continue
        errors = jsonschema.Draft7Validator(schema_of(item, there)).iter_errors(item)
        for error in errors:
            raise Failure(f"{named(item)}: {'.'.join(map(str, error.path))}: {one_line(error.message)}")
