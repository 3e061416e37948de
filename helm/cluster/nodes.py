"""Nodes without machines: what a kubelet would report of pods is reported at once.

A pod that serves is ready as soon as it is on a node; one that ends has ended well. Nothing runs.
"""

import threading

from .api import Refused

NOW = "2026-01-01T00:00:00Z"
PERIOD = 0.25


def node(name, zone, cpu="64", labels=None, taints=()):
    """A node with its status, for `add`."""
    room = {"cpu": cpu, "memory": "256Gi", "pods": "250", "ephemeral-storage": "500Gi"}
    names = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}
    zones = {"topology.kubernetes.io/zone": zone} if zone else {}
    conditions = [{"type": "Ready", "status": "True", "reason": "Here", "message": "no machine", "lastHeartbeatTime": NOW, "lastTransitionTime": NOW}]
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": names | zones | (labels or {})}, "spec": {"taints": list(taints)},
            "status": {"capacity": room, "allocatable": room, "conditions": conditions}}


def add(api, item):
    """Creates a node, and takes off the taint of those that are not ready yet."""
    name = item["metadata"]["name"]
    api.create(item)
    api.merge(f"/api/v1/nodes/{name}/status", {"status": item["status"]})
    api.merge(f"/api/v1/nodes/{name}", {"spec": {"taints": item["spec"]["taints"]}})


def remove(api, name):
    api.call("DELETE", f"/api/v1/nodes/{name}")


def state(container, ended):
    done = {"exitCode": 0, "reason": "Completed", "startedAt": NOW, "finishedAt": NOW}
    return {"name": container["name"], "image": container["image"], "imageID": "", "ready": not ended, "restartCount": 0, "started": not ended,
            "state": {"terminated": done} if ended else {"running": {"startedAt": NOW}}}


def status(pod):
    """The status of a pod that runs, or of one that has done its work."""
    ends = pod["spec"].get("restartPolicy", "Always") != "Always"
    conditions = [{"type": kind, "status": "False" if ends and kind.endswith("eady") else "True", "lastTransitionTime": NOW}
                  for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready", *(gate["conditionType"] for gate in pod["spec"].get("readinessGates", [])))]
    return {"phase": "Succeeded" if ends else "Running", "startTime": NOW, "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": conditions,
            "initContainerStatuses": [state(c, True) for c in pod["spec"].get("initContainers", [])],
            "containerStatuses": [state(c, ends) for c in pod["spec"]["containers"]]}


class Kubelets:
    """Reports for all nodes until it is left."""

    def __init__(self, api):
        self.api, self.over = api, threading.Event()
        self.thread = threading.Thread(target=self.report, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def report(self):
        while not self.over.wait(PERIOD):
            try:
                pods = self.api.get("/api/v1/pods")["items"]
            except OSError:
                continue
            for pod in pods:
                if pod["spec"].get("nodeName"):
                    self.report_pod(pod)

    def report_pod(self, pod):
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        try:
            if "deletionTimestamp" in pod["metadata"]:
                self.api.call("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0})
            elif pod["status"].get("phase", "Pending") == "Pending":
                self.api.merge(f"{path}/status", {"status": status(pod)})
        except (Refused, OSError):
            pass  # It changed or went meanwhile; the next look shows.
