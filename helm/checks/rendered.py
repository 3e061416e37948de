"""Checks of the rendered objects."""

import re

import kubernetes_validate
import yaml

from . import LOADER, Failure, named, need, objects, of_kind, one_line
from .bootstrap import bootstrap_of
from .custom import is_custom
from .refusals import quotas

SHIPPED = ("system-node-critical", "background", ["background", "ingest", "platform-core", "system-node-critical"])

# Values, and what Envoy and ext-authz must be told of priority classes.
CLASSES = [
    ("the classes that ship", [], SHIPPED),
    ("classes of a quota file", [quotas("gold: {outage: bypass}, iron: {rank: 1}, bulk: {outage: deny}, a: {outage: bypass}")],
     ("a|gold", "bulk", ["a", "bulk", "gold", "iron"])),
    ("classes that are all local", [quotas("iron: {rank: 1, outage: local}")], ("-", "-", ["iron"])),
    ("classes that two files agree on", [quotas("iron: {outage: deny}"), quotas("iron: {outage: deny}", "b")], ("-", "iron", ["iron"])),
    ("classes that a value repeats", [quotas("iron: {outage: deny}"), "ratelimit.outageByClass.iron=deny"], ("-", "iron", ["iron"])),
    ("the classes that ship, of an existing ConfigMap", ["ratelimit.existingQuotasConfigMaps={q}", quotas("iron: {outage: deny}")], SHIPPED),
    ("the classes of an existing ConfigMap",
     ["ratelimit.existingQuotasConfigMaps={q}", "ratelimit.outageByClass.gold=bypass", "ratelimit.outageByClass.1=local"],
     ("gold", "-", ["1", "gold"])),
    ("the classes of a control plane", ["ratelimit.quotas.edge\\.yaml=null", "ratelimit.outageByClass.gold=bypass"], ("gold", "-", ["gold"])),
    ("classes that only some keys may have", ["extAuthz.config.priority_classes={ingest}"], (SHIPPED[0], SHIPPED[1], ["ingest"])),
]


def strict_schemas(rendered, version):
    for item in rendered:
        if is_custom(item):
            continue
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(map(str, error.path))
            raise Failure(f"{named(item)}: {path}: {one_line(error.message)}") from None
        except kubernetes_validate.SchemaNotFoundError as error:
            raise Failure(error.message) from None


def no_duplicates(rendered):
    seen = set()
    for item in rendered:
        need(named(item) not in seen, f"{named(item)} is there twice")
        seen.add(named(item))


def pods_are_restricted(rendered):
    """Pod Security Standard `restricted`, and what else a pod of ours must have."""
    for item in of_kind(rendered, "Deployment", "Job"):
        name, spec = named(item), item["spec"]["template"]["spec"]
        context = spec["securityContext"]
        # None where the platform gives the user, as OpenShift does.
        need(context["runAsNonRoot"] and context.get("runAsUser", 65532) == 65532, f"{name}: runs as root")
        need(context["seccompProfile"]["type"] == "RuntimeDefault", f"{name}: seccomp")
        need(spec["automountServiceAccountToken"] is False, f"{name}: mounts a token")
        need(not {"hostPID", "hostIPC", "hostNetwork"} & spec.keys(), f"{name}: host namespaces")
        for container in spec["containers"] + spec.get("initContainers", []):
            own = container["securityContext"]
            need(own["allowPrivilegeEscalation"] is False, f"{name}: privilege escalation")
            need(own["readOnlyRootFilesystem"] is True, f"{name}: writable root")
            need(own["capabilities"] == {"drop": ["ALL"]}, f"{name}: capabilities")
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                need(probe in container or container is not spec["containers"][0] or item["kind"] == "Job", f"{name}: no {probe}")
            for bound in ("requests", "limits"):
                need({"cpu", "memory"} <= container["resources"][bound].keys(), f"{name}: {bound}")
            need(re.search(r"(:[^/:]+|@sha256:[0-9a-f]{64})$", container["image"]), f"{name}: {container['image']}")
            need(not container["image"].endswith(":latest"), f"{name}: latest")
            need(all("subPath" not in mount for mount in container.get("volumeMounts", [])), f"{name}: subPath")
        mounted = {mount["name"] for container in spec["containers"] + spec.get("initContainers", []) for mount in container.get("volumeMounts", [])}
        volumes = {volume["name"] for volume in spec["volumes"]}
        need(mounted == volumes, f"{name}: mounts {mounted} of volumes {volumes}")
    need(not of_kind(rendered, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"), "a role")
    need(not of_kind(rendered, "Secret"), "a Secret, whose values would be in the release")


def selects(selector, item):
    labels = item["spec"]["template"]["metadata"]["labels"]
    return all(labels.get(key) == value for key, value in selector.items())


def selectors_meet(rendered):
    """Each selector means exactly one Deployment, each named port exists, each file is there."""
    deployments = of_kind(rendered, "Deployment")
    for item in of_kind(rendered, "Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "SecurityGroupPolicy"):
        selector = item["spec"].get("selector") or item["spec"].get("podSelector")
        if item["metadata"]["name"] == "default-deny-all" or item["metadata"]["name"].endswith(("-smoke-test", "-topics")):
            continue
        meant = [d for d in deployments if selects(selector.get("matchLabels", selector), d)]
        need(len(meant) == 1, f"{named(item)} selects {len(meant)} Deployments")
        ports = {port["name"]: port["containerPort"] for port in meant[0]["spec"]["template"]["spec"]["containers"][0]["ports"]}
        for port in item["spec"].get("ports", []):
            need(port["targetPort"] in ports, f"{named(item)}: no port {port['targetPort']}")
            headless = item["spec"].get("clusterIP") == "None"
            need(not headless or ports[port["targetPort"]] == port["port"], f"{named(item)}: a headless port must be that of the pod")
    there = {item["metadata"]["name"] for item in of_kind(rendered, "ConfigMap")} | {"our-quotas"}
    for item in deployments:
        for volume in item["spec"]["template"]["spec"]["volumes"]:
            for source in [volume, *volume.get("projected", {"sources": []})["sources"]]:
                need(source.get("configMap", {"name": "our-quotas"})["name"] in there, f"{named(item)}: {volume}")


def envoy_reaches(rendered):
    """Every upstream of the bootstrap is a Service of the release, on its port."""
    bootstrap = yaml.load(bootstrap_of(rendered), Loader=LOADER)
    services = {
        f"{item['metadata']['name']}.tidegate.svc.cluster.local": {port["port"] for port in item["spec"]["ports"]}
        for item in of_kind(rendered, "Service")
    }
    for cluster in bootstrap["static_resources"]["clusters"]:
        if cluster["name"] in ("otlp", "envoy_admin"):
            continue
        [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        address = endpoint["endpoint"]["address"]["socket_address"]
        need(address["port_value"] in services.get(address["address"], ()), f"{cluster['name']}: no Service {address}")


def drain_outlasts_health_check(rendered):
    """A service says that it is not serving for longer than Envoy's health check takes to see it."""
    seconds = lambda text: float(text.removesuffix("s"))
    clusters = yaml.load(bootstrap_of(rendered), Loader=LOADER)["static_resources"]["clusters"]
    checks = [check for cluster in clusters for check in cluster.get("health_checks", [])]
    need(len(checks) == 3, f"{len(checks)} clusters have a health check")
    seen = max(seconds(check["interval"]) + seconds(check["timeout"]) for check in checks)
    texts = [text for item in of_kind(rendered, "ConfigMap") for text in (item["data"] or {}).values()]
    delays = [seconds(delay) for text in texts for delay in re.findall(r"^drain_delay: (\w+)$", text, re.MULTILINE)]
    for deployment in of_kind(rendered, "Deployment"):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            delays += [seconds(e["value"]) for e in container.get("env", []) if e["name"] == "DRAIN_DELAY"]
    need(len(delays) >= 3, f"only {len(delays)} drain delays were found")
    need(min(delays) > seen, f"a drain delay of {min(delays)} s, but a health check sees it after {seen} s")


def charges_what_quotas_limit(helm):
    """Envoy reports bytes and points where a quota may limit them: none of the chart's own does."""
    elsewhere = ["ratelimit.existingQuotasConfigMaps={q}", "ratelimit.outageByClass.a=local"]
    control_plane = ["ratelimit.quotas.edge\\.yaml=null", "ratelimit.outageByClass.a=local"]
    rule = ["ratelimit.quotas.b\\.yaml=domain: edge\ndescriptors:\n  - key: tenant_points\n    value: b"]
    for sets, expected in [([], ()), (elsewhere, ("bytes", "points")), (control_plane, ("bytes", "points")), (rule, ("points",))]:
        text = bootstrap_of(objects(helm.template(sets=sets)))
        found = tuple(what for what in ("bytes", "points") if f"tidegate.charge_{what}" in text)
        need(found == expected, f"{found} instead of {expected} with {sets}")


def pod_templates(text):
    return {item["metadata"]["name"]: item["spec"]["template"] for item in of_kind(objects(text), "Deployment")}


def restarts(helm, sets, expected):
    """Exactly the expected components get new pods by a change of values."""
    before, after = pod_templates(helm.template()), pod_templates(helm.template(sets=sets))
    changed = {name.removeprefix("edge-tidegate-") for name in before if before[name] != after[name]}
    need(changed == expected, f"new pods for {sorted(changed)} instead of {sorted(expected)}")


def policies(text):
    """The expressions that Envoy goes by, and the classes that ext-authz knows."""
    rendered = objects(text)
    listener = yaml.load(bootstrap_of(rendered), Loader=LOADER)["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    filters = {item["name"]: item["typed_config"] for item in manager["http_filters"]}

    def expression(name):
        """A filter is skipped for everyone whom its one expression does not match."""
        [matcher] = filters[name]["xds_matcher"]["matcher_list"]["matchers"]
        matched = matcher["predicate"]["not_matcher"]["single_predicate"]["custom_match"]
        return matched["typed_config"]["value"]["string_match"]["safe_regex"]["regex"]

    bypass, deny = expression("tidegate.ratelimit_bypass"), expression("tidegate.ratelimit_deny")
    [route] = [route for route in manager["route_config"]["virtual_hosts"][0]["routes"] if "dynamic_metadata" in route["match"]]
    [pool] = route["match"]["dynamic_metadata"]
    need(route["route"]["priority"] == "HIGH" and pool["value"]["string_match"]["safe_regex"]["regex"] == bypass, "the HIGH pool is for others")
    [config] = [item["data"]["ext-authz.yaml"] for item in of_kind(rendered, "ConfigMap") if "ext-authz.yaml" in (item["data"] or {})]
    return bypass, deny, yaml.load(config, Loader=LOADER)["priority_classes"]


def classes_reach_envoy(helm, sets, expected):
    found = policies(helm.template(sets=sets))
    need(found == expected, f"{found} instead of {expected}")


def digest_wins(helm):
    digest = "sha256:" + "a" * 64
    text = helm.template(sets=[f"image.digest={digest}", "image.tag=v9", "global.imageRegistry=r.example.com"])
    images = {c["image"] for t in pod_templates(text).values() for c in t["spec"]["containers"]}
    expected = {f"r.example.com/tidegate/tidegate@{digest}", "r.example.com/envoyproxy/envoy:v1.40.0"}
    need(images == expected, f"{images}")


def large_numbers(helm):
    text = helm.template(sets=["envoy.perAddress.burst=4000000000", "ratelimit.env.REDIS_POOL_SIZE=2000000",
                               "gateway.config.fields_pinned_max=1000000", "ingest.journal.kafka.partitions_per_tenant=10000"])
    need("max_tokens: 4000000000" in text and 'value: "2000000"' in text and "fields_pinned_max: 1000000\n" in text and "e+" not in text, "a number in scientific notation")
