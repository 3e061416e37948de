"""Certificates between Envoy and the services: who is asked for which name."""

import re

import yaml

from . import CHART, LOADER, need, objects, of_kind
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

def spires(rendered):
    """SPIRE gives each component the name that the others want of it; Envoy and the services ask the agent."""
    [asked, _] = of_kind(rendered, "ClusterSPIFFEID")
    need(asked["spec"]["spiffeIDTemplate"] == "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}", f"{asked['spec']}")
    [chosen] = asked["spec"]["podSelector"]["matchExpressions"]
    bootstrap = yaml.load(bootstrap_of(rendered), Loader=LOADER)
    clusters = {cluster["name"]: cluster for cluster in bootstrap["static_resources"]["clusters"]}
    [pipe] = [e["endpoint"]["address"]["pipe"]["path"] for part in clusters["spire_agent"]["load_assignment"]["endpoints"] for e in part["lb_endpoints"]]
    sds = {"resource_api_version": "V3", "api_config_source": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "spire_agent"}}]}}
    for name in SERVICES:
        context = clusters[name]["transport_socket"]["typed_config"]["common_tls_context"]
        need(context["tls_certificate_sds_secret_configs"] == [{"name": "default", "sds_config": sds}], f"{name}: {context}")
        need(context["combined_validation_context"]["validation_context_sds_secret_config"] == {"name": "ROOTCA", "sds_config": sds}, f"{name}: {context}")
    socket = f"unix://{pipe}"
    wanted = {"workload_api": socket, "client_san": spiffe("envoy")}
    ingest, authz = (yaml.load(texts(rendered)[name], Loader=LOADER) for name in ("ingest-filter.yaml", "ext-authz.yaml"))
    need(ingest["gateway"]["tls"] == authz["grpc_tls"] == wanted, f"{ingest['gateway']['tls']} {authz['grpc_tls']}")
    env = {e["name"]: e.get("value") for e in container_of(rendered, "ratelimit-svc")["env"]}
    need((env["GRPC_SERVER_TLS_WORKLOAD_API"], env["GRPC_CLIENT_TLS_SAN"]) == (socket, spiffe("envoy")) and "GRPC_SERVER_TLS_CERT" not in env, f"{env}")
    for item in of_kind(rendered, "Deployment"):
        component, spec = item["metadata"]["labels"]["app.kubernetes.io/component"], item["spec"]["template"]["spec"]
        name = f"{spiffe(component)}"
        need(name.endswith(f"/sa/{spec['serviceAccountName']}"), f"{component}: {name}")
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = {container["name"]: {m["name"]: m["mountPath"] for m in container["volumeMounts"]} for container in [*spec.get("initContainers", []), *spec["containers"]]}
        if component not in chosen["values"]:
            need("spiffe" not in volumes and "tls" not in volumes, f"{component} has a certificate")
            continue
        need(volumes["spiffe"]["csi"] == {"driver": "csi.spiffe.io", "readOnly": True}, f"{component}: {volumes}")
        need(pipe.startswith(mounts[component]["spiffe"] + "/"), f"{component}: {pipe} is not mounted")
        need("tls" not in volumes and mounts.keys() == {component}, f"{component}: files or a container of SPIRE's")
    need(not of_kind(rendered, "Certificate") and "upstream-certificate.yaml" not in texts(rendered), "certificates of files too")


def spires_clients(helm, rendered):
    """As clients of Kafka, database, Redis and collector the services ask the agent, the Job of topics too, and no other authority is named."""
    found = texts(rendered)
    ingest, authz, topics = (yaml.load(found[name], Loader=LOADER) for name in ("ingest-filter.yaml", "ext-authz.yaml", "topics.yaml"))
    asked = {"workload_api": ingest["gateway"]["tls"]["workload_api"]}
    database = ingest["writer"]["influxdb_v1"]["tls"]
    need(database == asked | {"server_san": "spiffe://telemetry.example.com/ns/data/sa/influxdb"}, f"{database}")
    need(ingest["journal"]["kafka"]["tls"] == topics["journal"]["kafka"]["tls"] == ingest["otlp_tls"] == authz["otlp_tls"] == asked, f"{ingest} {topics} {authz}")
    env = {e["name"]: e.get("value") for e in container_of(rendered, "ratelimit-svc")["env"]}
    for name in ("REDIS_TLS_WORKLOAD_API", "OTEL_EXPORTER_OTLP_WORKLOAD_API"):
        need(env[name] == asked["workload_api"], f"{name}: {env}")
    need(env["REDIS_TLS"] == "true" and "REDIS_TLS_CACERT" not in env, f"{env}")
    context = envoys_otlp(rendered)["transport_socket"]["typed_config"]["common_tls_context"]
    names = [one["name"] for one in (*context["tls_certificate_sds_secret_configs"], context["combined_validation_context"]["validation_context_sds_secret_config"])]
    need(names == ["default", "ROOTCA"], f"{context}")
    [job] = [item["spec"]["template"] for item in of_kind(rendered, "Job") if "-topics-" in item["metadata"]["name"]]
    need(job["spec"]["serviceAccountName"] == "edge-tidegate-gateway" and any("csi" in volume for volume in job["spec"]["volumes"]), f"{job['spec']}")
    [_, for_job] = of_kind(rendered, "ClusterSPIFFEID")
    need(for_job["spec"]["podSelector"]["matchLabels"].items() <= job["metadata"]["labels"].items(), f"{for_job['spec']}")
    keys = "extAuthz.config.redis.address"
    config = texts(objects(helm.template([CHART / "ci/spire-values.yaml"], sets=[f"{keys}=redis:6380"])))["ext-authz.yaml"]
    need(yaml.load(config, Loader=LOADER)["redis"]["tls"] == asked, f"{config}")


COLLECTOR = "https://otel-collector.observability.svc.cluster.local:4317"


def collector(helm, values):
    """Envoy and each service speak TLS to the collector, with the files of one Secret or the authorities of the image."""
    rendered = objects(helm.template(values))
    files = {"ca_file": "ca.crt", "certificate_file": "tls.crt", "key_file": "tls.key"}
    wanted = {key: f"/etc/tidegate/otlp-tls/{file}" for key, file in files.items()}
    settings, env = reached(rendered)
    need(settings == {"ext-authz": (COLLECTOR, wanted), "ingest-filter": (COLLECTOR, wanted)}, f"{settings}")
    need((env["OTEL_EXPORTER_OTLP_ENDPOINT"], env["OTEL_EXPORTER_OTLP_CERTIFICATE"], env["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"], env["OTEL_EXPORTER_OTLP_CLIENT_KEY"])
         == (COLLECTOR, *wanted.values()), f"{env}")
    context = envoys_otlp(rendered)["transport_socket"]["typed_config"]["common_tls_context"]
    need([one["name"] for one in context["tls_certificate_sds_secret_configs"]] == ["otlp_certificate"], f"{context}")
    [name] = context["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"]
    need(name == {"san_type": "DNS", "matcher": {"exact": "otel-collector.observability.svc.cluster.local"}}, f"{name}")
    for item in of_kind(rendered, "Deployment"):
        spec = item["spec"]["template"]["spec"]
        mounts = {m["name"]: m["mountPath"] for m in spec["containers"][0]["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        need(mounts["otlp-tls"] == "/etc/tidegate/otlp-tls" and volumes["otlp-tls"]["secret"]["secretName"] == "collector-tls", f"{item['metadata']['name']}")
    # Of a public authority: no Secret, no certificate of ours.
    rendered = objects(helm.template(values, sets=["otel.tls.existingSecret=,otel.tls.clientCertificate=false"]))
    settings, env = reached(rendered)
    need(settings == {"ext-authz": (COLLECTOR, None), "ingest-filter": (COLLECTOR, None)} and "OTEL_EXPORTER_OTLP_CERTIFICATE" not in env, f"{settings} {env}")
    need("tls_certificate_sds_secret_configs" not in envoys_otlp(rendered)["transport_socket"]["typed_config"]["common_tls_context"], "a certificate of ours")
    need("/etc/ssl/certs/ca-certificates.crt" in texts(rendered)["otlp-authorities.yaml"] and "otlp-certificate.yaml" not in texts(rendered), "files of a Secret")
    # In clear text.
    rendered = objects(helm.template(sets=["otel.host=collector"]))
    need("transport_socket" not in envoys_otlp(rendered) and reached(rendered)[0]["ext-authz"] == ("http://collector:4317", None), "TLS where none is asked for")


def reached(rendered):
    """What the services are told of the collector."""
    files = {name: yaml.load(texts(rendered)[f"{name}.yaml"], Loader=LOADER) for name in ("ext-authz", "ingest-filter")}
    env = {e["name"]: e.get("value") for e in container_of(rendered, "ratelimit-svc")["env"]}
    return {name: (file["otlp_endpoint"], file.get("otlp_tls")) for name, file in files.items()}, env


def envoys_otlp(rendered):
    [cluster] = [c for c in yaml.load(bootstrap_of(rendered), Loader=LOADER)["static_resources"]["clusters"] if c["name"] == "otlp"]
    return cluster


def off(helm):
    """Without it nothing speaks of certificates."""
    text = bootstrap_of(objects(helm.template()))
    need(not re.search(r"sds_secret|DownstreamTlsContext|UpstreamTlsContext", text), "the bootstrap asks for certificates")
