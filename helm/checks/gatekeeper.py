"""Gatekeeper's own templates, in its own engine, on the chart's pods and on pods that break them.

Both are no part of this repository: GATOR names its program `gator`, GATEKEEPER_LIBRARY the directory
`library` of the repository of its templates. README says how to get them.
"""

import copy
import json
import os
import pathlib
import subprocess

import yaml

from . import LOADER, named, need, of_kind, one_line
from .admission import BREAKS, pods, put

POD = [{"apiGroups": [""], "kinds": ["Pod"]}]
# Constraints of an administrator's that the chart does not bring and passes: kind, what it matches, parameters.
OTHERS = [
    ("K8sPSPAllowedUsers", POD, {"runAsUser": {"rule": "MustRunAsNonRoot"}}),
    ("K8sPSPCapabilities", POD, {"requiredDropCapabilities": ["ALL"], "allowedCapabilities": []}),
    ("K8sPSPSeccompV2", POD, {"allowedProfiles": ["RuntimeDefault"]}),
    ("K8sPSPPrivilegedContainer", POD, {}),
    ("K8sPSPHostNetworkingPorts", POD, {"hostNetwork": False}),
    ("K8sPSPHostFilesystem", POD, {"allowedHostPaths": []}),
    ("K8sPSPAutomountServiceAccountTokenPod", POD, {}),
    ("K8sContainerLimits", POD, {"cpu": "2", "memory": "1Gi"}),
    ("K8sBlockLoadBalancer", [{"apiGroups": [""], "kinds": ["Service"]}], {}),
    ("K8sBlockWildcardIngress", [{"apiGroups": ["networking.k8s.io"], "kinds": ["Ingress"]}], {}),
    ("K8sPodDisruptionBudget", [{"apiGroups": ["apps"], "kinds": ["Deployment"]}, {"apiGroups": ["policy"], "kinds": ["PodDisruptionBudget"]}], {}),
]
# What breaks those of them that look at pods.
BREAKS_OTHERS = [
    ("K8sPSPAllowedUsers", put({"runAsUser": 0}, "securityContext")),
    ("K8sPSPCapabilities", put(["NET_ADMIN"], "containers", 0, "securityContext", "capabilities", "add")),
    ("K8sPSPSeccompV2", put({"type": "Unconfined"}, "securityContext", "seccompProfile")),
    ("K8sPSPPrivilegedContainer", put(True, "containers", 0, "securityContext", "privileged")),
    ("K8sPSPHostNetworkingPorts", put(True, "hostNetwork")),
    ("K8sPSPHostFilesystem", put([{"name": "a", "hostPath": {"path": "/"}}], "volumes")),
    ("K8sPSPAutomountServiceAccountTokenPod", put(True, "automountServiceAccountToken")),
    ("K8sContainerLimits", put("64Gi", "containers", 0, "resources", "limits", "memory")),
]


def at_hand():
    """The program and the templates, where both are named."""
    names = [os.environ.get(name) for name in ("GATOR", "GATEKEEPER_LIBRARY")]
    return [pathlib.Path(name) for name in names] if all(names) else None


def templates(directory):
    found = {}
    for file in sorted(directory.rglob("template.yaml")):
        template = yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER)
        found[template["spec"]["crd"]["spec"]["names"]["kind"]] = template
    return found


def refusals(gator, items, scratch):
    """What gator refuses: pairs of a constraint's kind and an object's name."""
    scratch.write_text(yaml.safe_dump_all(items), encoding="utf-8")
    done = subprocess.run([gator, "test", "--filename", scratch, "--output", "json"], capture_output=True, text=True)
    # 1 is that of violations.
    need(done.returncode in (0, 1) and done.stdout.strip(), one_line(done.stdout + done.stderr))
    found = json.loads(done.stdout) or []
    return {(one["constraint"]["kind"], one["violatingObject"]["metadata"]["name"]) for one in found}


def broken(rendered):
    """Copies of the pods that break a constraint: its kind, the pod."""
    number = 0
    breaks = [(kind, change) for _, kind, change in BREAKS if kind] + BREAKS_OTHERS
    for pod in pods(rendered):
        for kind, change in breaks:
            if kind == "K8sRequiredProbes" and pod["spec"].get("restartPolicy") == "Never":
                continue
            copied = copy.deepcopy(pod)
            change(copied)
            number += 1
            copied["metadata"]["name"] = f"broken-{number}"
            yield kind, copied


def passed_and_refused(rendered, at, scratch):
    """The chart's objects pass its own constraints and an administrator's; each refuses what breaks it."""
    gator, library = at
    constraints = [item for item in rendered if item["apiVersion"].startswith("constraints.gatekeeper.sh/")]
    need(len(constraints) == 6, f"{[named(item) for item in constraints]}")
    for kind, match, parameters in OTHERS:
        # Templates without parameters refuse an empty set of them.
        spec = {"match": {"kinds": match}} | ({"parameters": parameters} if parameters else {})
        constraints.append({"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": kind, "metadata": {"name": "admin"}, "spec": spec})
    known = templates(library)
    missing = [item["kind"] for item in constraints if item["kind"] not in known]
    need(not missing, f"Gatekeeper has no template {missing}")
    rules = [known[item["kind"]] for item in constraints] + constraints
    ours = [item for item in rendered if item not in constraints and not item["kind"].startswith("ValidatingAdmission")] + list(pods(rendered))
    refused = refusals(gator, rules + ours, scratch)
    need(not refused, f"refused: {sorted(refused)[:5]}")
    bad = list(broken(rendered))
    refused = refusals(gator, rules + [pod for _, pod in bad], scratch)
    passed = [kind for kind, pod in bad if (kind, pod["metadata"]["name"]) not in refused]
    need(not passed, f"passed, but breaks: {sorted(set(passed))}")
    watched = {kind for kind, _ in refused}
    need({item["kind"] for item in of_kind(constraints, *watched)} == watched and len(watched) >= 14, f"{sorted(watched)}")
    need(len(bad) > 90, f"only {len(bad)} broken pods")
