"""The Job that makes the journal's topics, run here by the real program on the real Kafka; and what Strimzi would make."""

import pathlib
import re
import subprocess

import yaml

from . import LOADER, need, objects, of_kind, one_line

TOPIC = "chart-check"
# One broker has no three copies.
SETS = [f"ingest.journal.kafka.topic={TOPIC}", "ingest.journal.kafka.create_topic.partitions=5", "ingest.journal.kafka.create_topic.replication_factor=1",
        "writer.replicas=3", "ingest.topics.timeoutSeconds=10"]


def job_of(rendered):
    [job] = [job for job in of_kind(rendered, "Job") if "-topics-" in job["metadata"]["name"]]
    return job


def config_of(rendered, name):
    [text] = [text for item in of_kind(rendered, "ConfigMap") if item["metadata"]["name"] == name for text in item["data"].values()]
    return yaml.load(text, Loader=LOADER)


def asked(programs, edge, scratch, config, *arguments):
    """Runs the program with a rendered configuration whose brokers, certificates and login are those of the edge."""
    [ours, *_] = sorted(pathlib.Path(edge.env["TIDEGATE_CA"]).parent.parent.glob("ingest-filter*.yaml"))
    own = yaml.load(ours.read_text(encoding="utf-8"), Loader=LOADER)["journal"]["kafka"]
    kafka = config["journal"]["kafka"] | {key: own[key] for key in ("brokers", "tls", "sasl") if key in own}
    file = scratch / "topics.yaml"
    file.write_text(yaml.safe_dump({"journal": {"kafka": kafka}}), encoding="utf-8")
    done = subprocess.run([(programs / "ingest-filter").resolve(), *(argument.replace("/etc/tidegate/config/topics.yaml", str(file)) for argument in arguments)],
                          cwd=ours.parent, capture_output=True, text=True, timeout=60)
    return done.returncode, one_line(done.stdout + done.stderr)


def made_by_the_job(helm, programs, scratch, edge):
    """The Job makes all topics; the services find them good without the right to make any; too few copies fail it."""
    rendered = objects(helm.template(sets=SETS))
    job = job_of(rendered)
    [container] = job["spec"]["template"]["spec"]["containers"]
    need(container["command"] == ["/usr/local/bin/ingest-filter"], f"{container['command']}")
    code, said = asked(programs, edge, scratch, config_of(rendered, "edge-tidegate-topics"), *container["args"])
    need(code == 0 and said.count("ok: ") == 7 and all(f"{TOPIC}{of}, partitions: 5" in said for of in ("", "-logs", "-traces")), f"{code}: {said}")
    services = config_of(rendered, "edge-tidegate-ingest-filter")
    need("create_topic" not in services["journal"]["kafka"], "the services would make topics")
    code, said = asked(programs, edge, scratch, services, *container["args"])
    need(code == 0 and said.count("ok: ") == 7, f"services: {code}: {said}")
    three = objects(helm.template(sets=[*SETS, "ingest.journal.kafka.create_topic.replication_factor=3"]))
    code, said = asked(programs, edge, scratch, config_of(three, "edge-tidegate-topics"), *container["args"])
    need(code == 1 and "may lose records" in said, f"three copies of one broker: {code}: {said}")
    code, said = asked(programs, edge, scratch, config_of(three, "edge-tidegate-ingest-filter"), *container["args"])
    need(code == 1 and "may lose records" in said, f"services: {code}: {said}")


def another_job_for_another_topic(helm):
    """What changes a Job changes its name, since a Job cannot be changed; what does not leaves it."""
    name = job_of(objects(helm.template()))["metadata"]["name"]
    for change in ("ingest.journal.kafka.create_topic.partitions=48", "image.tag=9.9.9", "commonLabels.a=b", "ingest.journal.kafkaSecret=kafka"):
        need(job_of(objects(helm.template(sets=[change])))["metadata"]["name"] != name, f"{change} would change a Job")
    need(job_of(objects(helm.template(sets=["envoy.replicas=5"])))["metadata"]["name"] == name, "a new Job for nothing")
    for by in ("services", "none"):
        rendered = objects(helm.template(sets=[f"ingest.topics.by={by}"]))
        need(not [job for job in of_kind(rendered, "Job") if "topics" in job["metadata"]["name"]], f"{by}: a Job")
        kafka = config_of(rendered, "edge-tidegate-ingest-filter")["journal"]["kafka"]
        need(("create_topic" in kafka) == (by == "services"), f"{by}: {kafka}")
        need(by == "services" or kafka["replication_factor_min"] == 3, f"{by}: {kafka}")


def jobs_network(helm):
    """The Job reaches DNS and the brokers, in both flavours, and nobody reaches it."""
    for flavour, kind in (("kubernetes", "NetworkPolicy"), ("cilium", "CiliumNetworkPolicy")):
        rendered = objects(helm.template(sets=[f"networkPolicy.flavour={flavour}", "ingest.journal.kafka.brokers=b.msk.example.com:9094"]))
        labels = job_of(rendered)["spec"]["template"]["metadata"]["labels"]
        selector = "podSelector" if flavour == "kubernetes" else "endpointSelector"
        [policy] = [item for item in of_kind(rendered, kind) if item["metadata"]["name"].endswith("-topics")]
        wanted = policy["spec"][selector]["matchLabels"]
        need(wanted.items() <= labels.items(), f"{flavour}: selects {wanted}")
        ports = set(map(str, re.findall(r"'port': '?(\d+)", str(policy["spec"]["egress"]))))
        need(ports == {"53", "9094"}, f"{flavour}: {ports}")
        need(policy["spec"].get("ingress") in (None, [{}]), f"{flavour}: somebody may reach it")


def strimzis(helm):
    """KafkaTopic objects are the topics that the program would make: names, partitions, copies, and its settings."""
    source = (pathlib.Path(__file__).parents[2] / "ingest-filter/src/journal/kafka/topic.rs").read_text(encoding="utf-8")
    body = source[source.index("async fn create("):]
    ours = set(re.findall(r'\.set\("([a-z.]+)"', body))
    need(len(ours) == 4, f"the program sets {ours}")
    forever = dict(re.findall(r'\("(retention\.\w+)", "(-1)"\)', source))
    sets = ["ingest.topics.by=strimzi", "ingest.topics.strimzi.cluster=main", "ingest.topics.strimzi.namespace=kafka", "ingest.journal.kafka.topic=Points_of.EU"]
    topics = of_kind(objects(helm.template(sets=sets)), "KafkaTopic")
    found = {t["spec"]["topicName"]: (t["spec"]["partitions"], t["spec"]["replicas"]) for t in topics}
    points = "Points_of.EU"
    expected = {f"{points}-types": (1, 3)}
    for topic in (points, f"{points}-logs", f"{points}-traces"):
        expected |= {topic: (24, 3), f"{topic}-dead-letter": (1, 3)}
    need(found == expected, f"{found}")
    one = of_kind(objects(helm.template(sets=[*sets, f"ingest.journal.kafka.logs_topic={points}", f"ingest.journal.kafka.traces_topic={points}"])), "KafkaTopic")
    need({t["spec"]["topicName"] for t in one} == {points, f"{points}-dead-letter", f"{points}-types"}, f"{one}")
    for topic in topics:
        config, name = topic["spec"]["config"], topic["metadata"]["name"]
        lasting = set(forever) if name.endswith("-types") else set()
        need(config.keys() == ours | lasting and config["min.insync.replicas"] == 2, f"{name}: {config}")
        need(re.fullmatch(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", name) and topic["metadata"]["namespace"] == "kafka", name)
        need(topic["metadata"]["labels"]["strimzi.io/cluster"] == "main", f"{name} is of no cluster")
