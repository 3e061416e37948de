"""Checks of compose.yaml, which no Docker takes part in."""

import json
import os
import re
import subprocess

import compose_spec
import yaml

from . import HELM, LOADER, Failure, need, one_line
from .bootstrap import envoy_accepts


def consistent():
    text = (HELM.parent / "compose.yaml").read_text(encoding="utf-8")
    # As Compose does with variables that are not set.
    file = yaml.load(re.sub(r"(?<!\$)\$\{\w+:-([^}]*)\}", r"\1", text), Loader=LOADER)
    try:
        # Through JSON, as the parser knows no merge keys.
        compose_spec.PyCompose.from_json(json.dumps(file)).to_spec()
    except Exception as error:  # The package raises whatever its parser does.
        raise Failure(one_line(str(error))) from None
    services = file["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            need(other in services, f"{name} depends on {other}, which is not there")
            if how["condition"] == "service_healthy":
                need("healthcheck" in services[other], f"{name} waits for the health of {other}, which has no check")
        for port in service.get("ports", []):
            need(port.startswith("127.0.0.1:"), f"{name}: {port} is not bound to loopback")
        need(not (service.get("read_only") and service.get("configs")), f"{name}: configs in a read-only container")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            there = (HELM.parent / source).exists() if source.startswith("./") else source in file["volumes"]
            need(there, f"{name}: no volume {source}")
        need("build" in service or not re.search(r":latest$|^[^:@]+$", service["image"]), f"{name}: no version of {service['image']}")
    return file


def shell(script, variables):
    return subprocess.run(["sh", "-c", script], env=os.environ | variables, capture_output=True, text=True)


def renders_envoy(file, envoy, scratch):
    """The init job's own script, run here, makes a bootstrap that Envoy accepts, or fails."""
    [script] = file["services"]["init"]["command"]
    variables = file["services"]["init"]["environment"]
    for volume in ("keys", "config", "envoy"):
        (scratch / volume).mkdir()
    # What Compose does with $$, and what the container's mounts do with paths.
    script = script.replace("$$", "$").replace("chown", ": chown")
    for inside, outside in (("/template/", f"{HELM.parent}/envoy-config/"), ("/data/", f"{scratch}/")):
        script = script.replace(inside, outside)
    for _ in range(2):  # A second `up` finds what the first one made.
        done = shell(script, variables)
        need(done.returncode == 0, one_line(done.stderr))
    need(len((scratch / "keys/pepper").read_bytes()) >= 32, "a short pepper")
    for name in ("ext-authz", "ingest-filter"):
        text = (scratch / f"config/{name}.yaml").read_text(encoding="utf-8")
        need(isinstance(yaml.load(text, Loader=LOADER), dict), f"{name}.yaml is no mapping")
    envoy_accepts(envoy, scratch / "envoy/envoy.yaml")
    for class_ in (".*", "a,b", "A", "a$"):
        done = shell(script, variables | {"DENY_CLASSES": class_})
        need(done.returncode == 1 and "priority class" in done.stderr, f"the class {class_} is let through")
    template = scratch / "template.yaml"
    template.write_text("a: ${BRAND_NEW}\n", encoding="utf-8")
    script = script.replace(f"{HELM.parent}/envoy-config/envoy.yaml", str(template))
    done = shell(script, variables)
    need(done.returncode != 0, "a placeholder without a value is let through")
