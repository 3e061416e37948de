"""Checks of compose.yaml, which no Docker takes part in."""

import json
import os
import re
import shutil
import subprocess

import compose_spec
import yaml

from . import HELM, LOADER, Failure, need, one_line, wait_for
from .bootstrap import envoy_accepts, free_port, status


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
        ours = service.get("image", "").startswith("tidegate/") or name in ("envoy", "redis")
        hardened = service.get("read_only") and service.get("cap_drop") == ["ALL"] and "mem_limit" in service
        need(hardened, f"{name}: writable, with capabilities or without a limit of memory")
        dumps = service.get("ulimits", {}).get("core")
        need(dumps == 0 or not ours or name == "redis", f"{name}: a core dump would hold keys")
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


VOLUMES = ("keys", "login", "config", "envoy")


def here(script, scratch):
    """The init job's script without a container: what Compose does with $$, and mounts with paths."""
    script = script.replace("$$", "$").replace("chown", ": chown")
    for inside, outside in (("/template/", f"{HELM.parent}/envoy-config/"), ("/data/", f"{scratch}/")):
        script = script.replace(inside, outside)
    return script


def renders_envoy(file, envoy, scratch):
    """The init job's own script, run here, makes a bootstrap that Envoy accepts, or fails."""
    [script] = file["services"]["init"]["command"]
    variables = file["services"]["init"]["environment"]
    for volume in VOLUMES:
        (scratch / volume).mkdir()
    script = here(script, scratch)
    for _ in range(2):  # A second `up` finds what the first one made.
        done = shell(script, variables)
        need(done.returncode == 0, one_line(done.stderr))
    need(len((scratch / "keys/pepper").read_bytes()) >= 32, "a short pepper")
    for name in ("ext-authz", "ingest-filter"):
        text = (scratch / f"config/{name}.yaml").read_text(encoding="utf-8")
        need(isinstance(yaml.load(text, Loader=LOADER), dict), f"{name}.yaml is no mapping")
    envoy_accepts(envoy, scratch / "envoy/envoy.yaml")
    done = shell(script, variables | {"KEYS": "memory"})
    need(done.returncode == 1 and "file or redis" in done.stderr, "keys in memory are let through")
    for class_ in (".*", "a,b", "A", "a$"):
        done = shell(script, variables | {"DENY_CLASSES": class_})
        need(done.returncode == 1 and "priority class" in done.stderr, f"the class {class_} is let through")
    origins = "https://app.example.com https://*.example.org http://localhost:3000"
    done = shell(script, variables | {"CORS_ORIGINS": origins})
    need(done.returncode == 0, one_line(done.stderr))
    envoy_accepts(envoy, scratch / "envoy/envoy.yaml")
    text = (scratch / "envoy/envoy.yaml").read_text(encoding="utf-8")
    pattern = r"(?i)(https://app\.example\.com|https://[^/:@]+\.example\.org|http://localhost:3000)"
    need(f"regex: '{pattern}'" in text, "the bootstrap has not the pattern of the origins")
    gateway = yaml.load((scratch / "config/ingest-filter.yaml").read_text(encoding="utf-8"), Loader=LOADER)["gateway"]
    need(gateway["cors_origins"] == origins.split(), f"the gateway has {gateway['cors_origins']}")
    for origin in ("https://a'b", "https://a b|c", "https://$x"):
        done = shell(script, variables | {"CORS_ORIGINS": origin})
        need(done.returncode == 1 and "origin" in done.stderr, f"the origin {origin} is let through")
    # The checks behind this one go by the defaults.
    need(shell(script, variables).returncode == 0, "a third start")
    template = scratch / "template.yaml"
    template.write_text("a: ${BRAND_NEW}\n", encoding="utf-8")
    script = script.replace(f"{HELM.parent}/envoy-config/envoy.yaml", str(template))
    done = shell(script, variables)
    need(done.returncode != 0, "a placeholder without a value is let through")


# What the containers listen on, inside.
PORTS = re.compile(r"0\.0\.0\.0:(\d+)")


def on_loopback(text, ports):
    """The addresses of a file, each on a free port of loopback; `ports` remembers which."""
    return PORTS.sub(lambda found: f"127.0.0.1:{ports.setdefault(found[1], free_port())}", text)


def mounts(file, service):
    """Where a service's read-only binds come from, by where they stand in its container."""
    pairs = [volume.split(":") for volume in file["services"][service]["volumes"]]
    return {inside: HELM.parent / source for source, inside, *_ in pairs if source.startswith("./")}


def starts(command, environment, admin, path, name, then=lambda: None):
    """A service of ours comes up on what compose gives it; `then` is called while it runs."""
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(f"{name}: {path} to be 200", lambda: process.poll() is not None or status(admin, path) == 200, 20, 0.05)
        need(process.poll() is None, f"{name} ended with {process.returncode}: {one_line(process.stdout.read()[-400:]) if process.poll() is not None else ''}")
        then()
    finally:
        process.kill()
        process.wait(timeout=20)


def binaries_take_it(file, programs, scratch):
    """Every file that compose mounts or its init job makes, read by the program that it is for."""
    # The init job's own files, of the check before.
    config = scratch / "config"
    ports = {}
    for name in ("ext-authz", "ingest-filter"):
        text = on_loopback((config / f"{name}.yaml").read_text(encoding="utf-8"), ports)
        text = text.replace("/etc/tidegate/keys", str(scratch / "keys"))
        (config / f"{name}-local.yaml").write_text(text, encoding="utf-8")
    [quotas] = mounts(file, "ratelimit-svc").values()
    done = subprocess.run([programs / "ratelimit-svc", "check", quotas], capture_output=True, text=True)
    need(done.returncode == 0, f"ratelimit-svc check: {one_line(done.stdout + done.stderr)}")

    root = scratch / "runtime"
    shutil.copytree(quotas, root / "quotas")
    environment = dict(file["services"]["ratelimit-svc"]["environment"])
    for host in ("HOST", "GRPC_HOST", "DEBUG_HOST"):
        environment[host] = "127.0.0.1"
    for port in ("PORT", "GRPC_PORT", "DEBUG_PORT"):
        environment[port] = str(free_port())
    # Ready on the files alone: nothing listens where Redis is.
    environment |= {"RUNTIME_ROOT": str(root), "REDIS_URL": f"127.0.0.1:{free_port()}"}
    starts([programs / "ratelimit-svc"], environment, int(environment["DEBUG_PORT"]), "/readyz", "ratelimit-svc")

    authz = [programs / "ext-authz", "serve", "--config", config / "ext-authz-local.yaml"]
    issue = [programs / "ext-authz", "keys", "issue", "--append", "--tenant=demo", "--priority=ingest"]
    done = subprocess.run([*issue, "--config", config / "ext-authz-local.yaml"], capture_output=True, text=True)
    need(done.returncode == 0, f"ext-authz keys issue: {one_line(done.stderr)}")
    starts(authz, {}, ports["9002"], "/readyz", "ext-authz")
    for role, admin in (("gateway", "8090"), ("writer", "8091")):
        ingest = [programs / "ingest-filter", role, "--config", config / "ingest-filter-local.yaml"]
        # Up and not ready: nothing answers to the name of Kafka.
        starts(ingest, {}, ports[admin], "/livez", role)


def keys_live_in_redis(file, programs, scratch):
    """With KEYS=redis: the Redis of compose has the rights it needs, no others, and forgets nothing."""
    need(shutil.which("redis-server"), "redis-server is missing: apt-get install redis-server")
    for volume in VOLUMES:
        (scratch / volume).mkdir()
    [script] = file["services"]["init"]["command"]
    done = shell(here(script, scratch), file["services"]["init"]["environment"] | {"KEYS": "redis"})
    need(done.returncode == 0, one_line(done.stderr))
    port, ports = free_port(), {}
    config = scratch / "config/ext-authz.yaml"
    text = on_loopback(config.read_text(encoding="utf-8"), ports).replace("redis-keys:6379", f"127.0.0.1:{port}")
    need(f"127.0.0.1:{port}" in text and "keys_file" not in text, "keys are not in Redis")
    config.write_text(text.replace("/etc/tidegate", str(scratch)), encoding="utf-8")
    redis = [word.replace("/etc/tidegate", str(scratch)) for word in file["services"]["redis-keys"]["command"]]

    def keys(*words):
        done = subprocess.run([programs / "ext-authz", "keys", *words, "--config", config], capture_output=True, text=True)
        need(done.returncode == 0, f"keys {words[0]}: {one_line(done.stderr)}")
        return done.stdout.strip()

    def answers():
        # As its health check asks.
        [_, check] = file["services"]["redis-keys"]["healthcheck"]["test"]
        check = here(check, scratch).replace("/etc/tidegate", str(scratch)).replace("redis-cli", f"redis-cli -p {port}")
        return shell(check, {}).returncode == 0

    def with_redis(then):
        process = subprocess.Popen([*redis, "--port", str(port), "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
        try:
            wait_for("redis-keys to answer", answers, 20, 0.05)
            then()
        finally:
            process.kill()
            process.wait(timeout=20)

    def revoke():
        key = keys("issue", "--append", "--tenant=demo", "--priority=ingest")
        stranger = subprocess.run(["redis-cli", "-p", str(port), "keys", "*"], capture_output=True, text=True)
        need("NOAUTH" in stranger.stdout, "anyone may read the keys")
        said = []
        serve = [programs / "ext-authz", "serve", "--config", config]
        starts(serve, {}, ports["9002"], "/readyz", "ext-authz", lambda: said.append(keys("revoke", key[9:21], "--wait")))
        need(said[0].endswith("in force at 1 replicas"), said[0])

    with_redis(revoke)
    with_redis(lambda: need("revoked" in keys("list"), "a key is gone with the process of Redis"))
