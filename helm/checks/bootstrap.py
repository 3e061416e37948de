"""Checks of Envoy's bootstrap, with the real Envoy."""

import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.request

from . import CHART, Failure, need, objects, of_kind, one_line, wait_for


def bootstrap_of(rendered):
    for item in of_kind(rendered, "ConfigMap"):
        if "envoy.yaml" in item["data"]:
            return item["data"]["envoy.yaml"]
    raise Failure("no ConfigMap holds envoy.yaml")


BREAK_GLASS = "/etc/tidegate/break-glass"
SDS = "/etc/tidegate/envoy"


def certificate(directory):
    """Makes tls.crt, tls.key and ca.crt, which are one self-signed certificate."""
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", "/CN=check"]
    done = subprocess.run([*request, "-keyout", directory / "tls.key", "-out", directory / "tls.crt"], capture_output=True, text=True)
    need(done.returncode == 0, one_line(done.stderr))
    shutil.copy(directory / "tls.crt", directory / "ca.crt")


def with_certificates(bootstrap, scratch):
    """The bootstrap with a certificate of its own in place of the mounted Secret's, where it asks for one."""
    if BREAK_GLASS in bootstrap or SDS in bootstrap:
        certificate(scratch)
    return bootstrap.replace(BREAK_GLASS, str(scratch)).replace(SDS, str(scratch))


def secrets_of(rendered, scratch):
    """Writes the files by which Envoy finds its certificates."""
    for item in of_kind(rendered, "ConfigMap"):
        for name, text in (item["data"] or {}).items():
            if name.startswith(("upstream-", "edge-", "otlp-")):
                (scratch / name).write_text(re.sub(r"/etc/tidegate/((edge|otlp)-)?tls", str(scratch), text), encoding="utf-8")


def envoy_accepts(envoy, file):
    done = subprocess.run([envoy, "--mode", "validate", "-c", file, "--log-level", "error", "--disable-hot-restart"], capture_output=True, text=True)
    need(done.returncode == 0, one_line(done.stdout + done.stderr))


def status(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as answer:
            return answer.status
    except urllib.error.HTTPError as answer:
        return answer.code
    except OSError:
        return None


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def envoy_drains(helm, envoy, scratch):
    """The chart's preStop, run on a real Envoy: not ready, not healthy, still serving."""
    rendered = objects(helm.template(sets=["envoy.drain.delaySeconds=0", "envoy.drain.timeoutSeconds=1"]))
    [deployment] = [d for d in of_kind(rendered, "Deployment") if d["metadata"]["name"].endswith("-envoy")]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: (port["containerPort"], free_port()) for port in container["ports"]}
    bootstrap, hook = bootstrap_of(rendered), container["lifecycle"]["preStop"]["exec"]["command"]
    for inside, outside in ports.values():
        bootstrap = bootstrap.replace(f'"0.0.0.0", port_value: {inside}', f'"127.0.0.1", port_value: {outside}')
    # The admin interface is no port of the container: it listens on loopback alone.
    [inside] = {int(port) for part in hook for port in re.findall(r"/dev/tcp/127.0.0.1/(\d+)", part)}
    admin = free_port()
    need(f"address: 127.0.0.1, port_value: {inside}" in bootstrap, "the admin interface is not on loopback")
    bootstrap = bootstrap.replace(f"127.0.0.1, port_value: {inside}", f"127.0.0.1, port_value: {admin}")
    hook = [part.replace(f"/dev/tcp/127.0.0.1/{inside}", f"/dev/tcp/127.0.0.1/{admin}") for part in hook]
    file = scratch / "drain-envoy.yaml"
    file.write_text(bootstrap, encoding="utf-8")
    edge, status_port = ports["http"][1], ports["status"][1]
    liveness = container["livenessProbe"]["httpGet"]["path"]
    flags = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
    process = subprocess.Popen([envoy, "-c", file, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for("Envoy", lambda: status(status_port, "/ready") == 200 and status(edge, "/healthz") == 200, 20, 0.05)
        done = subprocess.run(hook, capture_output=True, text=True, timeout=30)
        need(done.stdout.count("HTTP/1.1 200 OK") == 2, one_line(done.stdout + done.stderr))
        wait_for("the readiness probe to fail", lambda: status(status_port, "/ready") == 503, 20, 0.05)
        wait_for("the health check to fail", lambda: status(edge, "/healthz") == 503, 20, 0.05)
        need(status(status_port, liveness) == 200, "the liveness probe fails while draining")
        need(status(edge, "/ping") is not None, "refuses requests while draining")
    finally:
        process.terminate()
        process.wait(timeout=20)


def packaged(helm, scratch):
    """Flux takes a chart from Git without its links, so it has none, and a package is all of it."""
    links = [path for path in CHART.rglob("*") if path.is_symlink()]
    need(not links, f"{links[:1]} is a link")
    source = (CHART.parent.parent / "envoy-config/envoy.yaml").read_bytes()
    need((CHART / "files/envoy.yaml").read_bytes() == source, "files/envoy.yaml differs: cp envoy-config/envoy.yaml helm/tidegate/files/")
    directory = scratch / helm.name.replace(" ", "-")
    code, _, err = helm.run("package", CHART, "--destination", directory)
    need(code == 0, one_line(err))
    [package] = directory.glob("*.tgz")
    need(helm.template(chart=package) == helm.template(), "renders differently than its directory")


def unknown_placeholder(helm, scratch):
    copy = scratch / "chart"
    shutil.copytree(CHART, copy)
    with open(copy / "files/envoy.yaml", "a", encoding="utf-8") as file:
        file.write("# ${IN_A_COMMENT}\nfoo: ${BRAND_NEW}\n")
    try:
        helm.template(chart=copy)
    except Failure as failure:
        need("placeholder ${BRAND_NEW}" in str(failure), str(failure))
        return
    raise Failure("was rendered")
