"""What the services are given of their containers' limits."""

import yaml

from . import LOADER, need, objects
from .binaries import container_of, texts

MIB = 1 << 20


def ingest(rendered):
    return yaml.load(texts(rendered)["ingest-filter.yaml"], Loader=LOADER)


def derived(helm):
    """Budgets follow the limits, and a setting of the user's wins."""
    for memory, cpu, wanted in [
        ("1Gi", "500m", ("409MiB", "64MiB", "32MiB", "204MiB", "1", 1)),
        ("2Gi", "4", ("819MiB", "64MiB", "32MiB", "409MiB", "4", 4)),
        ("300Mi", "1500m", ("120MiB", "30MiB", "15MiB", "60MiB", "2", 2)),
    ]:
        limits = [f"{key}.resources.limits.{what}={value}" for key in ("gateway", "extAuthz", "ratelimit")
                  for what, value in (("memory", memory), ("cpu", cpu)) if (key, cpu) != ("ratelimit", "500m")]
        rendered = objects(helm.template(sets=limits))
        config, authz = ingest(rendered), yaml.load(texts(rendered)["ext-authz.yaml"], Loader=LOADER)
        gateway = config["gateway"]
        threads = {variable["name"]: variable.get("value") for variable in container_of(rendered, "ratelimit-svc")["env"]}
        found = (gateway["memory_bytes_max"], gateway["decoded_bytes_max"], gateway["body_bytes_max"],
                 config["journal"]["kafka"]["queue_bytes_max"], threads["GRPC_WORKER_THREADS"], authz["worker_threads"])
        need(found == wanted, f"{memory}, {cpu}: {found} instead of {wanted}")
        share = {"1Gi": "409MiB", "2Gi": "819MiB", "300Mi": "120MiB"}[memory]
        writer = ingest(objects(helm.template(sets=[f"writer.resources.limits.memory={memory}", "writer.resources.requests.memory=64Mi"])))["writer"]
        need(writer["batches_bytes_max"] == share, f"{memory}: batches of {writer['batches_bytes_max']}")
    given = ["gateway.config.memory_bytes_max=300MiB", "ingest.journal.kafka.queue_bytes_max=100MiB"]
    config = ingest(objects(helm.template(sets=given)))
    found = (config["gateway"]["memory_bytes_max"], config["journal"]["kafka"]["queue_bytes_max"])
    need(found == ("300MiB", "100MiB"), f"{found}")


def envoys_heap(helm):
    """Three quarters of the limit, and as many threads as cores, unless the user says otherwise."""
    for sets, heap, threads in [([], 768 * MIB, "2"), (["envoy.resources.limits.memory=2Gi,envoy.resources.limits.cpu=3500m"], 1536 * MIB, "4"),
                                (["envoy.heapBytesMax=900000000,envoy.concurrency=3"], 900000000, "3")]:
        rendered = objects(helm.template(sets=sets))
        need(f"max_heap_size_bytes: {heap}" in texts(rendered)["envoy.yaml"], f"{sets}: not a heap of {heap}")
        arguments = container_of(rendered, "envoy")["args"]
        need(arguments[arguments.index("--concurrency") + 1] == threads, f"{sets}: {arguments}")
