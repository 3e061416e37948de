#!/usr/bin/env python3
"""The Python clients of InfluxDB 1, 2 and 3, OpenTelemetry and Datadog against a running edge.

For each client and situation it prints what Envoy sent back (from its access log) and what the client
did with its data then, and how many of its points have arrived at the end.

    make run                                       # in another terminal
    pip install influxdb influxdb-client influxdb3-python opentelemetry-sdk opentelemetry-exporter-otlp
    pip install datadog-api-client
    python3 tests/agents/python_agents.py target/run [CLIENT ...]

Tenant `demo` has 3 requests a minute: each client sends 5, so it meets a full quota. The situation
`away` stops ext-authz for 3 s with SIGSTOP, at the end of the run.
"""

import collections
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

RUN = sys.argv[1]
ONLY = sys.argv[2:]
ENV = dict(
    line.strip().replace("'", "").split("=", 1) for line in open(f"{RUN}/env") if "=" in line
)
EDGE = ENV["TIDEGATE_EDGE"]
HOST = EDGE.removeprefix("http://")
SENT = 5
WAIT_MAX = 150


class Log(logging.Handler):
    """What a client says of its own accord."""

    def __init__(self):
        super().__init__()
        self.lines = collections.Counter()

    def emit(self, record):
        self.lines[record.getMessage()[:110]] += 1


LOCK = threading.Lock()
LOG = Log()
logging.getLogger().addHandler(LOG)
logging.getLogger().setLevel(logging.WARNING)


def influxdb1(key, name, number):
    from influxdb import InfluxDBClient

    host, port = HOST.split(":")
    client = InfluxDBClient(host, int(port), "demo", key, "agents", retries=3)
    client.write_points([{"measurement": name, "fields": {"n": number}}])


class Influxdb2:
    """Its batching writer, which retries in the background."""

    api = None

    def __call__(self, key, name, number):
        from influxdb_client import InfluxDBClient, Point, WriteOptions

        with LOCK:
            if not self.api:
                self.client, self.errors = InfluxDBClient(EDGE, key, org="o"), []
                options = WriteOptions(batch_size=1, max_retry_time=WAIT_MAX * 1000)
                failed = lambda _, __, error: self.errors.append(error)
                self.api = self.client.write_api(write_options=options, error_callback=failed)
        self.api.write("agents", "o", Point(name).field("n", number))

    def finish(self):
        self.api.close()
        self.client.close()
        return [f"error_callback: {error.status} {error.reason}" for error in self.errors]


def otlp(http):
    def send(key, name, number):
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader

        if http:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

            exporter = OTLPMetricExporter(
                f"{EDGE}/v1/metrics", headers={"x-api-key": key}, timeout=WAIT_MAX
            )
        else:
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

            exporter = OTLPMetricExporter(
                EDGE, insecure=True, headers={"x-api-key": key}, timeout=WAIT_MAX
            )
        results = []
        export = exporter.export
        exporter.export = lambda *a, **k: results.append(export(*a, **k)) or results[-1]
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=10**9)
        provider = MeterProvider(metric_readers=[reader])
        provider.get_meter("agents").create_gauge(name).set(number)
        provider.force_flush(WAIT_MAX * 1000)
        if MetricExportResult.SUCCESS not in results:
            raise RuntimeError("export failed, dropped")

    return send


def influxdb3(key, name, number):
    from influxdb_client_3 import InfluxDBClient3, Point

    with InfluxDBClient3(host=EDGE, token=key, database="agents") as client:
        client.write(Point(name).field("n", number))


def otlp_exporter(signal, transport, kind, key):
    """The exporter of logs or traces, with what it returned."""
    module = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{transport}.{signal}")
    headers, results = {"x-api-key": key}, []
    if transport == "http":
        path = {"OTLPLogExporter": "logs", "OTLPSpanExporter": "traces"}[kind]
        exporter = getattr(module, kind)(f"{EDGE}/v1/{path}", headers=headers, timeout=WAIT_MAX)
    else:
        exporter = getattr(module, kind)(EDGE, insecure=True, headers=headers, timeout=WAIT_MAX)
    export = exporter.export
    exporter.export = lambda *a, **k: results.append(export(*a, **k)) or results[-1]
    return exporter, results


def otlp_logs(transport):
    def send(key, name, number):
        from opentelemetry._logs import LogRecord
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

        exporter, results = otlp_exporter("_log_exporter", transport, "OTLPLogExporter", key)
        provider = LoggerProvider()
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        record = LogRecord(timestamp=time.time_ns(), body=f"{name} {number}")
        provider.get_logger("agents").emit(record)
        provider.shutdown()
        if [result.name for result in results] != ["SUCCESS"]:
            raise RuntimeError(f"export: {results}, dropped")

    return send


def otlp_traces(transport):
    def send(key, name, number):
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor

        exporter, results = otlp_exporter("trace_exporter", transport, "OTLPSpanExporter", key)
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("agents").start_as_current_span(name) as span:
            span.set_attribute("n", number)
        provider.shutdown()
        if [result.name for result in results] != ["SUCCESS"]:
            raise RuntimeError(f"export: {results}, dropped")

    return send


def datadog(retry):
    def send(key, name, number):
        from datadog_api_client import ApiClient, Configuration
        from datadog_api_client.v2.api.metrics_api import MetricsApi
        from datadog_api_client.v2.model.metric_payload import MetricPayload
        from datadog_api_client.v2.model.metric_point import MetricPoint
        from datadog_api_client.v2.model.metric_series import MetricSeries

        configuration = Configuration(host=EDGE, enable_retry=retry, max_retries=8)
        configuration.api_key["apiKeyAuth"] = key
        with ApiClient(configuration) as client:
            point = MetricPoint(timestamp=int(time.time()), value=float(number))
            series = MetricSeries(metric=name, type=3, points=[point])
            MetricsApi(client).submit_metrics(body=MetricPayload(series=[series]))

    return send


CLIENTS = {
    "influxdb": lambda: influxdb1,
    "influxdb-client": Influxdb2,
    "influxdb3-python": lambda: influxdb3,
    "otlp-http": lambda: otlp(True),
    "otlp-grpc": lambda: otlp(False),
    "otlp-logs-http": lambda: otlp_logs("http"),
    "otlp-logs-grpc": lambda: otlp_logs("grpc"),
    "otlp-traces-http": lambda: otlp_traces("http"),
    "otlp-traces-grpc": lambda: otlp_traces("grpc"),
    "datadog-api-client": lambda: datadog(False),
    "datadog-api-client-retry": lambda: datadog(True),
}


def refusals(since):
    """What Envoy has refused since that place in its log, by status and flags."""
    found = collections.Counter()
    with open(f"{RUN}/envoy.log") as log:
        log.seek(since)
        for line in log:
            if line.startswith("{"):
                line = json.loads(line)
                found[f"{line['status']} {line['details']}"] += 1
    return dict(found)


def arrived(name):
    lines = open(ENV["TIDEGATE_POINTS"]).read().splitlines()
    # A measurement of its own, the body of a log record, or the name of a span.
    marks = (f'body="{name} ', f"span.name={name},", f"span.name={name} ")
    is_ours = lambda line: line.startswith((name + " ", name + ",")) or any(m in line for m in marks)
    return len({line for line in lines if is_ours(line)})


def run(client, situation, key, count):
    name = f"{client}_{situation}".replace("-", "_")
    since = os.path.getsize(f"{RUN}/envoy.log")
    LOG.lines.clear()
    send, outcomes = CLIENTS[client](), collections.Counter()
    began = time.time()

    def one(number):
        try:
            send(key, name, number)
            outcomes["returned"] += 1
        except BaseException as error:  # noqa: BLE001
            outcomes[f"{type(error).__name__}: {str(error)[:90]!r}"] += 1

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    if situation == "away":
        time.sleep(3)
        signal_authz(signal.SIGCONT)
    for thread in threads:
        thread.join()
    for line in getattr(send, "finish", list)():
        outcomes[line] += 1
    time.sleep(2)
    print(f"\n## {client}, {situation}: {arrived(name)} of {count} arrived, {time.time() - began:.0f} s")
    print(f"   Envoy: {refusals(since)}")
    print(f"   client: {dict(outcomes)}")
    for line, times in LOG.lines.most_common(3):
        print(f"   log x{times}: {line}")
    sys.stdout.flush()


def signal_authz(number):
    for pid in ENV["AUTHZ_PIDS"].split():
        os.kill(int(pid), number)


def scopeless_key():
    command = [os.environ.get("EXT_AUTHZ", "target/debug/ext-authz"), "keys", "issue", "--append"]
    command += ["--tenant", "load", "--scopes", "read", "--config", f"{RUN}/ext-authz.yaml"]
    key = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    time.sleep(2)
    return key


def main():
    good, full = ENV["TIDEGATE_LOAD_KEY"], ENV["TIDEGATE_KEY"]
    bad = good[:-1] + ("A" if good[-1] != "A" else "B")
    scopeless = scopeless_key()
    clients = ONLY or list(CLIENTS)
    for client in clients:
        run(client, "allowed", good, SENT)
        run(client, "bad_key", bad, 1)
        run(client, "no_scope", scopeless, 1)
        run(client, "throttled", full, SENT)
    for client in clients:
        signal_authz(signal.SIGSTOP)
        run(client, "away", good, 1)


main()
