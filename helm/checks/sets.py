"""What each value set promises."""

import json
import re

from . import named, need, objects, of_kind

MIB = 1 << 20


def cpu(text):
    return float(text[:-1]) / 1000 if str(text).endswith("m") else float(text)


def memory(text):
    number, unit = re.fullmatch(r"(\d+)(\w*)", str(text)).groups()
    return int(number) * {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "": 1}[unit]


def pods(rendered):
    """Deployment, its most pods, containers."""
    scaled = {item["spec"]["scaleTargetRef"]["name"]: item["spec"] for item in of_kind(rendered, "ScaledObject", "HorizontalPodAutoscaler")}
    for item in of_kind(rendered, "Deployment"):
        by = scaled.get(item["metadata"]["name"])
        count = item["spec"].get("replicas") if by is None else by.get("maxReplicaCount", by.get("maxReplicas"))
        yield item, count, item["spec"]["template"]["spec"]["containers"]


def dev(rendered):
    """All pods, at their most, fit two t3.medium: 2 cores and 4 GiB each, of which a node keeps some for itself."""
    requested = [(count * cpu(c["resources"]["requests"]["cpu"]), count * memory(c["resources"]["requests"]["memory"]))
                 for _, count, containers in pods(rendered) for c in containers]
    cores, bytes_ = map(sum, zip(*requested))
    # Half of what the nodes can give: the backing services are there too.
    need(cores <= 1.9 and bytes_ <= 3200 * MIB, f"requests {cores} cores and {bytes_ // MIB} MiB")
    triggers = [t for item in of_kind(rendered, "ScaledObject") for t in item["spec"]["triggers"] if t["type"] == "cron"]
    need(len(triggers) == 2, "nothing sleeps at night")


def quality(containers):
    """The class that the API server gives a pod."""
    given = [(c.get("resources", {}).get("requests", {}), c.get("resources", {}).get("limits", {})) for c in containers]
    if not any(requests or limits for requests, limits in given):
        return "BestEffort"
    equal = all(requests == limits and {"cpu", "memory"} <= limits.keys() for requests, limits in given)
    return "Guaranteed" if equal else "Burstable"


def qualities(rendered, wanted):
    found = {quality(containers) for _, _, containers in pods(rendered)}
    need(found == {wanted}, f"{found} instead of {wanted}")


def guaranteed(rendered):
    qualities(rendered, "Guaranteed")


def default(rendered):
    qualities(rendered, "Burstable")


def no_aws(rendered):
    for item in rendered:
        need("k8s.aws" not in item["apiVersion"], f"{named(item)} is of AWS")
        need(not re.search(r"alb\.ingress|aws-load-balancer|eks\.amazonaws", json.dumps(item["metadata"])), f"{named(item)} speaks to AWS")
    kinds = {item["kind"] for item in rendered}
    need({"HTTPRoute", "GRPCRoute", "HorizontalPodAutoscaler"} <= kinds, f"{kinds}")


def cilium(rendered):
    need(not of_kind(rendered, "NetworkPolicy") and len(of_kind(rendered, "CiliumNetworkPolicy")) == 7, "not Cilium's alone")


def calico(rendered):
    need(len(of_kind(rendered, "NetworkPolicy")) == 7 and not of_kind(rendered, "CiliumNetworkPolicy"), "not Kubernetes' alone")


def openshift(rendered):
    for item, _, _ in pods(rendered):
        chosen = item["spec"]["template"]["spec"]["securityContext"].keys() & {"runAsUser", "runAsGroup", "fsGroup"}
        need(not chosen, f"{named(item)} chooses {chosen}")


def prod_eks(rendered):
    wanted = {"Ingress": 2, "GlobalAccelerator": 1, "ScaledObject": 2, "HorizontalPodAutoscaler": 3, "SecretProviderClass": 3, "NodePool": 3,
              "EC2NodeClass": 1, "PodIdentityAssociation": 3, "SecurityGroupPolicy": 2, "PriorityClass": 3, "PodMonitor": 5}
    found = {kind: len(of_kind(rendered, kind)) for kind in wanted}
    need(found == wanted, f"{found}")
    for item, _, _ in pods(rendered):
        [zone] = [c for c in item["spec"]["template"]["spec"]["topologySpreadConstraints"] if c["topologyKey"].endswith("/zone")]
        need(zone["whenUnsatisfiable"] == "DoNotSchedule" and zone["minDomains"] == 2 and zone["nodeTaintsPolicy"] == "Honor", f"{named(item)}: {zone}")


PROMISES = {"default": default, "dev": dev, "guaranteed": guaranteed, "no-aws": no_aws, "cilium": cilium, "calico": calico,
            "openshift": openshift, "prod-eks": prod_eks}


def every_set_is_there(value_sets):
    need(PROMISES.keys() <= value_sets.keys(), f"missing: {PROMISES.keys() - value_sets.keys()}")


def no_secret_is_rendered(rendered):
    """No Secret, no AWS key, no variable that bears a password."""
    for item in rendered:
        text = json.dumps(item)
        need(item["kind"] != "Secret", f"{named(item)} would be in the release")
        need(not re.search(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b", text), f"{named(item)} holds an AWS key")
        for name, value in re.findall(r'"name": "(\w*(?:AUTH|PASSWORD|TOKEN|SECRET))", "value": "([^"]*)"', text):
            need(not value, f"{named(item)}: {name} in clear")
