"""Checks of the network policies of both flavours: a matrix of who may speak to whom."""

import re

import yaml

from . import LOADER, Helm, named, need, objects, of_kind
from .bootstrap import bootstrap_of

COMPONENT = "app.kubernetes.io/component"
NOWHERE = "nowhere"

# Values under which every flow out of the release has an address of its own, and the flows: component, whom
# (a name or network), port, protocol.
OUTSIDE_SETS = [
    "ratelimit.redis.type=sentinel", "ratelimit.redis.url=main\\,s1.redis.svc:26379\\,s2.redis.svc:26379",
    "ratelimit.redis.perSecond.url=second.cache:6390", "networkPolicy.redisPorts={6379,6390,26379}",
    "ratelimit.env.CONFIG_TYPE=GRPC_XDS_SOTW", "ratelimit.env.CONFIG_GRPC_XDS_SERVER_URL=plane.control:18000",
    "ratelimit.env.USE_DOG_STATSD=true", "ratelimit.env.STATSD_HOST=10.1.2.3", "ratelimit.env.STATSD_PORT=8126",
    "extAuthz.config.redis.address=keys.keystore:6379",
    "ingest.journal.kafka.brokers=b-1.msk.example.com:9094\\,b-2.msk.example.com:9094",
    "networkPolicy.cilium.kafkaNames={*.msk.example.com}",
    "writer.sink.influxdb_v1.url=http://influx.data.svc.cluster.local", "networkPolicy.databasePorts={8086}",
    "otel.host=otel.observability", "ratelimit.outageByClass.a=local", "ratelimit.quotas.edge\\.yaml=null",
]
OTEL = {(component, "ns observability", 4317, "TCP") for component in ("envoy", "ext-authz", "ratelimit-svc", "gateway", "writer")}
KAFKA = {(component, name, 9094, "TCP") for component in ("gateway", "writer")
         for name in ("b-1.msk.example.com", "b-2.msk.example.com", "*.msk.example.com")}
OUTSIDE = OTEL | KAFKA | {
    *(("ratelimit-svc", f"ns {space}", port, "TCP") for space in ("redis", "cache") for port in (6379, 6390, 26379)),
    ("ratelimit-svc", "ns control", 18000, "TCP"), ("ratelimit-svc", "10.1.2.3/32", 8126, "UDP"),
    ("writer", "ns data", 8086, "TCP"),
    *(("ext-authz", "ns keystore", port, "TCP") for port in (6379, 6390, 26379)),
}


def inside(rendered):
    """What Envoy's bootstrap calls: the flows between components that there must be."""
    bootstrap = yaml.load(bootstrap_of(rendered), Loader=LOADER)
    found = set()
    for cluster in bootstrap["static_resources"]["clusters"]:
        for part in cluster["load_assignment"]["endpoints"]:
            for endpoint in part["lb_endpoints"]:
                address = endpoint["endpoint"]["address"]["socket_address"]
                service = re.match(r"edge-tidegate-([a-z-]+)\.", address["address"])
                if service:
                    found.add(("envoy", service[1], address["port_value"]))
    return found


def component_of(labels):
    return labels.get(COMPONENT) or labels.get(f"k8s:{COMPONENT}")


def plain(rendered):
    """Edges of NetworkPolicies: direction, component, peer, port, protocol."""
    for item in of_kind(rendered, "NetworkPolicy"):
        me = component_of(item["spec"]["podSelector"].get("matchLabels", {}))
        for direction, key in (("egress", "to"), ("ingress", "from")):
            for rule in item["spec"].get(direction) or []:
                for peer in rule.get(key) or [NOWHERE]:
                    for port in rule["ports"]:
                        yield direction, me, peer, port["port"], port["protocol"]


def cilium(rendered):
    for item in of_kind(rendered, "CiliumNetworkPolicy"):
        me = component_of(item["spec"]["endpointSelector"].get("matchLabels", {}))
        for direction, prefix in (("egress", "to"), ("ingress", "from")):
            for rule in item["spec"].get(direction) or []:
                for kind, peers in rule.items():
                    if kind == "toPorts":
                        continue
                    for peer in peers:
                        for port in rule["toPorts"][0]["ports"]:
                            yield direction, me, (kind.removeprefix(prefix), peer), int(port["port"]), port["protocol"]


def peer_component(peer):
    if isinstance(peer, tuple):
        return component_of(peer[1].get("matchLabels", {})) if peer[0] == "Endpoints" else None
    return component_of(peer.get("podSelector", {}).get("matchLabels", {})) if isinstance(peer, dict) else None


def matrix(rendered):
    """For each flow that Envoy's configuration has one rule at both ends, for every other pair none."""
    wanted = inside(rendered)
    need(len(wanted) == 3, f"Envoy calls {wanted}")
    edges = [*plain(rendered), *cilium(rendered)]
    out = {(me, peer_component(peer), port) for way, me, peer, port, _ in edges if way == "egress" and peer_component(peer)}
    into = {(peer_component(peer), me, port) for way, me, peer, port, _ in edges if way == "ingress" and peer_component(peer)}
    need(out == wanted, f"egress {sorted(out ^ wanted)}")
    need(into == wanted, f"ingress {sorted(into ^ wanted)}")


def containers_listen(rendered):
    """The ports that policies admit are those that containers have, and the writer serves no one but scrapes."""
    ports = {}
    for item in of_kind(rendered, "Deployment"):
        containers = item["spec"]["template"]["spec"]["containers"]
        ports[item["metadata"]["labels"][COMPONENT]] = {port["containerPort"] for own in containers for port in own.get("ports", [])}
    for way, me, _, port, _ in [*plain(rendered), *cilium(rendered)]:
        need(way == "egress" or not me or port in ports[me], f"{me}: no container listens on {port}")


def outside(helm: Helm):
    """Every address that settings name has a rule, with the port and protocol that it has, in both flavours."""
    def other(edges):
        return {(me, peer, port, protocol) for way, me, peer, port, protocol in edges
                if way == "egress" and me and port != 53 and not isinstance(peer, dict)}

    rendered = objects(helm.template(sets=OUTSIDE_SETS))
    found = {(me, port, protocol) for me, _, port, protocol in other(plain(rendered))}
    wanted = {(me, port, protocol) for me, _, port, protocol in OUTSIDE}
    need(found == wanted, f"plain: {sorted(found ^ wanted)}")
    rendered = objects(helm.template(sets=[*OUTSIDE_SETS, "networkPolicy.flavour=cilium"]))
    found = set()
    for way, me, (kind, peer), port, protocol in cilium(rendered):
        if way == "ingress" or not me or port == 53 or peer_component((kind, peer)):
            continue
        name = {
            "Endpoints": lambda: "ns " + peer["matchLabels"]["k8s:io.kubernetes.pod.namespace"],
            "CIDRSet": lambda: peer["cidr"],
            "FQDNs": lambda: peer.get("matchName") or peer["matchPattern"],
            "Entities": lambda: f"entity {peer}",
        }[kind]()
        found.add((me, name, port, protocol))
    need(found == OUTSIDE, f"cilium: {sorted(found ^ OUTSIDE)}")


def peers_in_ciliums_words(helm: Helm):
    """A NetworkPolicy peer of values means the same to Cilium."""
    sets = ["networkPolicy.flavour=cilium", "networkPolicy.edgeFrom[0].ipBlock.cidr=10.0.0.0/8", "networkPolicy.edgeFrom[0].ipBlock.except={10.9.0.0/16}",
            "networkPolicy.redisTo[0].namespaceSelector.matchLabels.team=data", "networkPolicy.redisTo[0].podSelector.matchLabels.app=redis",
            "networkPolicy.kafkaTo[0].namespaceSelector.matchExpressions[0].key=kafka", "networkPolicy.kafkaTo[0].namespaceSelector.matchExpressions[0].operator=Exists",
            "networkPolicy.databaseTo[0].podSelector.matchLabels.app=influx"]
    edges = [(me, port, kind, peer) for _, me, (kind, peer), port, _ in cilium(objects(helm.template(sets=sets)))]
    for wanted in [
        ("envoy", 8080, "CIDRSet", {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}),
        ("ratelimit-svc", 6379, "Endpoints", {"matchLabels": {"k8s:app": "redis", "k8s:io.cilium.k8s.namespace.labels.team": "data"}}),
        ("gateway", 9092, "Endpoints", {"matchExpressions": [{"key": "k8s:io.cilium.k8s.namespace.labels.kafka", "operator": "Exists"}]}),
        ("writer", 8086, "Endpoints", {"matchLabels": {"k8s:app": "influx"}}),
    ]:
        need(wanted in edges, f"no rule {wanted}")


def scrapes_see_one_page(helm: Helm):
    """Cilium admits scrapes to the page of metrics alone."""
    for item in of_kind(objects(helm.template(sets=["networkPolicy.flavour=cilium"])), "CiliumNetworkPolicy"):
        if COMPONENT not in item["metadata"]["labels"]:
            continue  # The Job's, which nobody reaches.
        pages = [path["path"] for rule in item["spec"]["ingress"] for ports in rule["toPorts"] for path in ports.get("rules", {}).get("http", [])]
        wanted = "/stats/prometheus" if item["metadata"]["labels"][COMPONENT] == "envoy" else "/metrics"
        need(pages == [wanted], f"{named(item)}: {pages}")


def extra_egress(helm: Helm):
    """A user's rule is there in both flavours, for its component alone."""
    sets = ["writer.extraEgress[0].to[0].ipBlock.cidr=10.7.0.0/16", "writer.extraEgress[0].ports[0].port=443", "writer.extraEgress[0].ports[0].protocol=TCP"]
    for flavour in ("kubernetes", "cilium"):
        rendered = objects(helm.template(sets=[*sets, f"networkPolicy.flavour={flavour}"]))
        having = {me for _, me, peer, port, _ in plain(rendered) if port == 443 and peer == {"ipBlock": {"cidr": "10.7.0.0/16"}}}
        need(having == {"writer"}, f"{flavour}: {having}")


def default_deny_is_exact(rendered):
    [policy] = [p for p in of_kind(rendered, "NetworkPolicy") if p["metadata"]["name"] == "default-deny-all"]
    need(policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, str(policy["spec"]))


def break_glass(rendered, expected):
    """Listener, Service and admission of the break-glass listener are there together or not at all."""
    listeners = yaml.load(bootstrap_of(rendered), Loader=LOADER)["static_resources"]["listeners"]
    names = [listener["name"] for listener in listeners]
    need(names == (["edge", "break_glass", "status"] if expected else ["edge", "status"]), f"listeners {names}")
    services = [s for s in of_kind(rendered, "Service") if s["metadata"]["name"].endswith("-break-glass")]
    need(len(services) == int(expected), f"{len(services)} Services")
    rules = [rule for policy in of_kind(rendered, "NetworkPolicy") for rule in policy["spec"].get("ingress", [])
             if any(port["port"] == 8443 for port in rule["ports"])]
    need(len(rules) == int(expected) and all(rule.get("from") for rule in rules), f"admits {rules}")
