"""The configurations that the chart renders, read by the programs that they are for."""

import pathlib
import re
import shutil
import subprocess

from . import Failure, need, of_kind, one_line
from .bootstrap import certificate, free_port
from .compose import starts

LISTENS = re.compile(r"(?:0\.0\.0\.0|\[::\]):(\d+)")


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
    for name in ("keys", "pepper", "redis", "sink", "data", "config", "quotas", "tls", "kafka"):
        (scratch / name).mkdir(parents=True)
    (scratch / "keys/keys.yaml").write_text("keys: []\n", encoding="utf-8")
    for version in ("1", "2"):
        (scratch / f"pepper/pepper-{version}").write_text("a" * 44, encoding="utf-8")
    (scratch / "sink/token").write_text("secret\n", encoding="utf-8")
    certificate(scratch / "redis")
    for name in ("tls", "kafka", "sink"):
        certificate(scratch / name)
    (scratch / "kafka/password").write_text("secret\n", encoding="utf-8")


def take_it(rendered, programs, scratch):
    """Each service comes up on its configuration, with nothing that it depends on."""
    shutil.rmtree(scratch, ignore_errors=True)
    mounts(scratch)
    files = texts(rendered)
    quotas = {name: text for name, text in files.items() if name.endswith(".yaml") and "domain:" in text and "static_resources" not in text}
    for name, text in (quotas or {"a.yaml": "domain: a\n"}).items():
        (scratch / f"quotas/{name}").write_text(text, encoding="utf-8")
    done = subprocess.run([programs / "ratelimit-svc", "check", scratch / "quotas"], capture_output=True, text=True)
    need(done.returncode == 0, f"ratelimit-svc check: {one_line(done.stdout + done.stderr)}")
    for program, arguments, path in [
        ("ext-authz", ["serve"], "/readyz"), ("ingest-filter", ["gateway"], "/livez"), ("ingest-filter", ["writer"], "/livez"),
    ]:
        # Gateway and writer have the same ports in pods of their own.
        ports, role = {}, arguments[0]
        file = pathlib.Path(scratch / f"config/{program}.yaml")
        text = files[f"{program}.yaml"]
        file.write_text(per_role(text, scratch, ports, role), encoding="utf-8")
        starts([programs / program, *arguments, "--config", file], {}, ports["admin"], path, role)
    environment = {}
    for variable in container_of(rendered, "ratelimit-svc")["env"]:
        environment[variable["name"]] = on_this_machine(variable.get("value", "password"), scratch, {})
    for host in ("HOST", "GRPC_HOST", "DEBUG_HOST"):
        environment[host] = "127.0.0.1"
    for port in ("PORT", "GRPC_PORT", "DEBUG_PORT"):
        environment[port] = str(free_port())
    starts([programs / "ratelimit-svc"], environment, int(environment["DEBUG_PORT"]), "/readyz", "ratelimit-svc")


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
