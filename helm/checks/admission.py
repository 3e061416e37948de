"""The admission rules, tried on the chart's own pods and on pods that break them.

The policy's expressions are evaluated by a CEL interpreter, Gatekeeper's by a Rego interpreter and its own
templates, where those are at hand: GATEKEEPER_LIBRARY names the directory `library` of its repository.
"""

import copy
import json
import os
import pathlib

import cel
import regopy
import yaml

from . import LOADER, named, need, of_kind


def pods(rendered):
    """The pods that Deployments and Jobs make."""
    for item in of_kind(rendered, "Deployment", "Job"):
        template = copy.deepcopy(item["spec"]["template"])
        metadata = template["metadata"] | {"name": item["metadata"]["name"], "namespace": "tidegate"}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def drop(*path):
    def change(pod):
        node = pod["spec"]["containers"][0]
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]
    return change


def put(value, *path):
    def change(pod):
        node = pod["spec"]
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
    return change


# What breaks each rule: part of the policy's message, Gatekeeper's constraint or none, a change of a pod.
BREAKS = [
    ("probe", "K8sRequiredProbes", drop("readinessProbe")),
    ("probe", "K8sRequiredProbes", drop("livenessProbe")),
    ("other than latest", "K8sDisallowedTags", put("envoy:latest", "containers", 0, "image")),
    ("other than latest", "K8sDisallowedTags", put("envoy", "containers", 0, "image")),
    ("other than latest", "K8sDisallowedTags", put("r.example.com:5000/envoy", "containers", 0, "image")),
    ("share the node", "K8sPSPHostNamespace", put(True, "hostPID")),
    ("share the node", "K8sPSPHostNamespace", put(True, "hostIPC")),
    ("share the node", None, put(True, "hostNetwork")),
    ("requests and limits", "K8sRequiredResources", drop("resources", "limits", "cpu")),
    ("requests and limits", "K8sRequiredResources", drop("resources", "requests")),
    ("read-only root", "K8sPSPReadOnlyRootFilesystem", put(False, "containers", 0, "securityContext", "readOnlyRootFilesystem")),
    ("read-only root", "K8sPSPAllowPrivilegeEscalationContainer", put(True, "containers", 0, "securityContext", "allowPrivilegeEscalation")),
    ("read-only root", None, drop("securityContext", "capabilities")),
    ("run as root", None, put({}, "securityContext")),
    ("taint db", None, put([{"key": "db", "operator": "Exists"}], "tolerations")),
]


# Templates whose Rego the interpreter at hand does not evaluate: it lacks `strings.any_suffix_match`, and
# drops violations with empty details. The policy's rules of the same meaning are evaluated.
NOT_EVALUATED = {"K8sDisallowedTags", "K8sPSPAllowPrivilegeEscalationContainer", "K8sPSPReadOnlyRootFilesystem"}


def refused_by_policy(rendered, pod):
    """The messages with which the policy refuses a pod."""
    [policy] = of_kind(rendered, "ValidatingAdmissionPolicy")
    variables = {v["name"]: cel.evaluate(v["expression"], {"object": pod}) for v in policy["spec"]["variables"]}
    return [v["message"] for v in policy["spec"]["validations"] if not cel.evaluate(v["expression"], {"object": pod, "variables": variables})]


def policy(rendered):
    """Our pods pass, and each rule refuses what breaks it and nothing else."""
    all_pods = list(pods(rendered))
    for pod in all_pods:
        refused = refused_by_policy(rendered, pod)
        need(not refused, f"{pod['metadata']['name']}: {refused}")
    served = [pod for pod in all_pods if pod["spec"].get("restartPolicy") != "Never"]
    for message, _, change in BREAKS:
        for pod in served:
            broken = copy.deepcopy(pod)
            change(broken)
            refused = refused_by_policy(rendered, broken)
            need(len(refused) == 1 and message in refused[0], f"{pod['metadata']['name']}, {message}: {refused}")
    messages = [v["message"] for v in of_kind(rendered, "ValidatingAdmissionPolicy")[0]["spec"]["validations"]]
    need(all(any(part in message for part, _, _ in BREAKS) for message in messages), "a rule that nothing breaks")
    [binding] = of_kind(rendered, "ValidatingAdmissionPolicyBinding")
    need(binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "tidegate"}, "bound to other namespaces")


def library():
    given = os.environ.get("GATEKEEPER_LIBRARY")
    return pathlib.Path(given) if given else None


def templates(directory):
    found = {}
    for file in directory.rglob("template.yaml"):
        template = yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER)
        found[template["spec"]["crd"]["spec"]["names"]["kind"]] = template["spec"]["targets"][0]
    return found


def rego_of(target):
    source = target if "rego" in target else next(code["source"] for code in target["code"] if code["engine"] == "Rego")
    return source["rego"], source.get("libs", [])


def refused_by_gatekeeper(target, constraint, pod):
    rego, libraries = rego_of(target)
    interpreter = regopy.Interpreter()
    interpreter.add_module("template", rego)
    for number, text in enumerate(libraries):
        interpreter.add_module(f"library{number}", text)
    interpreter.add_data_json('{"inventory": {}}')
    review = {"object": pod, "kind": {"group": "", "kind": "Pod"}, "operation": "CREATE", "name": pod["metadata"]["name"]}
    interpreter.set_input_term(json.dumps({"review": review, "parameters": constraint["spec"].get("parameters", {})}))
    package = next(line.split()[1] for line in rego.splitlines() if line.startswith("package "))
    return '"msg\\"' in str(interpreter.query(f"data.{package}.violation"))


def gatekeeper(rendered, directory):
    """Gatekeeper's own templates: our pods pass, and each constraint refuses what breaks it."""
    known = templates(directory)
    constraints = {item["kind"]: item for item in rendered if item["apiVersion"].startswith("constraints.gatekeeper.sh/")}
    need(len(constraints) == 6, f"{sorted(constraints)}")
    evaluations = 0
    for kind, constraint in constraints.items():
        need(kind in known, f"Gatekeeper has no template {kind}")
        if kind in NOT_EVALUATED:
            continue
        for pod in pods(rendered):
            if "labelSelector" in constraint["spec"]["match"] and "app.kubernetes.io/component" not in pod["metadata"]["labels"]:
                continue
            evaluations += 1
            need(not refused_by_gatekeeper(known[kind], constraint, pod), f"{named(constraint)} refuses {pod['metadata']['name']}")
            for _, breaks, change in BREAKS:
                if breaks == kind:
                    broken = copy.deepcopy(pod)
                    try:
                        change(broken)
                    except KeyError:  # A Job's pod has no probe to take away.
                        continue
                    evaluations += 1
                    need(refused_by_gatekeeper(known[kind], constraint, broken), f"{named(constraint)} lets {pod['metadata']['name']} pass")
    need(evaluations > 30, f"only {evaluations} evaluations")
