#!/usr/bin/env python3
"""Telegraf and the OpenTelemetry Collector against a running edge, while the edge has faults.

Both are given numbered points for half a minute: Telegraf by a file that it follows, the Collector
over OTLP. Telegraf hands them on by five of its outputs (InfluxDB v1 and v2, OpenTelemetry,
Prometheus remote write, Datadog), the Collector by its two exporters (gRPC and HTTP), each to a
measurement or database of its own. Meanwhile ext-authz is stopped for 3 s, the gateway is killed with
signal 9, and the gateway is stopped for 4 s. At the end it is counted which numbers have arrived, and
which are there with more than one time or value.

    make run                                       # in another terminal
    python3 tests/agents/relays.py target/run TELEGRAF OTELCOL [full]

TELEGRAF and OTELCOL are the programs; one whose argument is `-` is left out. With `full` there are no
faults, and all of it is sent as tenant `demo`, whose quota is used up again and again: set it to 300
a minute in target/run/quotas/edge.yaml before.
"""

import collections
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

RUN, TELEGRAF, OTELCOL = sys.argv[1:4]
IS_FULL = sys.argv[4:] == ["full"]
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


def now_ns():
    return time.time_ns()


def attribute(key, value):
    return {"key": key, "value": {"stringValue": value}}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def to_collector(port, path, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).read()


def feed_collector(port, number):
    """One number as a metric, a log record and a span; one in fifty is a metric that is no number."""
    at = str(now_ns())
    point = {"asDouble": number, "timeUnixNano": at, "attributes": [attribute("seq", str(number))]}
    bad = {"asDouble": "NaN", "timeUnixNano": at, "attributes": [attribute("seq", "bad")]}
    points = [point, bad] if number % 50 == 0 else [point]
    metrics = [{"name": "collector_metric", "gauge": {"dataPoints": points}}]
    to_collector(port, "/v1/metrics", {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]})
    record = {"timeUnixNano": at, "severityNumber": 9, "body": {"stringValue": f"number {number}"}}
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    to_collector(port, "/v1/logs", logs)
    span = {
        "traceId": f"{number:032x}",
        "spanId": f"{number + 1:016x}",
        "name": "numbered",
        "kind": 1,
        "startTimeUnixNano": at,
        "endTimeUnixNano": at,
    }
    to_collector(port, "/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})


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
}


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


def main():
    directory = tempfile.mkdtemp(prefix="relays-")
    values = {"dir": directory, "edge": EDGE, "host": EDGE.removeprefix("http://"), "key": KEY, "tenant": TENANT, "port": free_port()}
    processes, wanted = [], []
    since = os.path.getsize(env()["TIDEGATE_POINTS"])
    log = open(f"{directory}/agents.log", "w")
    open(f"{directory}/points.lp", "w").close()
    if TELEGRAF != "-":
        open(f"{directory}/telegraf.conf", "w").write(TELEGRAF_TOML.format(**values))
        command = [TELEGRAF, "--config", f"{directory}/telegraf.conf"]
        processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        wanted += [way for way in WAYS if way.startswith("Telegraf")]
    if OTELCOL != "-":
        open(f"{directory}/otelcol.yaml", "w").write(OTELCOL_YAML.format(**values))
        command = [OTELCOL, "--config", f"{directory}/otelcol.yaml"]
        processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        wanted += [way for way in WAYS if way.startswith("Collector")]
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
                with open(f"{directory}/points.lp", "a") as out:
                    out.write(f"telegraf,seq={number} value={number}i {now_ns()}\n")
                if OTELCOL != "-":
                    feed_collector(values["port"], number)
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
