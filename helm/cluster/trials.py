"""What is tried with the chart: each trial fails with a Failure."""

import copy
import json

from checks import CHART, Failure, admission, named, need, of_kind, one_line, sets, wait_for

from . import nodes
from .api import Refused

NAMESPACE = "tidegate"
RELEASE = "edge"
ZONES = ("a", "b", "c")
# What Kubernetes itself puts into every namespace.
OF_EVERY_NAMESPACE = {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}
LASTING = {"helm.sh/resource-policy": "keep"}
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


def prepare(api):
    """Nodes in three zones, a namespace that takes `restricted` pods alone, and a volume for who asks for one."""
    for zone in ZONES:
        nodes.add(api, nodes.node(f"node-{zone}", zone))
    space(api, NAMESPACE, RESTRICTED)
    # A topic operator watches a namespace of its own.
    space(api, "kafka", {})


def space(api, name, labels):
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    wait_for(f"the account of {name}", lambda: api.has(f"/api/v1/namespaces/{name}/serviceaccounts/default"))


def volume(api):
    """One that a claim of 10 GiB finds."""
    name = "disk"
    if api.has(f"/api/v1/persistentvolumes/{name}"):
        api.call("DELETE", f"/api/v1/persistentvolumes/{name}")
        wait_for("the disk to go", lambda: not api.has(f"/api/v1/persistentvolumes/{name}"))
    api.create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/disk"}}})


def claims(api, rendered):
    """Those that pods name and the release does not make: somebody else has, as values say."""
    made = {item["metadata"]["name"] for item in of_kind(rendered, "PersistentVolumeClaim")}
    named_ = {volume["persistentVolumeClaim"]["claimName"] for item in of_kind(rendered, "Deployment")
              for volume in item["spec"]["template"]["spec"].get("volumes", []) if "persistentVolumeClaim" in volume}
    for name in named_ - made:
        api.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "annotations": LASTING}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}}, NAMESPACE)


class Release:
    """The chart as a release, by one helm."""

    def __init__(self, helm, kubeconfig):
        self.helm, self.kubeconfig = helm, kubeconfig

    def run(self, *arguments):
        code, out, err = self.helm.run(*arguments, "--kubeconfig", self.kubeconfig, "--namespace", NAMESPACE)
        need(code == 0, f"helm {arguments[0]}: {one_line(err + out)}")
        return out + err

    def install(self, values, chart=CHART):
        return self.run("install", RELEASE, chart, *files(values), "--wait", "--timeout", "90s")

    def upgrade(self, values, chart=CHART):
        return self.run("upgrade", RELEASE, chart, *files(values), "--wait", "--timeout", "90s")

    def remove(self, api):
        """Uninstalls, and waits until what Kubernetes collects is gone, too."""
        self.run("uninstall", RELEASE, "--wait", "--timeout", "90s")
        left = []
        try:
            wait_for("the release to be gone", lambda: not left_over(api, left), 60)
        except Failure:
            raise Failure(f"left over: {sorted(set(left))}") from None


def files(values):
    return [part for file in values for part in ("--values", file)]


def left_over(api, found):
    """What is there of the release beside what it says shall stay."""
    found.clear()
    for _, kind, item in api.everything():
        metadata = item["metadata"]
        ours = metadata.get("labels", {}).get("app.kubernetes.io/instance") == RELEASE or metadata.get("annotations", {}).get("meta.helm.sh/release-name") == RELEASE
        inside = metadata.get("namespace") == NAMESPACE and (kind, metadata["name"]) not in OF_EVERY_NAMESPACE and kind != "Event"
        stays = LASTING.items() <= metadata.get("annotations", {}).items()
        if (ours or inside) and not stays:
            found.append(f"{kind} {metadata['name']}")
    return found


def forget_what_stays(api):
    """Deletes what outlives a release on purpose, so that the next finds nothing."""
    for version, kind, item in list(api.everything()):
        if LASTING.items() <= item["metadata"].get("annotations", {}).items():
            path = api.path({"apiVersion": version, "kind": kind, "metadata": item["metadata"]}, NAMESPACE, item["metadata"]["name"])
            api.call("DELETE", path)
            wait_for("what stayed to go", lambda: not api.has(path))


def is_accepted(api, rendered):
    """Every object of a render, and each pod of its Deployments and Jobs, is taken without a warning and without a field that nobody knows."""
    spaces = [item for item in rendered if item["kind"] == "PriorityClass"]
    for item in spaces:
        api.create(item)
    try:
        for item in [*rendered, *admission.pods(rendered)]:
            if item in spaces:
                continue
            item = copy.deepcopy(item)
            if item["kind"] == "Pod":
                # The accounts are not there in a dry run.
                item["spec"].pop("serviceAccountName", None)
            try:
                _, warnings = api.create(item, NAMESPACE, dry=True)
            except Refused as refused:
                raise Failure(f"{named(item)}: {refused}") from None
            need(not warnings, f"{named(item)}: {warnings}")
    finally:
        for item in spaces:
            api.call("DELETE", api.path(item, NAMESPACE, item["metadata"]["name"]))
    return len(rendered)


def runs(api, rendered):
    """All pods are there, ready, of the class that was chosen, and spread over the zones."""
    pods = [pod for pod in api.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"] if pod["spec"]["restartPolicy"] == "Always"]
    for item in of_kind(rendered, "Deployment"):
        own = [pod for pod in pods if item["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()]
        live = api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{item['metadata']['name']}")
        need(own and len(own) == live["spec"]["replicas"] == live["status"].get("readyReplicas"), f"{named(item)}: {len(own)} pods, {live['status']}")
        quality = {pod["status"]["qosClass"] for pod in own}
        need(quality == {sets.quality(item["spec"]["template"]["spec"]["containers"])}, f"{named(item)}: {quality}")
        used = [pod["spec"]["nodeName"] for pod in own]
        counts = [used.count(f"node-{zone}") for zone in ZONES]
        if not item["spec"]["template"]["spec"].get("affinity", {}).get("podAffinity"):
            need(max(counts) - min(counts) <= 1, f"{named(item)}: {counts} pods in the zones")
    return len(pods)


def templates(api):
    """The pods' templates of the release as the server has them, by Deployment."""
    found = api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments")["items"]
    return {item["metadata"]["name"]: json.dumps(item["spec"]["template"], sort_keys=True) for item in found}


def evicted_one_at_a_time(api):
    """While one pod of a component is away, no other is evicted."""
    pods = [pod for pod in api.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"] if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "gateway"]
    need(len(pods) >= 2, "one gateway alone")

    def evict(pod):
        name = pod["metadata"]["name"]
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
        api.call("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction", body)

    evict(pods[0])
    try:
        evict(pods[1])
    except Refused as refused:
        need(refused.status == 429, f"{refused.status}: {refused}")
        return
    raise Failure("two pods were evicted at once")


# What the server makes good before it asks the policy: limits without requests are requests too.
def without_resources(pod):
    del pod["spec"]["containers"][0]["resources"]["limits"]
    del pod["spec"]["containers"][0]["resources"]["requests"]


def policy(api, rendered):
    """The admission policy has no expression that the server cannot type; it passes our pods and refuses what breaks each rule."""
    [wanted] = of_kind(rendered, "ValidatingAdmissionPolicy")
    path = api.path(wanted, NAMESPACE, wanted["metadata"]["name"])
    checked = wait_for("the policy's types to be checked", lambda: (lambda p: p if p.get("status", {}).get("observedGeneration") == p["metadata"]["generation"] else None)(api.get(path)))
    doubts = checked["status"].get("typeChecking", {}).get("expressionWarnings", [])
    need(not doubts, f"{[(one['fieldRef'], one_line(one['warning'])) for one in doubts][:3]}")
    # Without the Pod Security Standard, which would refuse some of them first.
    api.merge(f"/api/v1/namespaces/{NAMESPACE}", {"metadata": {"labels": {key: None for key in RESTRICTED}}})
    try:
        return refusals(api, rendered)
    finally:
        api.merge(f"/api/v1/namespaces/{NAMESPACE}", {"metadata": {"labels": RESTRICTED}})


def refusals(api, rendered):
    def tried(pod):
        try:
            api.create(pod, NAMESPACE, dry=True)
        except Refused as refused:
            return str(refused)
        return None

    served = [pod for pod in admission.pods(rendered) if pod["spec"].get("restartPolicy") != "Never"]
    changed = 0
    for pod in served:
        pod["metadata"]["name"] = f"tried-{pod['metadata']['name']}"
        first = wait_for("the policy to be in force", lambda: tried(broken(pod, admission.put(True, "hostPID")))) if not changed else None
        need(not first or "share the node" in first, f"{first}")
        told = tried(copy.deepcopy(pod))
        need(told is None, f"{pod['metadata']['name']}: {told}")
        for message, _, change in admission.BREAKS:
            change = without_resources if message == "requests and limits" else change
            told = tried(broken(pod, change))
            need(told and message in told, f"{pod['metadata']['name']}, {message}: {told}")
            changed += 1
    return changed


def broken(pod, change):
    pod = copy.deepcopy(pod)
    change(pod)
    return pod


def preemption(api):
    """On a full node a pod of platform-core takes the place of one of ingest, and one of background of nobody."""
    classes = {"platform-core": 9000, "ingest": 5000, "background": 1000}
    for name, value in classes.items():
        api.create({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value})
    label, place = {"small": "true"}, "/api/v1/namespaces/default/pods"
    nodes.add(api, nodes.node("node-small", None, cpu="2", labels=label))

    def pod(name, priority):
        resources = {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}
        api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "priorityClassName": priority, "nodeSelector": label, "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i:1", "resources": resources}]}})

    def running(*names):
        there = {item["metadata"]["name"] for item in api.get(place)["items"] if item["status"].get("phase") == "Running"}
        return there == set(names)

    pod("ingest", "ingest")
    pod("background", "background")
    wait_for("a full node", lambda: running("ingest", "background"))
    pod("core-1", "platform-core")
    wait_for("the lowest to give way", lambda: running("ingest", "core-1"))
    pod("core-2", "platform-core")
    wait_for("the next to give way", lambda: running("core-1", "core-2"))
    pod("late", "ingest")

    def is_waiting():
        conditions = api.get(f"{place}/late")["status"].get("conditions", [])
        return any(one["type"] == "PodScheduled" and one["status"] == "False" for one in conditions)

    wait_for("the scheduler to say no", is_waiting)
    need(running("core-1", "core-2"), "a pod of ingest took the place of platform-core")
    for name in ("core-1", "core-2", "late"):
        api.call("DELETE", f"{place}/{name}")
    wait_for("its pods to go", lambda: not api.get(place)["items"])
    nodes.remove(api, "node-small")
    for name in classes:
        api.call("DELETE", f"/apis/scheduling.k8s.io/v1/priorityclasses/{name}")


def tainted(api, rendered):
    """With brokers' nodes alone, our pods wait."""
    taint = [{"key": "db", "value": "true", "effect": "NoSchedule"}]
    nodes.add(api, nodes.node("node-db", "d", labels={"of": "brokers"}, taints=taint))
    pod = next(admission.pods(of_kind(rendered, "Deployment")))
    pod["spec"] = copy.deepcopy(pod["spec"]) | {"nodeSelector": {"of": "brokers"}, "volumes": [], "affinity": {}, "topologySpreadConstraints": []}
    for key in ("serviceAccountName", "priorityClassName", "imagePullSecrets"):
        pod["spec"].pop(key, None)
    for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
        container["volumeMounts"] = []
    pod["metadata"] = {"name": "on-brokers"}
    api.create(pod, NAMESPACE)
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/on-brokers"
    told = wait_for("the scheduler to say no", lambda: [c["message"] for c in api.get(path)["status"].get("conditions", []) if c["type"] == "PodScheduled" and c["status"] == "False"])
    need("untolerated taint" in told[0], f"{told}")
    api.call("DELETE", path)
    wait_for("it to go", lambda: not api.has(path))
    nodes.remove(api, "node-db")
