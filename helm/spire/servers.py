"""Redis, Kafka and InfluxDB with certificates of SPIRE, and a collector that sees who comes."""

import socket
import ssl
import subprocess
import threading

from checks import need, one_line, wait_for
from checks.bootstrap import free_port

from .authority import USERS


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def redis(spire, processes, port):
    """Redis over TLS alone, which wants a certificate of the trust domain of every client."""
    at = spire.fetched("redis")
    processes.start("redis", ["redis-server", "--bind", "127.0.0.1", "--port", "0", "--tls-port", port, "--tls-auth-clients", "yes",
                              "--tls-cert-file", at / "tls.crt", "--tls-key-file", at / "tls.key", "--tls-ca-cert-file", at / "ca.crt", "--save", "", "--appendonly", "no"],
                    USERS["redis"], directory=at)
    wait_for("Redis", lambda: processes.alive() and listens(port))


def influxdb(spire, processes, port):
    """InfluxDB over https. It asks no client for a certificate."""
    at = spire.fetched("influxdb")
    (at / "influxdb.conf").write_text(f"""
reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
  dir = "{at}/meta"
[data]
  dir = "{at}/data"
  wal-dir = "{at}/wal"
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
  https-enabled = true
  https-certificate = "{at}/tls.crt"
  https-private-key = "{at}/tls.key"
""", encoding="utf-8")
    processes.start("influxdb", ["influxd", "run", "-config", at / "influxdb.conf"], USERS["influxdb"], {"HOME": str(at)})
    wait_for("InfluxDB", lambda: processes.alive() and listens(port))


def kafka(spire, processes, jars, port):
    """A broker that knows clients by their certificates."""
    at = spire.fetched("kafka")
    (at / "kafka.pem").write_text((at / "tls.key").read_text(encoding="utf-8") + (at / "tls.crt").read_text(encoding="utf-8"), encoding="utf-8")
    controller = free_port()
    (at / "server.properties").write_text(f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENT://localhost:{port}
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:SSL
ssl.keystore.type=PEM
ssl.keystore.location={at}/kafka.pem
ssl.truststore.type=PEM
ssl.truststore.location={at}/ca.crt
ssl.client.auth=required
log.dirs={at}/logs
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
""", encoding="utf-8")
    java = ["java", "-Xms128m", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{jars}/*"]
    done = subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", "dGlkZWdhdGUta2Fma2EtMQ", "-c", str(at / "server.properties")],
                          capture_output=True, text=True, user=USERS["kafka"], group=USERS["kafka"], extra_groups=[], cwd=at)
    need(done.returncode == 0, f"Kafka's log directory: {one_line(done.stdout + done.stderr)}")
    processes.start("kafka", [*java, "kafka.Kafka", at / "server.properties"], USERS["kafka"], directory=at)
    wait_for("Kafka", lambda: processes.alive() and listens(port))


class Collector:
    """Ends handshakes of those that show a certificate of the trust domain, and keeps their names. Takes no spans."""

    def __init__(self, spire, port):
        at = spire.fetched("collector")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(at / "tls.crt", at / "tls.key")
        self.context.load_verify_locations(at / "ca.crt")
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.set_alpn_protocols(["h2"])
        self.seen, self.listeners = set(), [socket.create_server(("127.0.0.1", port))]
        if socket.has_ipv6:
            # What `localhost` means to Envoy first.
            self.listeners.append(socket.create_server(("::1", port), family=socket.AF_INET6))
        for listener in self.listeners:
            threading.Thread(target=self.serve, args=(listener,), daemon=True).start()

    def serve(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self.meet, args=(connection,), daemon=True).start()

    def meet(self, connection):
        try:
            connection.settimeout(10)
            with self.context.wrap_socket(connection, server_side=True) as encrypted:
                self.seen |= {value for kind, value in encrypted.getpeercert()["subjectAltName"] if kind == "URI"}
        except OSError:
            pass  # One without a certificate, or who left.

    def close(self):
        for listener in self.listeners:
            listener.close()

