"""The edge on the configurations that the chart renders for SPIRE, each service as its own user, and load for it."""

import http.client
import json
import re
import ssl
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import yaml

from checks import CHART, LOADER, need, objects, one_line, wait_for
from checks.binaries import container_of, texts
from checks.bootstrap import bootstrap_of, free_port, status

from .authority import USERS, spiffe

SERVICES = ("ext-authz", "ratelimit-svc", "gateway", "writer")
INSIDE = "/spiffe-workload-api/spire-agent.sock"
# Requests a second of the load, and over how many connections.
RATE, CONNECTIONS = 40, 4


class Edge:
    """Services, Envoy, and where they listen."""

    def __init__(self, helm, programs, envoy, spire, processes, servers):
        self.programs, self.envoy, self.spire, self.processes, self.servers = programs, envoy, spire, processes, servers
        self.dir = processes.scratch / "edge"
        self.dir.mkdir()
        self.rendered = objects(helm.template([CHART / "ci/spire-values.yaml"], sets=[
            f"ratelimit.redis.url=localhost:{servers['redis']}", f"extAuthz.config.redis.address=localhost:{servers['redis']}",
            f"ingest.journal.kafka.brokers=localhost:{servers['kafka']}", "ingest.journal.kafka.create_topic.replication_factor=1",
            "keda.enabled=false", f"writer.sink.influxdb_v1.url=https://localhost:{servers['influxdb']}",
            f"writer.sink.influxdb_v1.tls.server_san={spiffe('influxdb')}", "otel.host=localhost", f"otel.port={servers['collector']}", "otel.samplingPercent=100",
            # Programs of tests on a machine that may be compiling: what is tried is rotation, not haste.
            "envoy.timeouts.extAuthz=1s", "envoy.timeouts.ratelimit=1s"]))
        self.texts = texts(self.rendered)
        self.at = {name: free_port() for name in ("edge", "status", "admin", "ext-authz", "ratelimit-svc", "gateway")}
        self.admin = {name: free_port() for name in SERVICES}

    def start(self):
        self.configure()
        settings = {"ext-authz": self.dir / "ext-authz.yaml", "gateway": self.dir / "ingest-filter.yaml", "writer": self.dir / "ingest-filter.yaml"}
        # The broker comes first, then its topics, as the Job of the chart makes them.
        self.processes.start("topics", [self.programs / "ingest-filter", "topics", "--config", self.dir / "topics.yaml", "--within", "60"], USERS["gateway"])
        code = self.processes.running["topics"].wait(timeout=120)
        need(code == 0, f"the topics were not made: {one_line(self.processes.log('topics')[-600:])}")
        del self.processes.running["topics"]
        (self.dir / "keys.yaml").write_text("keys: []\n", encoding="utf-8")
        self.keys("load", self.dir / "keys.yaml")
        self.processes.start("ext-authz", [self.programs / "ext-authz", "serve", "--config", settings["ext-authz"]], USERS["ext-authz"])
        self.processes.start("ratelimit-svc", [self.programs / "ratelimit-svc"], USERS["ratelimit-svc"], self.environment())
        for role in ("gateway", "writer"):
            self.processes.start(role, [self.programs / "ingest-filter", role, "--config", settings[role]], USERS[role])
        for name in SERVICES:
            wait_for(f"{name} to be ready", lambda: self.processes.alive() and status(self.admin[name], "/readyz") == 200)
        self.processes.start("envoy", [self.envoy, "-c", self.dir / "envoy.yaml", "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"], USERS["envoy"])
        wait_for("Envoy", lambda: self.processes.alive() and status(self.at["status"], "/ready") == 200)
        self.key = self.keys("issue", "--append", "--tenant", "acme", "--priority", "ingest").strip()
        wait_for("the key to be known", lambda: self.write(self.connection(), "first f=1") == 204)

    def here(self, text):
        return text.replace(INSIDE, str(self.spire.socket)).replace("/etc/tidegate", str(self.dir))

    def configure(self):
        """Writes what the chart renders, with ports and directories of this machine and nothing else changed."""
        (self.dir / "quotas").mkdir()
        (self.dir / "quotas/edge.yaml").write_text(self.texts["edge.yaml"], encoding="utf-8")
        (self.dir / "pepper").mkdir()
        (self.dir / "pepper/pepper-1").write_text("a" * 44, encoding="utf-8")
        authz, ingest = (yaml.load(self.here(self.texts[name]), Loader=LOADER) for name in ("ext-authz.yaml", "ingest-filter.yaml"))
        del authz["keys_file"]
        authz |= {"grpc_listen": f"127.0.0.1:{self.at['ext-authz']}", "admin_listen": f"127.0.0.1:{self.admin['ext-authz']}"}
        ingest["gateway"] |= {"listen": f"127.0.0.1:{self.at['gateway']}", "admin_listen": f"127.0.0.1:{self.admin['gateway']}"}
        ingest["writer"]["admin_listen"] = f"127.0.0.1:{self.admin['writer']}"
        (self.dir / "ext-authz.yaml").write_text(yaml.safe_dump(authz), encoding="utf-8")
        (self.dir / "ingest-filter.yaml").write_text(yaml.safe_dump(ingest), encoding="utf-8")
        (self.dir / "topics.yaml").write_text(self.here(self.texts["topics.yaml"]), encoding="utf-8")
        (self.dir / "envoy.yaml").write_text(self.bootstrap(), encoding="utf-8")

    def bootstrap(self):
        text = self.here(bootstrap_of(self.rendered))
        for name in ("ext-authz", "ratelimit-svc", "gateway"):
            text, count = re.subn(rf'address: "edge-tidegate-{name}[-.][^"]*", port_value: \d+', f'address: 127.0.0.1, port_value: {self.at[name]}', text)
            need(count, f"Envoy does not reach {name}")
        ports = {"http": "edge", "status": "status"}
        for one in container_of(self.rendered, "envoy")["ports"]:
            text = text.replace(f'"0.0.0.0", port_value: {one["containerPort"]}', f'"127.0.0.1", port_value: {self.at[ports[one["name"]]]}')
        text, count = re.subn(r"address: 127\.0\.0\.1, port_value: 99\d\d\b", f"address: 127.0.0.1, port_value: {self.at['admin']}", text)
        need(count and "0.0.0.0" not in text, "an address of the bootstrap was not changed")
        return text

    def environment(self):
        found = {one["name"]: self.here(one.get("value", "")) for one in container_of(self.rendered, "ratelimit-svc")["env"]}
        found |= {"HOST": "127.0.0.1", "GRPC_HOST": "127.0.0.1", "DEBUG_HOST": "127.0.0.1", "PORT": str(free_port())}
        return found | {"GRPC_PORT": str(self.at["ratelimit-svc"]), "DEBUG_PORT": str(self.admin["ratelimit-svc"])}

    def keys(self, *arguments):
        """A command of ext-authz on the keys in Redis, as its user."""
        done = subprocess.run(list(map(str, [self.programs / "ext-authz", "keys", *arguments, "--config", self.dir / "ext-authz.yaml"])),
                              capture_output=True, text=True, user=USERS["ext-authz"], group=USERS["ext-authz"], extra_groups=[])
        need(done.returncode == 0, f"keys {arguments[0]}: {one_line(done.stderr)}")
        return done.stdout

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.at["edge"], timeout=60)

    def write(self, connection, lines):
        connection.request("POST", "/api/v2/write?bucket=load", lines, {"Authorization": f"Token {self.key}"})
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def metrics(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin[name]}/metrics", timeout=5) as answer:
            return answer.read().decode()

    def rotations(self, name):
        """How often a service took a certificate for its listener."""
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in self.metrics(name).splitlines()
                   if "tls_certificate_loads_total{" in line and 'result="success"' in line)

    def of_envoy(self):
        """The serial numbers of the certificates that Envoy has in force."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.at['admin']}/certs", timeout=5) as answer:
            return sorted({one["serial_number"] for pair in json.load(answer)["certificates"] for one in pair["cert_chain"]})

    def refused(self):
        """Lines of Envoy's access log about requests that were not answered well, the first and the last."""
        lines = [line for line in self.processes.log("envoy").splitlines() if '"status":503' in line or '"status": 503' in line]
        return "\n".join([*lines[:8], "...", *lines[-3:]])

    def stored(self, measurement):
        """How many points the database has."""
        trust = ssl.create_default_context(cafile=self.processes.scratch / "influxdb/ca.crt")
        query = urllib.parse.urlencode({"db": "acme__load", "q": f"SELECT count(f) FROM {measurement}"})
        with urllib.request.urlopen(f"https://localhost:{self.servers['influxdb']}/query?{query}", context=trust, timeout=10) as answer:
            series = json.load(answer)["results"][0].get("series")
        return series[0]["values"][0][1] if series else 0


class Load:
    """Numbered points at a steady rate until it is left; every answer is counted."""

    def __init__(self, edge):
        self.edge, self.over, self.answers, self.lock = edge, threading.Event(), {}, threading.Lock()
        self.threads = [threading.Thread(target=self.send, args=(number,)) for number in range(CONNECTIONS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def send(self, number):
        connection, sent, began = self.edge.connection(), 0, time.monotonic()
        while not self.over.is_set():
            stamp = number * 10**9 + sent + 1
            try:
                answer = self.edge.write(connection, f"load f={sent} {1_700_000_000_000_000_000 + stamp}")
            except (OSError, http.client.HTTPException) as error:
                answer = type(error).__name__
                connection.close()
            with self.lock:
                self.answers[answer] = self.answers.get(answer, 0) + 1
            sent += 1
            self.over.wait(max(0, began + sent * CONNECTIONS / RATE - time.monotonic()))
