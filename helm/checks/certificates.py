"""Certificates between Envoy and the services: who is asked for which name."""

import re

import yaml

from . import LOADER, need, objects, of_kind
from .binaries import container_of, texts
from .bootstrap import bootstrap_of

SERVICES = {"ext-authz": "ext-authz", "ratelimit-svc": "ratelimit-svc", "gateway": "gateway"}


def spiffe(component):
    return f"spiffe://telemetry.example.com/ns/tidegate/sa/edge-tidegate-{component}"


def names(rendered):
    """Envoy wants of each service the name on its certificate, and each service Envoy's, of every client."""
    bootstrap = yaml.load(bootstrap_of(rendered), Loader=LOADER)
    for cluster in bootstrap["static_resources"]["clusters"]:
        if cluster["name"] not in SERVICES:
            continue
        context = cluster["transport_socket"]["typed_config"]["common_tls_context"]
        [wanted] = context["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"]
        need(wanted == {"san_type": "URI", "matcher": {"exact": spiffe(cluster["name"])}}, f"{cluster['name']}: {wanted}")
    files = texts(rendered)
    ingest, authz = (yaml.load(files[name], Loader=LOADER) for name in ("ingest-filter.yaml", "ext-authz.yaml"))
    env = {e["name"]: e.get("value") for e in container_of(rendered, "ratelimit-svc")["env"]}
    for who, section in (("gateway", ingest["gateway"]["tls"]), ("ext-authz", authz["grpc_tls"])):
        need(section["client_san"] == spiffe("envoy") and section["client_ca_file"].endswith("/ca.crt"), f"{who}: {section}")
    need(env["GRPC_CLIENT_TLS_SAN"] == spiffe("envoy") and env["GRPC_CLIENT_TLS_CACERT"] and env["GRPC_SERVER_USE_TLS"] == "true", f"{env}")


def secrets(rendered):
    """cert-manager makes the Secrets that pods mount, with one URI each."""
    made = {item["spec"]["secretName"]: item["spec"]["uris"] for item in of_kind(rendered, "Certificate")}
    need({uri for [uri] in made.values()} == {spiffe(c) for c in ("envoy", *SERVICES)}, f"{made}")
    need("our-gateway" in made, "another Secret than the values name")
    mounted = {volume["secret"]["secretName"] for item in of_kind(rendered, "Deployment")
               for volume in item["spec"]["template"]["spec"]["volumes"] if volume["name"] == "tls"}
    need(mounted == made.keys(), f"mounted are {mounted}, made are {set(made)}")


def edge(rendered):
    """The ALB speaks TLS to Envoy's second listener, gRPC too."""
    [ingress] = of_kind(rendered, "Ingress")
    need(ingress["metadata"]["annotations"]["alb.ingress.kubernetes.io/backend-protocol"] == "HTTPS", "in clear text")
    services = {item["metadata"]["name"]: {p["name"]: p["targetPort"] for p in item["spec"]["ports"]} for item in of_kind(rendered, "Service")}
    for path in ingress["spec"]["rules"][0]["http"]["paths"]:
        backend = path["backend"]["service"]
        need(services[backend["name"]][backend["port"]["name"]] == "https", f"{backend}")
    [policy] = [p for p in of_kind(rendered, "NetworkPolicy") if p["metadata"]["name"] == "edge-tidegate-envoy"]
    need(8444 in [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]], "no policy admits it")


def off(helm):
    """Without it nothing speaks of certificates."""
    text = bootstrap_of(objects(helm.template()))
    need(not re.search(r"sds_secret|DownstreamTlsContext|UpstreamTlsContext", text), "the bootstrap asks for certificates")
