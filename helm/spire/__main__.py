"""The checks of helm/spire.sh: one line each, then the sum."""

import argparse
import http.client
import os
import pathlib
import re
import ssl
import sys
import tempfile
import time

from checks import Failure, Helm, need, one_line, wait_for
from checks.bootstrap import free_port

from . import CHECKS, servers
from .authority import SHORT, Processes, Spire, spiffe
from .edge import SERVICES, Edge, Load

# How many certificates each listener takes while requests pass.
ROTATIONS = 5
LISTENERS = ("ext-authz", "ratelimit-svc", "gateway")


def answered(edge, spire, name, port):
    """Whether a service answers a client with a workload's certificate."""
    at = spire.fetched(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(at / "tls.crt", at / "tls.key")
    context.set_alpn_protocols(["http/1.1"] if port == edge.at["gateway"] else ["h2"])
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    try:
        if port == edge.at["gateway"]:
            connection.request("GET", "/ping")
            return connection.getresponse().status < 500
        connection.connect()
        # The preface of HTTP/2 and empty settings: a server answers with its own.
        connection.sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        return len(connection.sock.recv(9)) == 9
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def only_envoy(edge, spire):
    """Each listener answers Envoy, and nobody else of the trust domain."""
    for name in LISTENERS:
        port = edge.at[name]
        need(answered(edge, spire, "envoy", port), f"{name} does not answer Envoy's name")
        for other in ("stranger", "writer"):
            need(not answered(edge, spire, other, port), f"{name} answers {spiffe(other)}")


def rotated(edge, spire, processes):
    """Certificates are renewed again and again, the authority once, and the agent is away for a while: no request fails, every point is there."""
    before = {name: edge.rotations(name) for name in LISTENERS}
    seen = {tuple(edge.of_envoy())}

    def renewed(count):
        seen.add(tuple(edge.of_envoy()))
        return all(edge.rotations(name) - before[name] >= count for name in LISTENERS) and len(seen) > count

    with Load(edge) as load:
        wait_for("certificates to be renewed", lambda: renewed(2), 3 * SHORT)
        spire.change_authority()
        wait_for("certificates of the new authority", lambda: renewed(3), 3 * SHORT)
        processes.stop("spire-agent")
        time.sleep(SHORT / 6)
        spire.start_agent()
        wait_for("certificates after the agent's return", lambda: renewed(ROTATIONS), 4 * SHORT)
    need(load.answers.keys() == {204}, f"{load.answers}")
    sent = load.answers[204]
    wait_for("every point in the database", lambda: edge.stored("load") >= sent)
    need(edge.stored("load") == sent, f"{edge.stored('load')} points of {sent}")
    for name in SERVICES:
        refused = re.findall(r"^(\w+_files_refused) 1$", edge.metrics(name), re.MULTILINE)
        need(not refused, f"{name} refuses what came: {refused}")
    print(f"     {sent} points, {ROTATIONS} certificates of each listener, {len(seen)} of Envoy", flush=True)


def collector_knows(collector):
    wanted = {spiffe(name) for name in ("envoy", *SERVICES)}
    try:
        wait_for("everybody", lambda: wanted <= collector.seen)
    finally:
        need(collector.seen == wanted, f"{sorted(collector.seen ^ wanted)}")


def gone(edge, spire):
    """A workload whose entry is deleted is out once its last certificate has expired, with connections that are open."""
    [entry] = [line.split(":")[1].strip() for line in spire.server("entry", "show", "-spiffeID", spiffe("envoy")).stdout.splitlines() if line.startswith("Entry ID")]
    connection, began = edge.connection(), time.monotonic()
    need(edge.write(connection, "last f=1") == 204, "refused before")
    spire.server("entry", "delete", "-entryID", entry)

    def refused():
        try:
            return edge.write(edge.connection(), "late f=1") == 503
        except (OSError, http.client.HTTPException):
            return False

    wait_for("Envoy to be out", refused, 3 * SHORT)
    print(f"     out {time.monotonic() - began:.0f} s after the entry was deleted; certificates live {SHORT} s", flush=True)


class Checks:
    """Runs checks, prints one line for each and counts."""

    def __init__(self):
        self.passed = self.failed = 0

    def run(self, name, check, *arguments):
        if name not in CHECKS:
            raise ValueError(f"CHECKS has not '{name}'")
        try:
            check(*arguments)
        except Exception as error:  # A check that breaks has not passed, and the rest still counts.
            self.failed += 1
            kind = "" if isinstance(error, Failure) else f"{type(error).__name__}: "
            print(f"FAIL spire: {name}: {kind}{one_line(str(error))}", flush=True)
            return False
        self.passed += 1
        print(f"ok   spire: {name}", flush=True)
        return True


def main():
    arguments = argparse.ArgumentParser()
    for name in ("--tools", "--spire", "--programs", "--envoy", "--jars"):
        arguments.add_argument(name, type=pathlib.Path, required=True)
    options = arguments.parse_args()
    need(os.geteuid() == 0, "workloads are told apart by their users: run this as root")
    checks = Checks()
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        with Processes(scratch) as processes:
            spire = Spire(options.spire, processes)
            checks.run("server and agent start", spire.start)
            ports = {name: free_port() for name in ("redis", "kafka", "influxdb", "collector")}
            servers.redis(spire, processes, ports["redis"])
            servers.influxdb(spire, processes, ports["influxdb"])
            servers.kafka(spire, processes, options.jars, ports["kafka"])
            collector = servers.Collector(spire, ports["collector"])
            edge = Edge(Helm(options.tools, "4"), options.programs, options.envoy, spire, processes, ports)
            if checks.run("the chart's edge runs on what the agent sends", edge.start):
                checks.run("each service answers Envoy and nobody else", only_envoy, edge, spire)
                checks.run("rotations under load drop no request", rotated, edge, spire, processes)
                checks.run("the collector knows all clients by name", collector_knows, collector)
                checks.run("who has lost the right is out when its certificate ends", gone, edge, spire)
            if checks.failed:
                print(f"---- what Envoy says of refused requests\n{edge.refused()}")
                for log in sorted(processes.scratch.glob("*.log")):
                    print(f"---- {log.stem}\n{processes.log(log.stem)[-2500:]}")
            collector.close()
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
