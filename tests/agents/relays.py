#!/usr/bin/env python3
"""Telegraf, the OpenTelemetry Collector, Fluent Bit and vmagent against a running edge that has faults.

Each is given numbered points for half a minute: Telegraf by a file that it follows, the Collector
over OTLP, Fluent Bit over OTLP and as JSON, vmagent as line protocol. Each hands them on by all of its
outputs that the edge understands, each to a measurement or database of its own. Meanwhile ext-authz
is stopped for 3 s, the gateway is killed with signal 9, and the gateway is stopped for 4 s. At the end
it is counted which numbers have arrived, and which are there with more than one time or value.

    make run                                       # in another terminal
    python3 tests/agents/relays.py target/run [telegraf=PROGRAM] [otelcol=PROGRAM] [fluent-bit=PROGRAM]
        [vmagent=PROGRAM] [full] [stock]

With `full` there are no faults, and all of it is sent as tenant `demo`, whose quota is used up again
and again: set it to 300 a minute in target/run/quotas/edge.yaml before. With `stock` Fluent Bit tries
again once, as it does where nothing else is said.
"""

import collections
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

RUN = sys.argv[1]
PROGRAMS = dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)
IS_FULL = "full" in sys.argv[2:]
RETRIES = "1" if "stock" in sys.argv[2:] else "no_limits"
SECONDS = 30
A_SECOND = 20
SETTLE_MAX = 300 if IS_FULL else 120


def env():
    lines = (line.strip().replace("'", "") for line in open(f"{RUN}/env"))
    return dict(line.split("=", 1) for line in lines if "=" in line)


EDGE = env()["TIDEGATE_EDGE"]
TENANT, KEY = ("demo", env()["TIDEGATE_KEY"]) if IS_FULL else ("load", env()["TIDEGATE_LOAD_KEY"])

TELEGRAF_TOML = """
[agent]
  interval = "200ms"
  flush_interval = "500ms"
  metric_batch_size = 20
  metric_buffer_limit = 100000
  omit_hostname = true
[[inputs.tail]]
  files = ["{dir}/points.lp"]
  from_beginning = true
  watch_method = "poll"
  data_format = "influx"
[[outputs.influxdb]]
  urls = ["{edge}"]
  database = "telegraf_v1"
  skip_database_creation = true
  username = "{tenant}"
  password = "{key}"
[[outputs.influxdb_v2]]
  urls = ["{edge}"]
  token = "{key}"
  organization = "any"
  bucket = "telegraf_v2"
[[outputs.opentelemetry]]
  service_address = "{host}"
  [outputs.opentelemetry.headers]
    authorization = "Bearer {key}"
  [outputs.opentelemetry.attributes]
    way = "telegraf_otlp"
[[outputs.http]]
  url = "{edge}/api/v1/write"
  data_format = "prometheusremotewrite"
  [outputs.http.headers]
    Content-Type = "application/x-protobuf"
    Content-Encoding = "snappy"
    X-Prometheus-Remote-Write-Version = "0.1.0"
    Authorization = "Bearer {key}"
[[outputs.datadog]]
  url = "{edge}/api/v1/series"
  apikey = "{key}"
"""

OTELCOL_YAML = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: 127.0.0.1:{port}}}}}}}
processors:
  batch: {{timeout: 500ms, send_batch_size: 20}}
exporters:
  otlp_grpc:
    endpoint: {host}
    tls: {{insecure: true}}
    headers: {{authorization: "Bearer {key}"}}
    retry_on_failure: {{initial_interval: 500ms, max_interval: 5s, max_elapsed_time: 300s}}
  otlp_http:
    endpoint: {edge}
    headers: {{authorization: "Bearer {key}"}}
    retry_on_failure: {{initial_interval: 500ms, max_interval: 5s, max_elapsed_time: 300s}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    metrics/grpc: {{receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}}
    logs/http: {{receivers: [otlp], processors: [batch], exporters: [otlp_http]}}
    traces/grpc: {{receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}}
"""

# Fluent Bit's `influx`, `logs` and `grpc` are the paths on which it is given records, and their tags.
FLUENT_BIT_CONF = """
[SERVICE]
    flush 0.5
    scheduler.base 1
    scheduler.cap 5
[INPUT]
    name opentelemetry
    listen 127.0.0.1
    port {port}
[INPUT]
    name http
    listen 127.0.0.1
    port {records_port}
[OUTPUT]
    name influxdb
    match influx
    bucket fluent_bit
    org any
    http_token {key}
{to}
[OUTPUT]
    name opentelemetry
    match logs
    logs_uri /v1/logs
    header Authorization Bearer {key}
{to}
[OUTPUT]
    name opentelemetry
    match grpc
    grpc on
    http2 force
    header Authorization Bearer {key}
{to}
[OUTPUT]
    name opentelemetry
    match v1_metrics
    metrics_uri /v1/metrics
    add_label way fluent_bit
    header Authorization Bearer {key}
{to}
[OUTPUT]
    name prometheus_remote_write
    match v1_metrics
    uri /api/v1/write
    header Authorization Bearer {key}
{to}
"""
TO_EDGE = "    host 127.0.0.1\n    port {edge_port}\n    retry_limit {retries}"


def now_ns():
    return time.time_ns()


def attribute(key, value):
    return {"key": key, "value": {"stringValue": value}}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def post(port, path, body, kind="application/json"):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"content-type": kind})
    urllib.request.urlopen(request, timeout=10).read()


def feed_collector(port, number):
    """One number as a metric, a log record and a span; one in fifty is a metric that is no number."""
    at = str(now_ns())
    point = {"asDouble": number, "timeUnixNano": at, "attributes": [attribute("seq", str(number))]}
    bad = {"asDouble": "NaN", "timeUnixNano": at, "attributes": [attribute("seq", "bad")]}
    points = [point, bad] if number % 50 == 0 else [point]
    metrics = [{"name": "collector_metric", "gauge": {"dataPoints": points}}]
    post(port, "/v1/metrics", {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]})
    record = {"timeUnixNano": at, "severityNumber": 9, "body": {"stringValue": f"number {number}"}}
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    post(port, "/v1/logs", logs)
    span = {
        "traceId": f"{number:032x}",
        "spanId": f"{number + 1:016x}",
        "name": "numbered",
        "kind": 1,
        "startTimeUnixNano": at,
        "endTimeUnixNano": at,
    }
    post(port, "/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})


def message(number, body):
    """A field of protobuf that is shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(body)]) + body


def feed_fluent_bit(ports, number):
    """One number as a metric, of which it takes no JSON, and as a record for each other output."""
    label = message(1, b"seq") + message(2, message(1, str(number).encode()))
    point = message(7, label) + struct.pack("<BQBd", 0x19, now_ns(), 0x21, number)
    metric = message(1, b"fluent_bit_metric") + message(5, message(1, point))
    body = message(1, message(2, message(2, metric)))
    post(ports["port"], "/v1/metrics", body, "application/x-protobuf")
    for way in ("influx", "logs", "grpc"):
        post(ports["records_port"], f"/{way}", {"seq": number, "way": way})


def feed_vmagent(ports, number):
    post(ports["port"], "/write", f"vmagent,seq={number} value={number} {now_ns()}".encode())


def stop_for(pids, seconds):
    for pid in pids.split():
        os.kill(int(pid), signal.SIGSTOP)
    time.sleep(seconds)
    for pid in pids.split():
        os.kill(int(pid), signal.SIGCONT)


def kill_gateway():
    for pid in env()["GATEWAY_PIDS"].split():
        os.kill(int(pid), signal.SIGKILL)


FAULTS = {
    7: ("ext-authz stopped for 3 s", lambda: stop_for(env()["AUTHZ_PIDS"], 3)),
    14: ("gateway killed", kill_gateway),
    19: ("gateway stopped for 4 s", lambda: stop_for(env()["GATEWAY_PIDS"], 4)),
}

# What the number of a point is in a line of each way.
WAYS = {
    "Telegraf, influxdb": (r"telegraf_v1$", r"^telegraf,.*seq=(\d+) value="),
    "Telegraf, influxdb_v2": (r"telegraf_v2$", r"^telegraf,.*seq=(\d+) value="),
    "Telegraf, opentelemetry": (r"default$", r"^telegraf_value,.*seq=(\d+),way=telegraf_otlp gauge="),
    "Telegraf, http as remote write": (r"default$", r"^telegraf_value,.*seq=(\d+) value="),
    "Telegraf, datadog": (r"default$", r"^telegraf,.*seq=(\d+) gauge="),
    "Collector, otlp_grpc, metrics": (r"default$", r"^collector_metric,seq=(\d+) gauge="),
    "Collector, otlp_http, logs": (r"default$", r'^logs,.* body="number (\d+)"'),
    "Collector, otlp_grpc, spans": (r"default$", r'^spans,.*trace_id="([0-9a-f]+)"'),
    "Fluent Bit, influxdb": (r"fluent_bit$", r"^influx,.* seq=(\d+)"),
    "Fluent Bit, opentelemetry, logs": (r"default$", r"^logs,.*seq[^0-9]*(\d+)[^0-9]*logs"),
    "Fluent Bit, opentelemetry, logs by gRPC": (r"default$", r"^logs,.*seq[^0-9]*(\d+)[^0-9]*grpc"),
    "Fluent Bit, opentelemetry, metrics": (r"default$", r"^fluent_bit_metric,seq=(\d+),way=fluent_bit gauge="),
    "Fluent Bit, prometheus_remote_write": (r"default$", r"^fluent_bit_metric,seq=(\d+) value="),
    "vmagent": (r"default$", r"^vmagent_value,seq=(\d+) value="),
}
OF = {"telegraf": "Telegraf", "otelcol": "Collector", "fluent-bit": "Fluent Bit", "vmagent": "vmagent"}


def arrived(since):
    """For each way: number -> the distinct lines that it has behind that place of the file."""
    found = {way: collections.defaultdict(set) for way in WAYS}
    database = ""
    stored = open(env()["TIDEGATE_POINTS"])
    stored.seek(since)
    for line in stored:
        if line.startswith("# CONTEXT-DATABASE: "):
            database = line.split(": ", 1)[1].strip()
        for way, (of, pattern) in WAYS.items():
            is_there = re.search(f"^{TENANT}__{of}", database)
            match = is_there and re.search(pattern, line)
            if match:
                number = match.group(1)
                number = int(number, 16) if "spans" in way else int(number)
                found[way][number].add(line)
    return found


def command_of(agent, directory):
    """How an agent is started, and the ports on which it takes points."""
    ports = {"port": free_port(), "records_port": free_port()}
    host, to = EDGE.removeprefix("http://"), {"edge_port": EDGE.rsplit(":", 1)[1], "retries": RETRIES}
    values = {"dir": directory, "edge": EDGE, "host": host, "key": KEY, "tenant": TENANT, **ports}
    values["to"] = TO_EDGE.format(**to)
    program, config = PROGRAMS[agent], f"{directory}/{agent}.conf"
    if agent == "vmagent":
        flags = [f"-remoteWrite.url={EDGE}/api/v1/write", f"-remoteWrite.bearerToken={KEY}"]
        flags += [f"-httpListenAddr=127.0.0.1:{ports['port']}", f"-remoteWrite.tmpDataPath={directory}/vmagent"]
        return [program, "-remoteWrite.flushInterval=500ms", *flags], ports
    text = {"telegraf": TELEGRAF_TOML, "otelcol": OTELCOL_YAML, "fluent-bit": FLUENT_BIT_CONF}[agent]
    open(config, "w").write(text.format(**values))
    return [program, "-c" if agent == "fluent-bit" else "--config", config], ports


def feed(directory, ports, number):
    if "telegraf" in ports:
        with open(f"{directory}/points.lp", "a") as out:
            out.write(f"telegraf,seq={number} value={number}i {now_ns()}\n")
    if "otelcol" in ports:
        feed_collector(ports["otelcol"]["port"], number)
    if "fluent-bit" in ports:
        feed_fluent_bit(ports["fluent-bit"], number)
    if "vmagent" in ports:
        feed_vmagent(ports["vmagent"], number)


def main():
    directory = tempfile.mkdtemp(prefix="relays-")
    since = os.path.getsize(env()["TIDEGATE_POINTS"])
    log = open(f"{directory}/agents.log", "w")
    open(f"{directory}/points.lp", "w").close()
    processes, ports = [], {}
    for agent in PROGRAMS:
        command, ports[agent] = command_of(agent, directory)
        processes.append(subprocess.Popen(command, stdout=log, stderr=log))
    wanted = [way for way in WAYS if any(way.startswith(OF[agent]) for agent in PROGRAMS)]
    print(f"configurations and log of the agents: {directory}")
    time.sleep(5)
    number = 0
    try:
        for second in range(SECONDS):
            if second in FAULTS and not IS_FULL:
                name, act = FAULTS[second]
                print(f"second {second}: {name}")
                act()
            for _ in range(A_SECOND):
                number += 1
                feed(directory, ports, number)
                time.sleep(1 / A_SECOND)
        numbers = set(range(1, number + 1))
        for _ in range(SETTLE_MAX):
            found = arrived(since)
            if all(numbers <= set(found[way]) for way in wanted):
                break
            time.sleep(1)
        for way in wanted:
            there = set(found[way]) & numbers
            doubled = sum(len(lines) > 1 for lines in found[way].values())
            print(f"{way}: {len(there)} of {number} arrived, {doubled} with more than one time or value")
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


main()
