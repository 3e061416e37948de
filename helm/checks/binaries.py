"""The configurations that the chart renders, read by the programs that they are for."""

import os
import pathlib
import re
import shutil
import subprocess

from . import Failure, need, objects, of_kind, one_line
from .bootstrap import certificate, free_port
from .compose import starts

LISTENS = re.compile(r"(?:0\.0\.0\.0|\[::\]):(\d+)")


class Here:
    """Programs of this machine, with a directory of ours in place of the mounts."""

    def __init__(self, programs, scratch):
        self.programs, self.mounted, self.inside = programs, scratch, scratch

    def command(self, program):
        return [self.programs / program]

    def settle(self):
        """What the programs are given is theirs already."""


class Image:
    """Programs of an unpacked image, run as its user, with the mounts where the chart has them."""

    USER = 65532

    def __init__(self, root):
        self.root, self.mounted, self.inside = root, root / "etc/tidegate", pathlib.PurePosixPath("/etc/tidegate")

    def command(self, program):
        return ["chroot", f"--userspec={self.USER}:{self.USER}", self.root, program if "/" in program else f"/usr/local/bin/{program}"]

    def settle(self):
        for path in [self.mounted, *self.mounted.rglob("*")]:
            os.chown(path, self.USER, self.USER)


def container_of(rendered, component):
    for item in of_kind(rendered, "Deployment"):
        if item["metadata"]["labels"]["app.kubernetes.io/component"] == component:
            return item["spec"]["template"]["spec"]["containers"][0]
    raise Failure(f"no Deployment of {component}")


def texts(rendered):
    return {name: text for item in of_kind(rendered, "ConfigMap") for name, text in (item["data"] or {}).items()}


def on_this_machine(text, scratch, ports):
    """A file with free ports of loopback, and with a directory of ours in place of the mounts."""
    text = LISTENS.sub(lambda found: f"127.0.0.1:{ports.setdefault(found[1], free_port())}", text)
    return text.replace("/etc/tidegate", str(scratch)).replace("/var/lib/tidegate", str(scratch / "data"))


def mounts(scratch):
    """What Secrets and volumes hold, as far as the programs read it at start."""
    for name in ("keys", "pepper", "redis", "sink", "data", "config", "quotas", "rules", "tls", "kafka", "otlp-tls"):
        (scratch / name).mkdir(parents=True)
    (scratch / "keys/keys.yaml").write_text("keys: []\n", encoding="utf-8")
    for version in ("1", "2"):
        (scratch / f"pepper/pepper-{version}").write_text("a" * 44, encoding="utf-8")
    (scratch / "sink/token").write_text("secret\n", encoding="utf-8")
    certificate(scratch / "redis")
    for name in ("tls", "kafka", "sink", "otlp-tls"):
        certificate(scratch / name)
    for name in ("password", "token"):
        (scratch / f"kafka/{name}").write_text("secret\n", encoding="utf-8")


def take_it(rendered, machine):
    """Each service comes up on its configuration, with nothing that it depends on."""
    shutil.rmtree(machine.mounted, ignore_errors=True)
    mounts(machine.mounted)
    files = texts(rendered)
    quotas = {name: text for name, text in files.items() if name.endswith(".yaml") and "domain:" in text and "static_resources" not in text}
    for name, text in (quotas or {"a.yaml": "domain: a\n"}).items():
        (machine.mounted / f"quotas/{name}").write_text(text, encoding="utf-8")
    for item in of_kind(rendered, "ConfigMap"):
        if item["metadata"]["name"].endswith("-rules"):
            for name, text in item["data"].items():
                (machine.mounted / f"rules/{name}").write_text(text, encoding="utf-8")
    machine.settle()
    done = subprocess.run([*machine.command("ratelimit-svc"), "check", f"{machine.inside}/quotas"], capture_output=True, text=True)
    need(done.returncode == 0, f"ratelimit-svc check: {one_line(done.stdout + done.stderr)}")
    # Without Kafka a gateway is up and not ready, and so is a listener without SPIRE's agent.
    awaits_spire = "workload_api:" in files["ext-authz.yaml"]
    path_of_gateway = "/livez" if awaits_spire or "brokers:" in files["ingest-filter.yaml"] else "/readyz"
    path_of_others = "/livez" if awaits_spire else "/readyz"
    for program, arguments, path in [
        ("ext-authz", ["serve"], path_of_others), ("ingest-filter", ["gateway"], path_of_gateway), ("ingest-filter", ["writer"], "/livez"),
    ]:
        # Gateway and writer have the same ports in pods of their own.
        ports, role = {}, arguments[0]
        text = per_role(files[f"{program}.yaml"], machine.inside, ports, role)
        (machine.mounted / f"config/{program}.yaml").write_text(text, encoding="utf-8")
        machine.settle()
        starts([*machine.command(program), *arguments, "--config", f"{machine.inside}/config/{program}.yaml"], {}, ports["admin"], path, role)
    environment = {}
    for variable in container_of(rendered, "ratelimit-svc")["env"]:
        environment[variable["name"]] = on_this_machine(variable.get("value", "password"), machine.inside, {})
    for host in ("HOST", "GRPC_HOST", "DEBUG_HOST"):
        environment[host] = "127.0.0.1"
    for port in ("PORT", "GRPC_PORT", "DEBUG_PORT"):
        environment[port] = str(free_port())
    starts(machine.command("ratelimit-svc"), environment, int(environment["DEBUG_PORT"]), path_of_others, "ratelimit-svc")


def per_role(text, scratch, ports, role):
    """Free ports, one for each address that the file has; that of the role's admin listener is `admin`."""
    lines, section = [], ""
    for line in text.splitlines():
        if re.match(r"\w+:", line):
            section = line.split(":")[0]
        seen = {}
        line = on_this_machine(line, scratch, seen)
        if "admin_listen:" in line and section in (role, "admin_listen"):
            [ports["admin"]] = seen.values()
        lines.append(line)
    return "\n".join(lines) + "\n"


def login_with_a_token(helm, programs, scratch):
    """Gateway and writer take a login by a token that somebody else renews, as MSK's by IAM."""
    kafka = "ingest.journal.kafka"
    rendered = objects(helm.template(sets=["ingest.topics.by=none", "ingest.journal.kafkaSecret=kafka", f"{kafka}.tls.ca_file=/etc/tidegate/kafka/ca.crt",
                                           f"{kafka}.sasl.mechanism=OAUTHBEARER", f"{kafka}.sasl.token_file=/etc/tidegate/kafka/token"]))
    need("mechanism: OAUTHBEARER" in texts(rendered)["ingest-filter.yaml"], "no login")
    take_it(rendered, Here(programs, scratch))


def rules_of_tenants(helm, value_sets, programs, scratch):
    """A gateway is ready on the rules that the chart renders, and not on rules that are none: it has read them."""
    rendered = objects(helm.template(value_sets["embedded"]))
    take_it(rendered, Here(programs, scratch))
    changed = objects(helm.template(value_sets["embedded"], sets=["gateway.rules.b\\.yaml=tenants: {}"]))
    pods = [[item["spec"]["template"] for item in of_kind(items, "Deployment")] for items in (rendered, changed)]
    need(pods[0] == pods[1], "a change of rules restarts pods")
    [rules] = [item for item in of_kind(rendered, "ConfigMap") if item["metadata"]["name"].endswith("-rules")]
    rules["data"]["tenants.yaml"] = "default: {labels_max: many}\n"
    try:
        take_it(rendered, Here(programs, scratch))
    except Failure as failure:
        need("gateway: /readyz" in str(failure), str(failure))
        return
    raise Failure("a gateway is ready on rules that are none")
