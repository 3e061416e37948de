"""The admission rules, tried on the chart's own pods and on pods that break them.

The policy's expressions are evaluated by a CEL interpreter; Gatekeeper's constraints are in gatekeeper.py.
"""

import copy

import cel

from . import need, of_kind


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
