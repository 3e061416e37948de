"""Checks of compose.yaml, which no Docker takes part in."""

import json
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
        for config in service.get("configs", []):
            need(config["source"] in file["configs"], f"{name}: no config {config['source']}")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            need(source in file["volumes"] or source.startswith("./"), f"{name}: no volume {source}")
        need("build" in service or not re.search(r":latest$|^[^:@]+$", service["image"]), f"{name}: no version of {service['image']}")
    return file


def renders_envoy(file, envoy, scratch):
    """The init job's own script, run here, makes a bootstrap that Envoy accepts."""
    [script] = file["services"]["init"]["command"]
    (scratch / "keys").mkdir()
    # What Compose does with $$, and what the container's mounts do with paths.
    script = script.replace("$$", "$").replace("chown", ": chown")
    for inside, outside in (("/template/", f"{HELM.parent}/envoy-config/"), ("/data/", f"{scratch}/")):
        script = script.replace(inside, outside)
    (scratch / "envoy").mkdir()
    for _ in range(2):  # A second `up` finds what the first one made.
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
        need(done.returncode == 0, one_line(done.stderr))
    need(len((scratch / "keys/pepper").read_bytes()) >= 32, "a short pepper")
    envoy_accepts(envoy, scratch / "envoy/envoy.yaml")
