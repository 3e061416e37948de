"""A real SPIRE server and agent on loopback, and who is who: workloads are told apart by their user."""

import json
import os
import pathlib
import shutil
import subprocess

from checks import Failure, need, one_line, wait_for
from checks.bootstrap import free_port

DOMAIN = "telemetry.example.com"
# The user of each workload. None of them is in /etc/passwd.
USERS = {name: 64100 + number for number, name in enumerate(
    ("envoy", "ext-authz", "ratelimit-svc", "gateway", "writer", "redis", "kafka", "influxdb", "collector", "stranger"))}
# Who is known by a host name as well.
HOSTS = {"redis", "kafka", "influxdb", "collector"}
# How long certificates of clients and services live, seconds: SPIRE renews them at half of it.
SHORT = 60
LONG = 3600


def spiffe(name):
    """The name that the chart wants of a component, or that of a server beside it."""
    if name in ("redis", "kafka", "influxdb", "collector"):
        return f"spiffe://{DOMAIN}/ns/data/sa/{name}"
    return f"spiffe://{DOMAIN}/ns/tidegate/sa/edge-tidegate-{name}"


class Processes:
    """What runs, each with a log of its own, ended by process id in reverse order."""

    def __init__(self, scratch):
        self.scratch, self.running = pathlib.Path(scratch), {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in reversed(list(self.running)):
            self.stop(name)

    def start(self, name, command, user=None, environment=None, directory=None):
        if user is not None:
            command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
        with open(self.scratch / f"{name}.log", "a", encoding="utf-8") as log:
            self.running[name] = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, cwd=directory or self.scratch,
                                                  env={"PATH": os.environ["PATH"], "HOME": str(self.scratch)} | (environment or {}))

    def stop(self, name):
        process = self.running.pop(name)
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log(self, name):
        return (self.scratch / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def alive(self):
        for name, process in self.running.items():
            if process.poll() is not None:
                raise Failure(f"{name} ended: {one_line(self.log(name)[-900:])}")
        return True


class Spire:
    """Server and agent, and the entries of all workloads."""

    def __init__(self, programs, processes):
        self.programs, self.processes = programs, processes
        self.dir = processes.scratch / "spire"
        self.sockets = processes.scratch / "agent"
        self.dir.mkdir()
        self.sockets.mkdir()
        self.sockets.chmod(0o755)

    @property
    def socket(self):
        return self.sockets / "spire-agent.sock"

    def start(self):
        port = free_port()
        (self.dir / "server.conf").write_text(f"""
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{self.dir}/server.sock"
  trust_domain = "{DOMAIN}"
  data_dir = "{self.dir}"
  ca_ttl = "24h"
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{self.dir}/datastore.sqlite3" }} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
""", encoding="utf-8")
        self.processes.start("spire-server", [self.programs / "spire-server", "run", "-config", self.dir / "server.conf"])
        wait_for("SPIRE's server", lambda: self.processes.alive() and self.server("healthcheck", check=False).returncode == 0)
        # Servers that read the authorities once must know both.
        self.prepare_authority()
        token = json.loads(self.server("token", "generate", "-output", "json").stdout)["value"]
        (self.dir / "agent.conf").write_text(f"""
agent {{
  data_dir = "{self.dir}/agent"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{self.socket}"
  trust_domain = "{DOMAIN}"
  insecure_bootstrap = true
}}
plugins {{
  KeyManager "disk" {{ plugin_data {{ directory = "{self.dir}/agent" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
""", encoding="utf-8")
        (self.dir / "agent").mkdir()
        self.start_agent("-joinToken", token)
        for name, user in USERS.items():
            hosts = ["-dns", "localhost"] if name in HOSTS else []
            life = LONG if name in HOSTS else SHORT
            self.server("entry", "create", "-parentID", f"spiffe://{DOMAIN}/spire/agent/join_token/{token}", "-spiffeID", spiffe(name),
                        "-selector", f"unix:uid:{user}", "-x509SVIDTTL", str(life), *hosts)

    def start_agent(self, *more):
        """Starts the agent, which keeps who it is on disk."""
        self.processes.start("spire-agent", [self.programs / "spire-agent", "run", "-config", self.dir / "agent.conf", *more])

    def server(self, *arguments, check=True):
        done = subprocess.run(list(map(str, [self.programs / "spire-server", *arguments, "-socketPath", self.dir / "server.sock"])), capture_output=True, text=True)
        need(done.returncode == 0 or not check, f"spire-server {arguments[0]}: {one_line(done.stdout + done.stderr)}")
        return done

    def fetched(self, name):
        """Certificate, key and authorities of a workload as the files that a server reads: those of its user."""
        directory = self.processes.scratch / name
        directory.mkdir(exist_ok=True)
        os.chown(directory, USERS[name], USERS[name])
        command = ["setpriv", f"--reuid={USERS[name]}", f"--regid={USERS[name]}", "--clear-groups", self.programs / "spire-agent", "api", "fetch", "x509",
                   "-socketPath", self.socket, "-write", directory]

        def asked():
            return subprocess.run(list(map(str, command)), capture_output=True, text=True).returncode == 0

        wait_for(f"the certificate of {name}", lambda: self.processes.alive() and asked())
        for file, new in (("svid.0.pem", "tls.crt"), ("svid.0.key", "tls.key"), ("bundle.0.pem", "ca.crt")):
            shutil.move(directory / file, directory / new)
        return directory

    def prepare_authority(self):
        """Makes the next authority, which is trusted before it signs, as SPIRE does it long before."""
        made = json.loads(self.server("localauthority", "x509", "prepare", "-output", "json").stdout)
        self.next = made["prepared_authority"]["authority_id"]

    def change_authority(self):
        """The next authority signs from now on; the one before is still trusted."""
        self.server("localauthority", "x509", "activate", "-authorityID", self.next)
