"""What stands in front of Envoy: load balancers, routes, names; and what scales and places pods."""

import math
import re

import yaml

from . import CHART, LOADER, Failure, need, objects, of_kind
from .bootstrap import bootstrap_of

ALB = "alb.ingress.kubernetes.io/"
INGRESS = ["aws.enabled=true", "ingress.enabled=true", "ingress.host=telemetry.example.com",
           "ingress.alb.certificateArn=arn:aws:acm:us-east-1:111122223333:certificate/a"]
GRPC = "opentelemetry.proto.collector."


def one(rendered, kind, name):
    for item in of_kind(rendered, kind):
        if item["metadata"]["name"] == name:
            return item
    raise Failure(f"no {kind} {name}")


def alb(rendered):
    """The public ALB of prod-eks: TLS 1.3, WAF, two target groups on the same pods, and the drain."""
    ingress = one(rendered, "Ingress", "edge-tidegate-envoy")
    notes = ingress["metadata"]["annotations"]
    for key, value in {"scheme": "internet-facing", "target-type": "ip", "listen-ports": '[{"HTTPS":443}]', "healthcheck-path": "/healthz",
                       "ssl-policy": "ELBSecurityPolicy-TLS13-1-2-2021-06",
                       "target-group-attributes": "deregistration_delay.timeout_seconds=30", "tags": "cost-center=telemetry,service=tidegate"}.items():
        need(notes.get(ALB + key) == value, f"{key}: {notes.get(ALB + key)}")
    need("/webacl/" in notes[ALB + "wafv2-acl-arn"] and ":certificate/" in notes[ALB + "certificate-arn"], "no WAF or no certificate")
    [rule] = ingress["spec"]["rules"]
    paths = {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
    need(paths.pop("/") == "edge-tidegate-envoy" and len(paths) == 3, f"{paths}")
    need(all(path.startswith("/" + GRPC) and service == "edge-tidegate-envoy-grpc" for path, service in paths.items()), f"{paths}")
    plain, grpc = one(rendered, "Service", "edge-tidegate-envoy"), one(rendered, "Service", "edge-tidegate-envoy-grpc")
    need(plain["spec"]["selector"] == grpc["spec"]["selector"], "the target groups have other pods")
    need(grpc["metadata"]["annotations"][ALB + "backend-protocol-version"] == "GRPC", "the gRPC group speaks HTTP/1.1")


def private(rendered):
    """The ALB of partners is internal, and only their networks reach it."""
    notes = one(rendered, "Ingress", "edge-tidegate-envoy-private")["metadata"]["annotations"]
    need(notes[ALB + "scheme"] == "internal" and notes[ALB + "inbound-cidrs"] == "172.16.0.0/12", f"{notes}")


def accelerator(rendered):
    """The name leads to the accelerator, the accelerator to the Ingress that is there, with the clients' addresses."""
    [item] = of_kind(rendered, "GlobalAccelerator")
    [listener] = item["spec"]["listeners"]
    [endpoint] = listener["endpointGroups"][0]["endpoints"]
    need(listener["portRanges"] == [{"fromPort": 443, "toPort": 443}], f"{listener}")
    need(endpoint["clientIPPreservationEnabled"] is True, "clients lose their addresses")
    notes = one(rendered, endpoint["type"], endpoint["name"])["metadata"]["annotations"]
    need(notes["external-dns.kubernetes.io/target"].endswith(".awsglobalaccelerator.com"), "the name leads past the accelerator")
    need(notes["external-dns.kubernetes.io/hostname"] == "telemetry.api.example.com", "another name")


def hops(helm):
    """Envoy trusts one hop behind an ALB and none behind an NLB."""
    for sets, wanted in [(INGRESS, 1), (["aws.enabled=true", "nlb.enabled=true", "envoy.xffTrustedHops=0"], 0)]:
        bootstrap = yaml.load(bootstrap_of(objects(helm.template(sets=sets))), Loader=LOADER)
        manager = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        need(manager["xff_num_trusted_hops"] == wanted and manager["use_remote_address"] is True, f"{manager['xff_num_trusted_hops']} hops")


def nlb(helm):
    """The NLB keeps the clients' addresses, and the accelerator can lead to it."""
    rendered = objects(helm.template(sets=["aws.enabled=true", "nlb.enabled=true", "envoy.xffTrustedHops=0", "globalAccelerator.enabled=true"]))
    [item] = of_kind(rendered, "GlobalAccelerator")
    [endpoint] = item["spec"]["listeners"][0]["endpointGroups"][0]["endpoints"]
    service = one(rendered, endpoint["type"], endpoint["name"])
    need(service["spec"]["loadBalancerClass"] == "service.k8s.aws/nlb", "not an NLB")
    notes = service["metadata"]["annotations"]
    need("preserve_client_ip.enabled=true" in notes["service.beta.kubernetes.io/aws-load-balancer-target-group-attributes"], f"{notes}")


def routes(rendered):
    """Both routes of the Gateway API lead to Services of the release, gRPC to the one that speaks it."""
    ports = {item["metadata"]["name"]: [port["port"] for port in item["spec"]["ports"]] for item in of_kind(rendered, "Service")}
    for kind, service in (("HTTPRoute", "edge-tidegate-envoy"), ("GRPCRoute", "edge-tidegate-envoy-grpc")):
        spec = one(rendered, kind, "edge-tidegate-envoy")["spec"]
        need(set(spec) == {"parentRefs", "hostnames", "rules"}, f"{kind}: {set(spec)}")
        [rule] = spec["rules"]
        [backend] = rule["backendRefs"]
        need(backend["name"] == service and backend["port"] in ports[service], f"{kind}: {backend}")
    methods = [match["method"]["service"] for match in one(rendered, "GRPCRoute", "edge-tidegate-envoy")["spec"]["rules"][0]["matches"]]
    need(len(methods) == 3 and all(method.startswith(GRPC) for method in methods), f"{methods}")


def names_in_dns(helm):
    """A DNSEndpoint in place of annotations, and the older prefix."""
    sets = [*INGRESS, "externalDns.enabled=true", "externalDns.endpoint=true", "externalDns.target=a.awsglobalaccelerator.com"]
    [item] = of_kind(objects(helm.template(sets=sets)), "DNSEndpoint")
    need(item["spec"]["endpoints"] == [{"dnsName": "telemetry.example.com", "recordType": "CNAME", "recordTTL": 60,
                                        "targets": ["a.awsglobalaccelerator.com"]}], f"{item['spec']}")
    sets = [*INGRESS, "externalDns.enabled=true", "externalDns.prefix=external-dns.alpha.kubernetes.io/"]
    notes = one(objects(helm.template(sets=sets)), "Ingress", "edge-tidegate-envoy")["metadata"]["annotations"]
    need(notes["external-dns.alpha.kubernetes.io/hostname"] == "telemetry.example.com", f"{notes}")


def scaling(rendered):
    """KEDA's sums: 200 requests a second, 2,000 records of lag and 5,000 points a second for each pod."""
    def pods(item, metrics):
        spec = item["spec"]
        asked = [math.ceil(metrics[t["name"]] / float(t["metadata"].get("threshold") or t["metadata"]["lagThreshold"])) for t in spec["triggers"]]
        return min(max([spec["minReplicaCount"], *asked]), spec["maxReplicaCount"])

    envoy, writer = one(rendered, "ScaledObject", "edge-tidegate-envoy"), one(rendered, "ScaledObject", "edge-tidegate-writer")
    for requests, wanted in [(0, 3), (600, 3), (601, 4), (4000, 20), (1e6, 50)]:
        need(pods(envoy, {"requests": requests}) == wanted, f"{requests} requests/s: {pods(envoy, {'requests': requests})} pods")
    for lag, writes, wanted in [(0, 0, 1), (2001, 0, 2), (0, 25001, 6), (20000, 5000, 10), (1e9, 0, 24)]:
        # Whichever topic it is that is behind.
        for topic in ("lag", "lag-logs", "lag-traces"):
            found = pods(writer, {"lag": 0, "lag-logs": 0, "lag-traces": 0} | {topic: lag, "writes": writes})
            need(found == wanted, f"{topic} {lag}, {writes} points/s: {found} pods")
    groups = {t["metadata"]["topic"]: t["metadata"]["consumerGroup"] for t in writer["spec"]["triggers"] if t["type"] == "kafka"}
    need(groups == {f"tidegate-points{of}": f"tidegate-writer{of}" for of in ("", "-logs", "-traces")}, f"{groups}")
    for item in (envoy, writer):
        need(item["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher", "a lost Prometheus takes pods away")
        for trigger in item["spec"]["triggers"]:
            need(all(isinstance(value, str) for value in trigger["metadata"].values()), f"{trigger}: KEDA wants text")
        name = item["spec"]["scaleTargetRef"]["name"]
        need("replicas" not in one(rendered, "Deployment", name)["spec"], f"{name}: KEDA and the Deployment both set replicas")
        need(name not in [hpa["spec"]["scaleTargetRef"]["name"] for hpa in of_kind(rendered, "HorizontalPodAutoscaler")], f"{name}: two autoscalers")


def lag(helm):
    """The brokers or the writers' own metric, as the reference names it; from a metric nothing wakes the first writer."""
    text = (CHART.parent.parent / "ingest-filter/REFERENCE-writer.md").read_text(encoding="utf-8")
    sets = ["keda.enabled=true", "keda.writer.lag=300"]
    triggers = {kind: one(objects(helm.template(sets=[*sets, f"keda.writer.lagFrom={kind}"])), "ScaledObject", "edge-tidegate-writer")["spec"]["triggers"] for kind in ("kafka", "prometheus")}
    by_kafka, by_metric = ({t["name"]: t for t in found}["lag"] for found in triggers.values())
    # The metric adds up over all topics.
    need([t["name"] for t in triggers["prometheus"]].count("lag") == 1 and len(triggers["prometheus"]) == 2, f"{triggers['prometheus']}")
    shared = [*sets, *(f"ingest.journal.kafka.{of}_topic=tidegate-points" for of in ("logs", "traces"))]
    one_topic = one(objects(helm.template(sets=shared)), "ScaledObject", "edge-tidegate-writer")["spec"]["triggers"]
    need([t["name"] for t in one_topic] == ["lag", "writes"], f"{one_topic}")
    need(by_kafka["type"] == "kafka" and by_kafka["metadata"]["lagThreshold"] == "300", f"{by_kafka}")
    metric = re.match(r"sum\((\w+)\{", by_metric["metadata"]["query"])[1]
    need(by_metric["type"] == "prometheus" and by_metric["metadata"]["threshold"] == "300" and f"`sum({metric})`" in text, f"{by_metric}")
    helm.refuses([*sets, "keda.writer.lagFrom=prometheus", "keda.writer.minReplicas=0"], "asked of the brokers, can wake a writer")


def nodes(rendered):
    """Graviton first; brokers' nodes are on demand and tainted against us; credentials stay out of reach."""
    pools = {item["metadata"]["name"]: item["spec"] for item in of_kind(rendered, "NodePool")}
    need(pools["spot-ingest"]["weight"] > pools["spot-ingest-x86"]["weight"], "x86 comes first")
    core = pools["ondemand-core"]["template"]["spec"]
    need(core["taints"] == [{"key": "db", "value": "true", "effect": "NoSchedule"}], f"{core['taints']}")
    for name, pool in pools.items():
        wanted = {r["key"]: r.get("values") for r in pool["template"]["spec"]["requirements"]}
        need(name != "ondemand-core" or wanted["karpenter.sh/capacity-type"] == ["on-demand"], "brokers on spot")
        need(pool["disruption"]["consolidateAfter"] == "15m" and pool["limits"]["cpu"] == "1000", f"{name}: {pool['disruption']}")
    [node] = of_kind(rendered, "EC2NodeClass")
    need(node["spec"]["metadataOptions"] == {"httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1}, "IMDS")
    need(all(disk["ebs"]["encrypted"] for disk in node["spec"]["blockDeviceMappings"]), "a disk in clear")


def classes(helm):
    """The platform's classes are on every pod, unless it has one of its own."""
    for sets, wanted in [(["priorityClasses.create=true"], ["platform-core"] * 3 + ["ingest"] * 2), ([], [None] * 5),
                         (["priorityClasses.use=true", "writer.priorityClassName=background"], ["platform-core"] * 3 + ["ingest", "background"])]:
        rendered = objects(helm.template(sets=sets))
        found = [one(rendered, "Deployment", f"edge-tidegate-{name}")["spec"]["template"]["spec"].get("priorityClassName")
                 for name in ("envoy", "ext-authz", "ratelimit-svc", "gateway", "writer")]
        need(found == wanted, f"{sets}: {found}")


def identity(helm):
    """IRSA is an annotation, Pod Identity an association; in either way no token is mounted and no Role is made."""
    role = "arn:aws:iam::111122223333:role/writer"
    sets = ["aws.enabled=true", f"aws.roles.writer={role}"]
    rendered = objects(helm.template(sets=sets))
    need(one(rendered, "ServiceAccount", "edge-tidegate-writer")["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": role}, "no role")
    env = {e["name"]: e["value"] for e in one(rendered, "Deployment", "edge-tidegate-writer")["spec"]["template"]["spec"]["containers"][0]["env"]}
    need(env == {"AWS_REGION": "us-east-1", "AWS_STS_REGIONAL_ENDPOINTS": "regional"}, f"{env}")
    rendered = objects(helm.template(sets=[*sets, "aws.identity=podIdentity", "aws.clusterName=c"]))
    [item] = of_kind(rendered, "PodIdentityAssociation")
    need(item["spec"] == {"clusterName": "c", "namespace": "tidegate", "serviceAccount": "edge-tidegate-writer", "roleARN": role}, f"{item['spec']}")
    need("annotations" not in one(rendered, "ServiceAccount", "edge-tidegate-writer")["metadata"], "both ways at once")


def stored_secrets(rendered):
    """Each class that a volume asks for is there, and Redis' password becomes the Secret that the pod reads."""
    classes = {item["metadata"]["name"]: item["spec"] for item in of_kind(rendered, "SecretProviderClass")}
    asked = {volume["csi"]["volumeAttributes"]["secretProviderClass"] for item in of_kind(rendered, "Deployment")
             for volume in item["spec"]["template"]["spec"]["volumes"] if "csi" in volume}
    need(asked == classes.keys(), f"volumes ask for {asked}, classes are {classes.keys()}")
    for name, spec in classes.items():
        for item in yaml.load(spec["parameters"]["objects"], Loader=LOADER):
            need({"objectName", "objectType", "objectAlias"} <= item.keys(), f"{name}: {item}")
    [made] = classes["edge-tidegate-redis"]["secretObjects"]
    env = {e["name"]: e for e in one(rendered, "Deployment", "edge-tidegate-ratelimit-svc")["spec"]["template"]["spec"]["containers"][0]["env"]}
    reference = env["REDIS_AUTH"]["valueFrom"]["secretKeyRef"]
    need(reference["name"] == made["secretName"] and reference["key"] in [d["key"] for d in made["data"]], f"{reference}, {made}")
